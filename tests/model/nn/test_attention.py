"""Attention over packed sequences equals attention over each sequence alone."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from xlm_plugins.model.nn.attention import MAX_PADDING, Attention, AttentionPlan, bucket_by_length

DIM, N_HEADS = 12, 3
LENGTHS = [[5, 5, 5], [3, 9, 1, 4, 4, 20], [1], [2, 0, 3]]


def offsets_of(lengths: list[int]) -> Tensor:
    return torch.tensor([0, *np.cumsum(lengths)])


def by_hand(attention: Attention, x: Tensor, offsets: Tensor, causal: bool) -> Tensor:
    """Softmax of scaled scores, one sequence and head at a time."""
    query, key, value = (
        functional.linear(x, weight, bias).view(len(x), N_HEADS, -1)
        for weight, bias in zip(
            attention.qkv.weight.chunk(3), attention.qkv.bias.chunk(3), strict=True
        )
    )
    mixed = []
    for begin, end in itertools.pairwise(offsets):
        q, k, v = (part[begin:end] for part in (query, key, value))
        scores = torch.einsum("qhd,khd->hqk", q, k) / (DIM / N_HEADS) ** 0.5
        if causal:
            later = torch.ones(len(q), len(q)).triu(1).bool()
            scores = scores.masked_fill(later, -torch.inf)
        mixed.append(torch.einsum("hqk,khd->qhd", scores.softmax(-1), v).flatten(1))
    return attention.output(torch.cat(mixed))


def attention_and_input(lengths: list[int]) -> tuple[Attention, Tensor]:
    torch.manual_seed(1)
    return Attention(DIM, N_HEADS, 0.0), torch.randn(sum(lengths), DIM, requires_grad=True)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("lengths", LENGTHS)
def test_equals_each_sequence_alone(lengths: list[int], causal: bool) -> None:
    attention, x = attention_and_input(lengths)
    offsets = offsets_of(lengths)
    ours = attention(x, AttentionPlan.of(offsets, causal))
    expected = by_hand(attention, x, offsets, causal)
    torch.testing.assert_close(ours, expected)
    wanted = [x, *attention.parameters()]
    upstream = torch.randn_like(ours)
    gradients = torch.autograd.grad(ours, wanted, upstream)
    torch.testing.assert_close(
        gradients, torch.autograd.grad(expected, wanted, upstream), atol=1e-5, rtol=1e-5
    )


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(
    ("lengths", "rows"),
    [
        ([5, 5, 5], [0, 1, 2, 14]),
        ([3, 9, 1, 4], [2, 3, 4, 12, 16]),
        ([3, 9, 1, 4], [16, 0, 12, 5, 4]),
        ([3, 9], []),
    ],
)
def test_only_some_rows_as_queries(lengths: list[int], rows: list[int], causal: bool) -> None:
    attention, x = attention_and_input(lengths)
    plan = AttentionPlan.of(offsets_of(lengths), causal)
    at = torch.tensor(rows, dtype=torch.long)
    cut, full = attention(x, plan.at(at)), attention(x, plan)[at]
    torch.testing.assert_close(cut, full)
    wanted = [x, attention.qkv.weight, attention.output.weight]
    upstream = torch.randn_like(cut)
    torch.testing.assert_close(
        torch.autograd.grad(cut, wanted, upstream), torch.autograd.grad(full, wanted, upstream)
    )


def test_sequences_of_one_length_are_not_moved() -> None:
    plan = AttentionPlan.of(offsets_of([4, 4]))
    assert plan.keys.slots is None
    assert plan.masks == (None,)
    x = torch.randn(8, 6)
    (padded,) = plan.keys.spread(x)
    assert padded.data_ptr() == x.data_ptr()
    assert plan.keys.collect([padded]).data_ptr() == x.data_ptr()


def test_spreading_and_collecting_are_inverse() -> None:
    plan = AttentionPlan.of(offsets_of([3, 9, 1, 4, 4, 20]))
    x = torch.randn(41, 2)
    padded = plan.keys.spread(x)
    assert len(padded) == len(plan.buckets) > 1
    assert torch.equal(plan.keys.collect(padded), x)


def test_buckets_hold_every_sequence_once_with_little_padding() -> None:
    lengths = np.random.default_rng(1).integers(0, 150, 64)
    buckets = bucket_by_length(lengths)
    assert sorted(np.concatenate(buckets)) == np.flatnonzero(lengths).tolist()
    assert len(buckets) < 12
    for bucket in buckets:
        n_slots = lengths[bucket].max() * len(bucket)
        assert n_slots <= (1 + MAX_PADDING) * lengths[bucket].sum()


def test_dropout_on_weights_in_training_only() -> None:
    attention = Attention(DIM, N_HEADS, 0.5)
    x, plan = torch.randn(6, DIM), AttentionPlan.of(offsets_of([6]))
    assert not torch.equal(attention(x, plan), attention(x, plan))
    attention.eval()
    assert torch.equal(attention(x, plan), attention(x, plan))
