"""Comparing and copying batches."""

from __future__ import annotations

import dataclasses

import torch

from xlm_plugins.contracts.batch import Batch

TENSORS = tuple(field.name for field in dataclasses.fields(Batch) if field.name != "source")


def difference(one: Batch, other: Batch) -> str:
    """The first field in which two batches differ; empty if they are equal."""
    for name in TENSORS:
        if not torch.equal(getattr(one, name), getattr(other, name)):
            return name
    if one.source is None or other.source is None:
        return "" if one.source is other.source else "source"
    inner = difference(one.source, other.source)
    return f"source.{inner}" if inner else ""


def copied(batch: Batch) -> Batch:
    """A copy that shares no memory."""
    tensors = {name: getattr(batch, name).clone() for name in TENSORS}
    return Batch(**tensors, source=copied(batch.source) if batch.source else None)
