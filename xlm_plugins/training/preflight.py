"""A trial of the largest batch before training, so that what does not fit fails immediately."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from xlm_plugins.contracts.batch import Batch, Layout, Samples, Step
from xlm_plugins.contracts.objective import Objective, Trainable
from xlm_plugins.contracts.ragged import Ragged
from xlm_plugins.data.batches.keyed_rng import keyed_rng
from xlm_plugins.data.batches.planning import BatchSizes
from xlm_plugins.data.batches.pools import stream_languages
from xlm_plugins.data.dataset.manifest import Manifest
from xlm_plugins.training.distributed.watchdog import Watchdog
from xlm_plugins.training.engines.engine import Engine
from xlm_plugins.training.memory_estimate import bytes_in_words


@dataclass(frozen=True)
class Rehearsal:
    """The largest micro-batch that a rank can get of an objective."""

    trainable: Trainable
    step: Step
    batch: Batch

    @property
    def title(self) -> str:
        return f"{self.trainable.name}:{self.step}, {self.batch.n_tokens:,} tokens"


def largest(
    objective: Objective,
    steps: Sequence[Step],
    manifest: Manifest,
    sizes: BatchSizes,
    n_parts: int,
) -> Rehearsal:
    """A micro-batch as large as they get: random tokens, all samples as long as the longest.

    A lane's share starts and ends with a whole sample, so it is off by up to one sample, more or
    less; all of them together by 1.5 times the square root of their number (3.7 deviations).

    :param steps: of the objective; the one with the longest samples is used.
    :param n_parts: parts of a global batch: ranks x accumulation.
    """
    found = {step: _lengths(objective, step, manifest, sizes) for step in steps}
    step = max(found, key=lambda step: found[step].longest)
    lengths, lanes = found[step], sizes.lanes / n_parts
    n_sides = 2 if objective.layout(step) is Layout.PAIR else 1
    n_tokens = lanes * max(sizes.batch_tokens / sizes.lanes, lengths.mean)
    n_more = min(lanes, 1.5 * math.sqrt(lanes))
    n_rows = max(1, round(n_tokens / lengths.framed + n_more))
    length = lengths.longest
    rng = keyed_rng("preflight", objective.name, str(step))
    ordinary, offsets = objective.vocabulary.ordinary, np.arange(n_rows + 1) * length
    sides = tuple(Ragged(rng.choice(ordinary, n_rows * length), offsets) for _ in range(n_sides))
    return Rehearsal(
        objective, step, objective.make_batch(Samples(np.arange(n_rows), sides), step, rng)
    )


class _Lengths(NamedTuple):
    """Lengths of a step's samples, in tokens.

    :param longest: one side of the longest sample, without its frame.
    :param framed: all sides of such a sample, with their frames.
    :param mean: of all samples, with their frames.  A lane's share has at least one sample.
    """

    longest: int
    framed: int
    mean: float


def _lengths(objective: Objective, step: Step, manifest: Manifest, sizes: BatchSizes) -> _Lengths:
    layout = objective.layout(step)
    if layout is Layout.STREAM:
        window = sizes.stream_window
        return _Lengths(window, window, window)
    stream = manifest.stream("train", stream_languages(layout, step))
    rows = np.concatenate([block.lengths for block in stream.blocks]).astype(np.int64)
    rows = rows[(rows[:, 0] > 0) & (rows[:, 0] <= sizes.max_length)]
    longest, frames = int(rows[:, 0].max(initial=1)), 2 * len(stream.languages)
    mean = rows[:, 2].sum() / max(rows[:, 1].sum(), 1) + frames
    return _Lengths(longest, longest * frames // 2 + frames, float(mean))


def rehearse(engine: Engine, rehearsals: Sequence[Rehearsal], watchdog: Watchdog) -> str:
    """Run forward and backward passes without an update, and leave everything unchanged.

    A GPU tries all rehearsals.  A CPU, on which each costs as much as a step of training, tries
    only the largest, and does not generate text for it.

    :returns: the memory used, as a message for the user; empty on a CPU.
    """
    on_gpu = engine.device.type == "cuda"
    with unchanged(engine):
        for one in rehearsals if on_gpu else sorted(rehearsals, key=_weight)[-1:]:
            watchdog.report(f"{one.title}, the largest batch, tried before training")
            batch = one.batch.to(engine.device)
            if on_gpu:
                batch = engine.prepare(one.trainable, batch, one.step)
            # A gradient that is not a number: the update is always skipped.
            engine.forward_backward(one.trainable, batch, math.nan)
            engine.step(0.0)
    if not on_gpu:
        return ""
    total = torch.cuda.get_device_properties(engine.device).total_memory
    used = torch.cuda.max_memory_allocated(engine.device)
    return f"the largest batches fit: at most {bytes_in_words(used)} of {bytes_in_words(total)}"


def _weight(rehearsal: Rehearsal) -> int:
    return rehearsal.batch.n_tokens + rehearsal.batch.n_targets


@contextmanager
def unchanged(engine: Engine) -> Iterator[None]:
    """Restore afterwards what even a skipped update changes.

    (running statistics of BatchNorm, layers' counters, the loss scale, torch's random state)
    """
    buffers = {name: buffer.clone() for name, buffer in engine.model.named_buffers()}
    devices = [engine.device] if engine.device.type == "cuda" else []
    with torch.random.fork_rng(devices), engine.keeping_loss_scale():
        yield
    for name, buffer in engine.model.named_buffers():
        buffer.copy_(buffers[name])
    for layer in engine.model.layers_by_position.values():
        layer.reset_statistics()
