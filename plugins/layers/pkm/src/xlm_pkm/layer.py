"""Large memory layers with product keys (Lample et al., 2019, arXiv 1907.05242).

A memory of ``n_keys ** 2`` slots.  A query is cut in halves, each half is scored against
``n_keys`` sub-keys, and the best slots are found among the sums of the best sub-keys of both
halves: exact, and at the cost of the square root of the number of slots.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from xlm_pkm import ProductKeyOptions
from xlm_pkm.gather import weighted_rows
from xlm_plugins import Layer, ParameterGroup


class ProductKeyMemory(Layer):
    """A product-key memory whose value table is shared by the heads.

    :param options: the sizes and rates.
    :param dim: width of the model, hence of a value.
    """

    options: ProductKeyOptions
    pairs: Tensor

    def __init__(self, options: ProductKeyOptions, dim: int) -> None:
        super().__init__(options, dim)
        heads, half = options.heads, options.k_dim // 2
        self.n_slots = options.n_keys**2
        self.query = nn.Linear(dim, heads * options.k_dim)
        self.query_norm = (
            QueryNorm(heads * options.k_dim) if options.query_batchnorm else nn.Identity()
        )
        self.keys = nn.Parameter(torch.empty(heads, 2, options.n_keys, half))
        self.values = nn.Parameter(torch.empty(self.n_slots, dim))
        nn.init.uniform_(self.keys, -1 / math.sqrt(half), 1 / math.sqrt(half))
        nn.init.normal_(self.values, std=dim**-0.5)
        self.register_buffer("pairs", _pairs_that_can_win(options.knn), persistent=False)
        self.reset_statistics()

    def forward(self, x: Tensor) -> Tensor:
        """Read the memory, each token for itself (but for BatchNorm while training).

        :param x: shape (n_tokens, dim).
        :returns: shape (n_tokens, dim), in the dtype of x.
        """
        options = self.options
        queries = self.query(functional.dropout(x, options.input_dropout, self.training))
        queries = self.query_norm(queries)
        queries = functional.dropout(queries, options.query_dropout, self.training)
        with torch.autocast(x.device.type, enabled=False):
            scores, slots = self.search(queries.view(len(x), options.heads, 2, options.k_dim // 2))
            weights = scores.softmax(-1).flatten(1)
            slots = slots.flatten(1)
            output = weighted_rows(self.values, slots, weights.to(self.values.dtype))
        if not self.training:
            self._count(slots, weights)
        return functional.dropout(output.to(x.dtype), options.value_dropout, self.training)

    def search(self, queries: Tensor) -> tuple[Tensor, Tensor]:
        """The slots whose keys score best; a slot's score is the sum of its two sub-keys'.

        :param queries: shape (n_tokens, heads, 2, k_dim / 2).
        :returns: scores, in float32 or better, and slots, by falling score.
            Shape of each: (n_tokens, heads, knn)
        """
        heads, _, n_keys, half = self.keys.shape
        # In half precision many scores would be equal, and chance would choose the slots.
        dtype = torch.promote_types(queries.dtype, torch.float32)
        batched = queries.to(dtype).reshape(-1, 2 * heads, half).transpose(0, 1)
        keys = self.keys.to(dtype).view(2 * heads, n_keys, half).transpose(1, 2)
        scores = torch.bmm(batched, keys).view(heads, 2, -1, n_keys)
        best, keys_of_best = scores.topk(self.options.knn, dim=-1)
        first, second = best.unbind(1)  # (heads, n_tokens, knn) each
        with torch.no_grad():
            sums = first[..., self.pairs[0]] + second[..., self.pairs[1]]
            first_rank, second_rank = self.pairs[:, sums.topk(self.options.knn, dim=-1).indices]
            slots = keys_of_best[:, 0].gather(-1, first_rank) * n_keys
            slots += keys_of_best[:, 1].gather(-1, second_rank)
        chosen = first.gather(-1, first_rank) + second.gather(-1, second_rank)
        return chosen.transpose(0, 1), slots.transpose(0, 1)

    def parameter_groups(self) -> list[ParameterGroup]:
        """The values: each is read seldom, so they learn faster and at a constant rate."""
        return [
            ParameterGroup(
                (self.values,), lr=self.options.value_lr, schedule="constant", weight_decay=0.0
            )
        ]

    def reset_statistics(self) -> None:
        # Plain attributes: an engine that casts a model's buffers to half precision must not
        # cast counters.
        self._reads: Tensor | None = None
        self._weights: Tensor | None = None

    def _count(self, slots: Tensor, weights: Tensor) -> None:
        flat = slots.flatten()
        reads = torch.bincount(flat, minlength=self.n_slots).double()
        summed = torch.bincount(flat, weights.detach().flatten().double(), self.n_slots)
        # Never in place: the counters may have been born in inference mode.
        self._reads = reads if self._reads is None else self._reads + reads
        self._weights = summed if self._weights is None else self._weights + summed

    def statistics(self) -> dict[str, Tensor]:
        """How often each slot was read in eval mode, and with what weight in all.

        :returns: ``reads`` and ``weights``. Shape of each: (n_slots,)
        """
        nothing = torch.zeros(self.n_slots, dtype=torch.float64, device=self.values.device)
        return {
            "reads": nothing if self._reads is None else self._reads,
            "weights": nothing if self._weights is None else self._weights,
        }

    def metrics(self, statistics: Mapping[str, Tensor]) -> dict[str, float]:
        """How evenly the memory is used, in the paper's terms.

        :returns: ``usage``, the share of slots that were read, in percent; ``kl`` and
            ``kl_weighted``, the divergence in nats of the reads, plain and weighted, from
            uniform ones (0 is even use).
        """
        reads, weights = statistics["reads"], statistics["weights"]
        if not reads.sum() > 0:
            return {}
        return {
            "usage": 100.0 * float((reads > 0).double().mean()),
            "kl": _divergence_from_uniform(reads),
            "kl_weighted": _divergence_from_uniform(weights),
        }


class QueryNorm(nn.BatchNorm1d):
    """BatchNorm that takes any number of tokens: fewer than two are normalised as in evaluation."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise each feature over the tokens.  Shape: (n_tokens, n_features), kept."""
        if len(x) >= 2:
            return super().forward(x)
        return functional.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
        )


def _pairs_that_can_win(knn: int) -> Tensor:
    """Ranks (i, j) of sub-keys that can be among the knn best sums. Shape: (2, n_pairs)

    A pair of ranks counted from 1 scores no better than the i * j pairs of ranks up to its own,
    so beyond knn it cannot win: of 32 x 32 pairs, 119 are left.
    """
    ranks = torch.arange(1, knn + 1)
    return (ranks[:, None] * ranks <= knn).nonzero().T.contiguous()


def _divergence_from_uniform(counts: Tensor) -> float:
    """log n + sum p log p, in nats. Shape of the counts: (n,)"""
    shares = counts / counts.sum()
    return math.log(len(counts)) + float(torch.xlogy(shares, shares).sum())
