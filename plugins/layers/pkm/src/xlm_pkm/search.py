"""Exact search for the best slots of a query, and their weights.

All keys of a set are scored; of the slots of a product memory, which are pairs of sub-keys, only
those that can be among the best are considered.
"""

from __future__ import annotations

import torch
from torch import Tensor

from xlm_pkm.options import ProductKeyOptions

SMALLEST_SUM = 1e-6
"""Equal scores minus the smallest are all zero; divided by this, they are still zero."""


def key_scores(queries: Tensor, keys: Tensor) -> Tensor:
    """Score every key of every set, in one batched matrix product.

    :param queries: shape (n_tokens, n_sets, width).
    :param keys: shape (n_sets, n_keys, width).
    :returns: shape (n_sets, n_tokens, n_keys).
    """
    return torch.bmm(queries.transpose(0, 1), keys.transpose(1, 2))


def best_sums(scores: Tensor, knn: int, pairs: Tensor) -> tuple[Tensor, Tensor]:
    """The pairs of sub-keys, one of each half, with the largest sums of scores.

    :param scores: of both halves' sub-keys. Shape: (heads, 2, n_tokens, n_keys)
    :param pairs: as returned by `pairs_that_can_win` for ``knn``.
    :returns: scores, in decreasing order, and slots; sub-keys i and j make slot ``i * n_keys + j``.
        Shape of each: (heads, n_tokens, knn)
    """
    best, keys_of_best = scores.topk(knn, dim=-1)
    first, second = best.unbind(1)  # (heads, n_tokens, knn) each
    with torch.no_grad():
        sums = first[..., pairs[0]] + second[..., pairs[1]]
        first_rank, second_rank = pairs[:, sums.topk(knn, dim=-1).indices]
        slots = keys_of_best[:, 0].gather(-1, first_rank) * scores.shape[-1]
        slots += keys_of_best[:, 1].gather(-1, second_rank)
    return first.gather(-1, first_rank) + second.gather(-1, second_rank), slots


def pairs_that_can_win(knn: int) -> Tensor:
    """Ranks (i, j) of sub-keys that can be among the knn best sums. Shape: (2, n_pairs)

    With ranks counted from 1, the pair (i, j) scores no better than any of the i * j pairs of ranks
    up to its own, so it cannot win if i * j > knn.  Of 32 x 32 pairs, 119 remain.
    """
    ranks = torch.arange(1, knn + 1)
    return (ranks[:, None] * ranks <= knn).nonzero().T.contiguous()


def weights_of(scores: Tensor, options: ProductKeyOptions) -> Tensor:
    """The weight of each slot in a head's output. Shape: (..., knn), kept"""
    if options.score_norm == "softmax":
        scaled = scores if options.temperature == 1.0 else scores / options.temperature
        return scaled.softmax(-1)
    if options.score_subtract == "min":
        scores = scores - scores.amin(-1, keepdim=True)
    elif options.score_subtract == "mean":
        scores = scores - scores.mean(-1, keepdim=True)
    elif options.score_subtract == "median":
        scores = scores - scores.median(-1, keepdim=True).values
    if options.score_norm == "sum":
        scores = scores / scores.sum(-1, keepdim=True).clamp(min=SMALLEST_SUM)
    return scores
