"""Tallies: sums between two log lines, over micro-batches and ranks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from xlm_plugins.contracts.batch import LossOutput
from xlm_plugins.training.engines.engine import Engine


@dataclass
class Tally:
    """Sums since the last log line, for one objective and step.

    :param sums: loss, targets and correct targets in float64 on the device, so that nothing waits
        for the device before a line is written.
    """

    sums: Tensor
    n_updates: int = 0

    def add(self, output: LossOutput) -> None:
        self.sums += torch.stack([part.detach().double() for part in output])


@dataclass
class Tallies:
    """The tallies of all objectives and steps, and the number of input tokens."""

    device: torch.device
    by_step: dict[tuple[str, str], Tally] = field(default_factory=dict)
    n_tokens: int = 0

    def of(self, objective: str, step: str) -> Tally:
        key = (objective, step)
        if key not in self.by_step:
            self.by_step[key] = Tally(torch.zeros(3, dtype=torch.float64, device=self.device))
        return self.by_step[key]

    def drain(self, engine: Engine) -> tuple[list[dict[str, Any]], int]:
        """One record per objective and step, and the tokens, summed over ranks; resets all sums."""
        records = []
        for (objective, step), tally in self.by_step.items():
            loss, n_targets, n_correct = engine.sum(tally.sums).tolist()
            records.append(
                {
                    "objective": objective,
                    "languages": step,
                    "updates": tally.n_updates,
                    "loss": loss / max(n_targets, 1),
                    "accuracy": 100 * n_correct / max(n_targets, 1),
                }
            )
        n_tokens = int(engine.sum(torch.tensor(self.n_tokens, device=self.device)))
        self.by_step = {}
        self.n_tokens = 0
        return records, n_tokens

    def to_json(self, engine: Engine) -> dict[str, Any]:
        """The sums over all ranks, so that a resumed run writes the same next line."""
        return {
            "steps": [
                [objective, step, tally.n_updates, *engine.sum(tally.sums).tolist()]
                for (objective, step), tally in self.by_step.items()
            ],
            "tokens": int(engine.sum(torch.tensor(self.n_tokens, device=self.device))),
        }

    def restore(self, tree: dict[str, Any], rank: int) -> None:
        """Restore what `to_json` returned, on rank 0 only, so that the sums count once."""
        for objective, step, n_updates, *sums in tree["steps"]:
            tally = self.of(objective, step)
            tally.n_updates = n_updates
            if rank == 0:
                tally.sums += torch.tensor(sums, dtype=torch.float64, device=self.device)
        self.n_tokens = tree["tokens"] if rank == 0 else 0
