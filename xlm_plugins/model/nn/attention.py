"""Attention over packed sequences, to themselves or to a source.

Everything else in a transformer works row by row and needs no padding.  Attention needs sequences
side by side: an `AttentionPlan`, made once per batch and shared by all layers, arranges sequences
of similar length in buckets, and each bucket is one fused kernel call.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from xlm_plugins.contracts.ragged import IntArray
from xlm_plugins.model.nn.linear import Linear, linear

MAX_PADDING = 0.25
"""The most padding rows per real row that a bucket may have.

On 32 pairs of 10 to 150 tokens (57 on average) this makes 5 buckets.  The time of an update is flat
from 0.05 (13 buckets) to 0.4; a single bucket takes a fifth longer.
"""


@dataclass(frozen=True)
class Grid:
    """The layout of packed rows once their sequences are padded, bucket by bucket.

    :param shapes: (n_sequences, length) of each bucket.
    :param slots: the slot of each packed row in all buckets, concatenated; None if slots and rows
        are the same.  Shape: (n_rows,)
    """

    shapes: tuple[tuple[int, int], ...]
    slots: Tensor | None

    def spread(self, rows: Tensor) -> list[Tensor]:
        """Pad packed rows with zeros: one tensor per bucket.

        :param rows: shape (n_rows, width).
        :returns: shapes (n_sequences, length, width).
        """
        sizes = [n_sequences * length for n_sequences, length in self.shapes]
        if self.slots is not None:
            rows = rows.new_zeros(sum(sizes), rows.shape[1]).index_copy_(0, self.slots, rows)
        parts = torch.split(rows, sizes)
        return [
            part.view(*shape, part.shape[1]) for part, shape in zip(parts, self.shapes, strict=True)
        ]

    def collect(self, padded: Sequence[Tensor]) -> Tensor:
        """The inverse of `spread`; padding is dropped.

        :param padded: shapes (n_sequences, length, width).
        :returns: shape (n_rows, width).
        """
        parts = [part.flatten(0, 1) for part in padded]
        rows = parts[0] if len(parts) == 1 else torch.cat(parts)
        return rows if self.slots is None else rows.index_select(0, self.slots)


@dataclass(frozen=True)
class AttentionPlan:
    """How the sequences of a batch are arranged, and which queries attend to which keys.

    :param offsets: where sequences begin in the query rows, and the end.  On the host.
    :param buckets: the indices of the sequences in each bucket, in order.  On the host.
    :param keys: the grid of the key rows: those of the sequences themselves, or of the source.
    :param queries: the grid of the query rows.
    :param masks: for each bucket, which keys are not padding; None if all are not, or if the
        causal mask hides the padding anyway.  Shape: (n_sequences, 1, 1, length)
    :param causal: each row attends to itself and to earlier rows, else to its whole sequence.
    :param rows: the packed rows that are needed as queries, or None for all.  Shape: (n_needed,)
    """

    offsets: IntArray
    buckets: tuple[IntArray, ...]
    keys: Grid
    queries: Grid
    masks: tuple[Tensor | None, ...]
    causal: bool
    rows: Tensor | None = None

    @property
    def longest(self) -> int:
        """Length of the longest sequence of keys."""
        return max((length for _, length in self.keys.shapes), default=0)

    @classmethod
    def of(cls, offsets: Tensor, causal: bool = False) -> AttentionPlan:
        """Plan a batch.  On a GPU this waits for the offsets, once per batch.

        :param offsets: where sequences begin, and the end.  Shape: (n_sequences + 1,)
        """
        device = offsets.device
        host = offsets.cpu().numpy()
        lengths = np.diff(host)
        if len(lengths) and (lengths == lengths[0]).all():
            every = np.arange(len(lengths))
            grid = Grid(((len(lengths), int(lengths[0])),), None)
            return cls(host, (every,), grid, grid, (None,), causal)
        buckets = bucket_by_length(lengths)
        grid = _lay_out(lengths, buckets, np.arange(host[-1]), device)
        masks = tuple(None if causal else _real_keys(lengths[b], device) for b in buckets)
        return cls(host, buckets, grid, grid, masks, causal)

    @classmethod
    def across(cls, offsets: Tensor, source: Tensor) -> AttentionPlan:
        """Plan the attention of each sequence to the source sequence of the same index.

        :param offsets: of the query rows.  Shape: (n_sequences + 1,)
        :param source: offsets of the key rows.  Shape: (n_sequences + 1,)
        """
        device = offsets.device
        host, lengths = offsets.cpu().numpy(), np.diff(source.cpu().numpy())
        buckets = bucket_by_length(lengths)
        keys = _lay_out(lengths, buckets, np.arange(lengths.sum()), device)
        queries = _lay_out(np.diff(host), buckets, np.arange(host[-1]), device)
        masks = tuple(_real_keys(lengths[b], device) for b in buckets)
        return cls(host, buckets, keys, queries, masks, causal=False)

    def at(self, rows: Tensor) -> AttentionPlan:
        """The same batch with only some rows as queries.

        :param rows: indices into the packed rows, in any order.  Shape: (n_needed,)
        """
        if self.causal:  # the causal kernel takes all queries; `forward` selects afterwards
            return dataclasses.replace(self, rows=rows)
        sequence = np.searchsorted(self.offsets, rows.cpu().numpy(), side="right") - 1
        counts = np.bincount(sequence, minlength=len(self.offsets) - 1)
        order = np.argsort(sequence, kind="stable")
        grid = _lay_out(counts, self.buckets, order, rows.device)
        return dataclasses.replace(self, rows=rows, queries=grid)


def side_by_side(rows: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor | None]:
    """Pad packed sequences to the longest.

    :param rows: shape (n_rows, width).
    :param offsets: where sequences begin, and the end.  Shape: (n_sequences + 1,)
    :returns: shape (n_sequences, length, width), and which positions are not padding, or None if
        all are not: (n_sequences, 1, 1, length).
    """
    lengths = np.diff(offsets.cpu().numpy())
    every = (np.arange(len(lengths)),)
    grid = _lay_out(lengths, every, np.arange(lengths.sum()), rows.device)
    (padded,) = grid.spread(rows)
    return padded, _real_keys(lengths, rows.device)


def bucket_by_length(lengths: IntArray) -> tuple[IntArray, ...]:
    """Group sequences so that none is padded much; empty ones are left out.

    :param lengths: shape (n_sequences,).
    :returns: the indices of the sequences in each bucket.
    """
    order = np.argsort(lengths, kind="stable")
    order = order[lengths[order] > 0]
    buckets, begin, n_real = [], 0, 0
    for end, length in enumerate(lengths[order].tolist()):
        if length * (end + 1 - begin) > (1 + MAX_PADDING) * (n_real + length):
            buckets.append(order[begin:end])
            begin, n_real = end, 0
        n_real += length
    return (*buckets, order[begin:])


def _lay_out(
    counts: IntArray, buckets: Sequence[IntArray], order: IntArray, device: torch.device
) -> Grid:
    """The grid of ``counts[s]`` rows from each sequence s; ``order`` has the rows' indices."""
    shapes, starts, n_slots = [], np.zeros(len(counts), np.int64), 0
    for bucket in buckets:
        length = int(counts[bucket].max(initial=0))
        shapes.append((len(bucket), length))
        starts[bucket] = n_slots + length * np.arange(len(bucket))
        n_slots += length * len(bucket)
    before = np.cumsum(counts) - counts
    slots = np.empty(len(order), np.int64)
    slots[order] = np.arange(len(order)) + np.repeat(starts - before, counts)
    return Grid(tuple(shapes), torch.from_numpy(slots).to(device))


def _real_keys(lengths: IntArray, device: torch.device) -> Tensor | None:
    """Which keys of a bucket are not padding.  Shape: (n_sequences, 1, 1, length)"""
    if len(lengths) == 0 or (lengths == lengths[0]).all():
        return None
    real = np.arange(lengths.max()) < lengths[:, None]
    return torch.from_numpy(real).to(device)[:, None, None, :]


_PARTS = {"all": (0, 3), "query": (0, 1), "key_value": (1, 3)}


class QueryKeyValue(nn.Linear):
    """The projections to queries, keys and values in one; callers may ask for a part of them."""

    def __init__(self, dim: int) -> None:
        super().__init__(dim, 3 * dim)

    def reset_parameters(self) -> None:
        """Initialize each of the three in Xavier's range, as torch's own attention does.

        A plain linear layer starts 1.7 times smaller; attention is then so diffuse that short runs
        stay longer at the unigram plateau (docs/architecture.md, "How a model starts").
        """
        super().reset_parameters()
        bound = (3 / self.in_features) ** 0.5
        nn.init.uniform_(self.weight, -bound, bound)

    def forward(self, x: Tensor, part: Literal["all", "query", "key_value"] = "all") -> Tensor:
        """Shape: (n, dim) -> (n, width), width being 3, 1 or 2 times dim."""
        first, last = (self.in_features * n for n in _PARTS[part])
        return linear(x, self.weight[first:last], self.bias[first:last])


class Attention(nn.Module):
    """Multi-head attention ("Attention Is All You Need", 3.2), with biases everywhere.

    :param dim: width of the model.
    :param n_heads: divides ``dim``; scores are scaled by (dim / n_heads)^-1/2.
    :param dropout: share of attention weights dropped in training.
    """

    def __init__(self, dim: int, n_heads: int, dropout: float) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.dropout = dropout
        self.qkv = QueryKeyValue(dim)
        self.output = Linear(dim, dim)

    def forward(self, x: Tensor, plan: AttentionPlan) -> Tensor:
        """Let the plan's query rows attend to their sequences.

        :param x: packed states.  Shape: (n_rows, dim)
        :returns: shape (n_rows, dim), or (n_needed, dim).
        """
        if plan.rows is None or plan.causal:
            parts = [self._by_head(part, 3) for part in plan.keys.spread(self.qkv(x))]
            mixed = plan.keys.collect(self._attend(parts, plan))
            if plan.rows is not None:
                mixed = mixed.index_select(0, plan.rows)
        else:
            queries = plan.queries.spread(self.qkv(x.index_select(0, plan.rows), "query"))
            mixed = plan.queries.collect(self._attend(self._parts(queries, x, plan), plan))
        projected: Tensor = self.output(mixed)
        return projected

    def across(self, x: Tensor, source: Tensor, plan: AttentionPlan) -> Tensor:
        """Let rows attend to the source of their sequence.

        :param x: the plan's query rows.  Shape: (n_rows, dim)
        :param source: packed states of the source.  Shape: (n_source_rows, dim)
        :returns: shape (n_rows, dim).
        """
        queries = plan.queries.spread(self.qkv(x, "query"))
        mixed = plan.queries.collect(self._attend(self._parts(queries, source, plan), plan))
        projected: Tensor = self.output(mixed)
        return projected

    def append(
        self, x: Tensor, keys: Tensor, values: Tensor, at: int, mask: Tensor | None = None
    ) -> Tensor:
        """Let new rows of each sequence attend to earlier rows and to each other.

        :param x: the new rows, equally many per sequence, adjacent.  Shape: (n_rows, dim)
        :param keys: the cache of earlier rows; the new ones are written into it from ``at`` on.
            Shape: (n_sequences, n_heads, capacity, dim / n_heads)
        :param values: like ``keys``.
        :param mask: added to the scores of all keys up to the last new one; None if each row
            attends to all of them.  Shape: (n_sequences, 1, n_rows / n_sequences, n_keys)
        :returns: shape (n_rows, dim).
        """
        query, key, value = self._by_head(self.qkv(x).unflatten(0, (len(keys), -1)), 3)
        end = at + query.shape[2]
        keys[:, :, at:end], values[:, :, at:end] = key, value
        return self.read(query, keys[:, :, :end], values[:, :, :end], mask)

    def queries(self, x: Tensor, n_together: int) -> Tensor:
        """Queries of rows of which ``n_together`` adjacent ones attend to the same keys.

        :returns: shape (n_rows / n_together, n_heads, n_together, dim / n_heads).
        """
        return self._by_head(self.qkv(x, "query").unflatten(0, (-1, n_together)), 1)[0]

    def keys_and_values(self, padded: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of padded sequences, contiguous since they are read many times.

        :param padded: shape (n_sequences, length, dim).
        :returns: shape of each: (n_sequences, n_heads, length, dim / n_heads).
        """
        keys, values = self._by_head(self.qkv(padded, "key_value"), 2)
        return keys.contiguous(), values.contiguous()

    def read(
        self, queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None = None
    ) -> Tensor:
        """Attend with given queries, keys and values, and project; without dropout.

        In plain products: torch's fused attention, made for many queries, takes a quarter longer
        for the few of a beam (benchmarks/translate.py).

        :param queries: shape (n, n_heads, n_together, dim / n_heads).
        :param mask: added to the scores.  Shape: (n, 1, 1 or n_together, length)
        :returns: shape (n * n_together, dim).
        """
        scores = (queries * queries.shape[-1] ** -0.5) @ keys.transpose(2, 3)
        if mask is not None:
            scores += mask
        mixed = scores.softmax(-1) @ values
        projected: Tensor = self.output(mixed.transpose(1, 2).flatten(0, 1).flatten(1))
        return projected

    def _parts(
        self, queries: Sequence[Tensor], source: Tensor, plan: AttentionPlan
    ) -> list[tuple[Tensor, ...]]:
        """Queries, keys and values of each bucket, by head.

        :param queries: projected queries.  Shapes: (n_sequences, length, dim)
        """
        keys_and_values = plan.keys.spread(self.qkv(source, "key_value"))
        return [
            self._by_head(query, 1) + self._by_head(key_value, 2)
            for query, key_value in zip(queries, keys_and_values, strict=True)
        ]

    def _by_head(self, rows: Tensor, n_parts: int) -> tuple[Tensor, ...]:
        """Split a projection into its parts, and each part into heads.

        :param rows: shape (n_sequences, length, n_parts * dim).
        :returns: n_parts tensors of shape (n_sequences, n_heads, length, dim / n_heads).
        """
        n_sequences, length, width = rows.shape
        head_dim = width // n_parts // self.n_heads
        heads = rows.view(n_sequences, length, n_parts, self.n_heads, head_dim)
        return torch.unbind(heads.permute(2, 0, 3, 1, 4))

    def _attend(self, parts: Sequence[tuple[Tensor, ...]], plan: AttentionPlan) -> list[Tensor]:
        """The attention output of each bucket.  Shapes: (n_sequences, length, dim)"""
        dropout = self.dropout if self.training else 0.0
        return [
            functional.scaled_dot_product_attention(
                query, key, value, mask, dropout_p=dropout, is_causal=plan.causal
            )
            .transpose(1, 2)
            .flatten(2)
            for (query, key, value), mask in zip(parts, plan.masks, strict=True)
        ]
