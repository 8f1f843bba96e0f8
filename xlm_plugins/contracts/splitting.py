"""Splitting a batch by its samples, to see whether they are independent of each other."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch

from xlm_plugins.contracts.batch import Batch


def by_sample(batch: Batch) -> list[list[int]]:
    """The indices of the sequences of each sample."""
    found: dict[int, list[int]] = {}
    for sequence, sample in enumerate(batch.sample_ids.tolist()):
        found.setdefault(sample, []).append(sequence)
    return list(found.values())


def select(batch: Batch, sequences: Sequence[int]) -> Batch:
    """Some sequences of a batch, in the given order."""
    parts = [_one(batch, sequence) for sequence in sequences]
    source = select(batch.source, sequences) if batch.source else None
    return dataclasses.replace(Batch.cat(parts), source=source)


def _one(batch: Batch, sequence: int) -> Batch:
    begin, end = batch.offsets[sequence : sequence + 2].tolist()
    inside = (batch.predicted >= begin) & (batch.predicted < end)
    return Batch(
        batch.tokens[begin:end],
        batch.positions[begin:end],
        batch.languages[begin:end],
        torch.tensor([0, end - begin]),
        batch.predicted[inside] - begin,
        batch.targets[inside],
        batch.sample_ids[sequence : sequence + 1],
    )
