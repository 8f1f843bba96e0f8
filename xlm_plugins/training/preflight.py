"""One step with the largest batch before training, so that what does not fit fails at once."""

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
    """The largest micro-batch that a rank can get of something that is trained."""

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
    """A micro-batch as large as one comes: random words, all samples as long as the longest.

    A lane's share begins and ends with a whole sample, so lanes are off by up to a sample, this way
    or that; together by one and a half times the square root of their number (3.7 deviations).

    :param steps: of the objective; that with the longest samples is taken.
    :param n_parts: ranks x accumulation.
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
    """Tokens of a step's samples.

    :param longest: of those that it trains on, without its frame.
    :param framed: the same with it, all sides together.
    :param mean: of all, with their frames.  A lane's share has one sample at least.
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
    """Go forward and backward without an update, and leave everything as it was.

    A GPU goes through them all.  A CPU, where one of them costs as much as a step of training,
    goes through the largest alone, and does not generate for it.

    :returns: what it took, for the user; empty where nobody measures.
    """
    on_gpu = engine.device.type == "cuda"
    with _as_it_was(engine):
        for one in rehearsals if on_gpu else sorted(rehearsals, key=_weight)[-1:]:
            watchdog.report(f"{one.title}, the largest batch, tried before training")
            batch = one.batch.to(engine.device)
            if on_gpu:
                batch = engine.prepare(one.trainable, batch, one.step)
            # No number may come of it: an update with such a gradient is always skipped.
            engine.forward_backward(one.trainable, batch, math.nan)
            engine.step(0.0)
    if not on_gpu:
        return ""
    has = torch.cuda.get_device_properties(engine.device).total_memory
    took = torch.cuda.max_memory_allocated(engine.device)
    return f"the largest batches fit: {bytes_in_words(took)} of {bytes_in_words(has)} at most"


def _weight(rehearsal: Rehearsal) -> int:
    return rehearsal.batch.n_tokens + rehearsal.batch.n_targets


@contextmanager
def _as_it_was(engine: Engine) -> Iterator[None]:
    """Put back what a step changes besides weights and moments, which a skipped one leaves alone.

    (running statistics of BatchNorm, what layers count, the loss scale, torch's random state)
    """
    buffers = {name: buffer.clone() for name, buffer in engine.model.named_buffers()}
    devices = [engine.device] if engine.device.type == "cuda" else []
    with torch.random.fork_rng(devices), engine.keeping_loss_scale():
        yield
    for name, buffer in engine.model.named_buffers():
        buffer.copy_(buffers[name])
    for layer in engine.model.layers_by_position.values():
        layer.reset_statistics()
