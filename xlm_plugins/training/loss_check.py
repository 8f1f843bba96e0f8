"""Before training: is every objective's loss a sum over independent samples, as it promises?

Ranks and gradient accumulation split a global batch arbitrarily, so a loss in which samples see
each other (in-batch negatives, a mean instead of a sum) would train on something undefined.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
import torch

from xlm_plugins.contracts.batch import Batch, Layout, Samples, Step
from xlm_plugins.contracts.objective import Objective
from xlm_plugins.contracts.ragged import Ragged
from xlm_plugins.contracts.splitting import by_sample, select
from xlm_plugins.core.errors import PluginError
from xlm_plugins.data.batches.keyed_rng import keyed_rng
from xlm_plugins.training.distributed.signals import StopAsked
from xlm_plugins.training.distributed.watchdog import Watchdog
from xlm_plugins.training.engines.engine import Engine
from xlm_plugins.training.preflight import Rehearsal, unchanged

_N_SAMPLES = 4
_MOST_TOKENS = 16
_TOLERANCE = {"fp32": 1e-4, "bf16": 2e-2, "fp16": 2e-2}
"""Relative, by precision: a batch and its samples are summed in a different order."""


def check_losses(engine: Engine, rehearsals: Iterable[Rehearsal], watchdog: Watchdog) -> None:
    """Compare the loss of a few samples together with the sum of their losses one by one.

    The samples are random tokens, as `make_batch` makes a batch of them; what `prepare` would
    generate is not.  They are the same on every rank, so all ranks make as many forward passes,
    without gradients and in eval mode, and decide alike.  Everything is left unchanged.

    :raises PluginError: they differ; names the objective.
    """
    with unchanged(engine), engine.evaluating():
        for one in rehearsals:
            # The loss of a downstream task is the runtime's own.
            if isinstance(one.trainable, Objective):
                watchdog.report(f"{one.trainable.name}: is its loss a sum over samples?")
                try:
                    _check(engine, one.trainable, one.step, _batch(one.trainable, one))
                except StopAsked:  # the trainer will see the signal, too
                    return


def _batch(objective: Objective, one: Rehearsal) -> Batch:
    """Short samples of the rehearsal's step; a largest micro-batch may have a single sample."""
    longest = int(one.batch.offsets.diff().max())
    length = max(1, min(_MOST_TOKENS, longest // 2 - 2))  # of one side, without its frame
    n_sides = 2 if objective.layout(one.step) is Layout.PAIR else 1
    rng = keyed_rng("loss check", objective.name, str(one.step))
    ids, offsets = np.arange(_N_SAMPLES), np.arange(_N_SAMPLES + 1) * length
    ordinary = objective.vocabulary.ordinary
    sides = (Ragged(rng.choice(ordinary, offsets[-1]), offsets) for _ in range(n_sides))
    return objective.make_batch(Samples(ids, tuple(sides)), one.step, rng)


def _check(engine: Engine, objective: Objective, step: Step, together: Batch) -> None:
    alone = [select(together, sequences) for sequences in by_sample(together)]
    whole, parts = _sums(engine, objective, [together]), _sums(engine, objective, alone)
    off = (whole - parts).abs() / torch.maximum(whole.abs(), parts.abs()).clamp(min=1.0)
    # A whole that is not a number is no matter of samples: the trainer will report it.
    worst = float(off.nan_to_num(nan=math.inf).max()) if whole.isfinite().all() else 0.0
    if engine.max_over_ranks(worst) > _TOLERANCE[engine.precision]:
        raise PluginError(
            f"the loss of {objective.name}:{step} is not a sum over independent samples: "
            f"{len(alone)} samples together have {_described(whole)}, one by one "
            f"{_described(parts)}",
            expected="a loss to which each sample adds the same, whatever else is in its batch: "
            "ranks and gradient accumulation divide a global batch arbitrarily",
            remedy=f"find out more in a test: check_objective({objective.name!r})",
        )


def _sums(engine: Engine, objective: Objective, batches: Sequence[Batch]) -> torch.Tensor:
    """Loss and number of targets, summed over batches.  Shape (2,)."""
    outputs = (engine.evaluate(objective, batch) for batch in batches)
    found = [torch.stack([output.loss.double(), output.n_targets.double()]) for output in outputs]
    return torch.stack(found).sum(0).cpu()


def _described(sums: torch.Tensor) -> str:
    loss, n_targets = sums.tolist()
    return f"{loss:.6g} for {n_targets:.0f} targets"
