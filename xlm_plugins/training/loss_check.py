"""Before training: is every objective's loss a sum over independent samples, as it promises?

Ranks and gradient accumulation split a global batch arbitrarily, so a loss in which samples see
each other (in-batch negatives, a mean instead of a sum) would train on something undefined.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch

from xlm_plugins.contracts.batch import Batch
from xlm_plugins.contracts.objective import Objective
from xlm_plugins.contracts.splitting import by_sample, select
from xlm_plugins.core.errors import PluginError
from xlm_plugins.training.distributed.signals import StopAsked
from xlm_plugins.training.distributed.watchdog import Watchdog
from xlm_plugins.training.engines.engine import Engine
from xlm_plugins.training.preflight import Rehearsal, unchanged

_N_SAMPLES = 4
_TOLERANCE = {"fp32": 1e-4, "bf16": 2e-2, "fp16": 2e-2}
"""Relative, by precision: a batch and its samples are summed in a different order."""


def check_losses(engine: Engine, rehearsals: Iterable[Rehearsal], watchdog: Watchdog) -> None:
    """Compare the loss of a few samples together with the sum of their losses one by one.

    The samples are of the rehearsal's batch, as `make_batch` made it; what `prepare` would generate
    is not.  They are the same on every rank, so all ranks make as many forward passes, without
    gradients and in eval mode, and decide alike.  Everything is left unchanged.

    :raises PluginError: they differ; names the objective.
    """
    with unchanged(engine), engine.evaluating():
        for one in rehearsals:
            # The loss of a downstream task is the runtime's own.
            if isinstance(one.trainable, Objective):
                watchdog.report(f"{one.trainable.name}: is its loss a sum over samples?")
                try:
                    _check(engine, one)
                except StopAsked:  # the trainer will see the signal, too
                    return


def _check(engine: Engine, one: Rehearsal) -> None:
    samples = by_sample(one.batch)[:_N_SAMPLES]
    parts = [select(one.batch, sequences) for sequences in samples]
    together = select(one.batch, [sequence for sequences in samples for sequence in sequences])
    whole, alone = _sums(engine, one, [together]), _sums(engine, one, parts)
    if not whole.isfinite().all():
        return  # not a matter of samples: the trainer will report it
    off = (whole - alone).abs() / torch.maximum(whole.abs(), alone.abs()).clamp(min=1.0)
    worst = float(off.nan_to_num(nan=math.inf).max())
    if engine.max_over_ranks(worst) > _TOLERANCE[engine.precision]:
        name = one.trainable.name
        raise PluginError(
            f"the loss of {name}:{one.step} is not a sum over independent samples: {len(parts)} "
            f"samples together have {_described(whole)}, one by one {_described(alone)}",
            expected="a loss to which each sample adds the same, whatever else is in its batch: "
            "ranks and gradient accumulation divide a global batch arbitrarily",
            remedy=f"find out more in a test: check_objective({name!r})",
        )


def _sums(engine: Engine, one: Rehearsal, batches: Sequence[Batch]) -> torch.Tensor:
    """Loss and number of targets, summed over batches.  Shape (2,)."""
    outputs = (engine.evaluate(one.trainable, batch) for batch in batches)
    found = [torch.stack([output.loss.double(), output.n_targets.double()]) for output in outputs]
    return torch.stack(found).sum(0).cpu()


def _described(sums: torch.Tensor) -> str:
    loss, n_targets = sums.tolist()
    return f"{loss:.6g} for {n_targets:.0f} targets"
