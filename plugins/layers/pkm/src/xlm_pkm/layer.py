"""Large memory layers with product keys (Lample et al., 2019, arXiv 1907.05242).

A memory of ``n_keys ** 2`` slots.  A query is split into halves, each half is scored against
``n_keys`` sub-keys, and the best slots are found among the sums of the best sub-keys of both
halves.  This is exact, and its cost grows with the square root of the number of slots.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from xlm_pkm.gather import weighted_rows
from xlm_pkm.options import ProductKeyOptions
from xlm_pkm.queries import QueryNorm, hidden_layers
from xlm_pkm.search import best_sums, key_scores, pairs_that_can_win, weights_of
from xlm_pkm.usage import Usage, usage_metrics
from xlm_plugins import Layer, ParameterGroup


class ProductKeyMemory(Layer):
    """A product-key memory whose value table is shared by all heads, and optionally by layers.

    With q the queries of a token, one per head, and best(q) the knn slots i with the highest scores
    s_i = <q, k_i>, where k_i is a pair of sub-keys, or one whole key in a flat memory::

        y = sum over heads, i in best(q) of softmax(s)_i V_i

    :param options: sizes, rates and variants.
    :param dim: width of the model, and of the values.
    :param values: the table of another memory to share. Shape: (n_slots, dim)
    """

    options: ProductKeyOptions
    head_permutations: Tensor
    pairs: Tensor

    def __init__(
        self, options: ProductKeyOptions, dim: int, values: nn.Parameter | None = None
    ) -> None:
        super().__init__(options, dim)
        self.parts = (options.heads,) if options.flat else (options.heads, 2)
        self.width = options.heads * options.k_dim // math.prod(self.parts)
        widths = (dim, *options.query_hidden)
        n_features = options.heads * options.k_dim
        self.query_hidden = hidden_layers(widths, options.query_batchnorm)
        self.query = nn.Linear(widths[-1], n_features)
        self.query_norm = QueryNorm(n_features) if options.query_batchnorm else nn.Identity()
        self.keys = self._new_keys()
        self.owns_values = values is None
        self.values = self._new_values() if values is None else values
        if options.qk_norm:
            self.query_gain = nn.Parameter(torch.ones(self.width))
            self.key_gain = nn.Parameter(torch.ones(self.width))
        if options.gate:
            self.gate = nn.Linear(dim, dim, bias=False)
            self.output = nn.Linear(dim, dim, bias=False)
        if options.shuffle_slots:
            orders = [torch.randperm(options.n_addresses) for _ in range(options.heads)]
            self.register_buffer("head_permutations", torch.stack(orders))
        if not options.flat:
            self.register_buffer("pairs", pairs_that_can_win(options.knn), persistent=False)
        self._usage = Usage(options.n_slots)

    @classmethod
    def build(cls, options: Any, dim: int, n_positions: int) -> list[Layer]:
        """One memory per position; with ``share_values`` they all use the table of the first."""
        first = cls(options, dim)
        shared = first.values if options.share_values else None
        return [first, *(cls(options, dim, shared) for _ in range(n_positions - 1))]

    def forward(self, x: Tensor) -> Tensor:
        """Read the memory, for each token independently (except for BatchNorm in training).

        With ``gate`` (Memory Layers at Scale, arXiv 2412.09764), W1 and W2 of shape (dim, dim)::

            output = W2 (y * silu(W1 x))

        :param x: shape (n_tokens, dim).
        :returns: shape (n_tokens, dim), in the dtype of x.
        """
        options = self.options
        x = functional.dropout(x, options.input_dropout, self.training)
        queries = self.queries(x)
        with torch.autocast(x.device.type, enabled=False):
            scores, slots = self.search(queries)
            weights, slots = self.weigh(scores).flatten(1), slots.flatten(1)
            output = weighted_rows(self.values, slots, weights.to(self.values.dtype))
        if not self.training:
            self._usage.count(slots, weights)
        if options.gate:
            output = self.output(output * functional.silu(self.gate(x)))
        return functional.dropout(output.to(x.dtype), options.value_dropout, self.training)

    def queries(self, x: Tensor) -> Tensor:
        """The queries of each token.

        :param x: shape (n_tokens, dim).
        :returns: shape (n_tokens, heads, 2, k_dim / 2), or (n_tokens, heads, k_dim) if flat.
        """
        queries = self.query_norm(self.query(self.query_hidden(x)))
        queries = functional.dropout(queries, self.options.query_dropout, self.training)
        return queries.view(len(x), *self.parts, self.width)

    def search(self, queries: Tensor) -> tuple[Tensor, Tensor]:
        """The slots with the best scores; a slot's score is the sum of those of its two sub-keys.

        With ``normalize_query``, each half q is scaled to q / ||q||; with ``qk_norm``, the score of
        a half q and a sub-key k, both of ``width`` features, with learned gains g and h, is::

            < g * q / rms(q), h * k / rms(k) > / sqrt(width)

        :param queries: as returned by `queries`.
        :returns: scores, in float32 or better, and slots, by decreasing score.
            Shape of each: (n_tokens, heads, knn)
        """
        n_sets, n_keys = math.prod(self.parts), self.options.n_keys
        # In half precision many scores would be equal, and the choice of slots arbitrary.
        dtype = torch.promote_types(queries.dtype, torch.float32)
        queries = queries.to(dtype).reshape(-1, n_sets, self.width)
        keys = self.keys.to(dtype).view(-1, n_keys, self.width).expand(n_sets, -1, -1)
        if self.options.normalize_query:
            queries = functional.normalize(queries, dim=-1)
        if self.options.qk_norm:
            queries = self._rms_norm(queries, self.query_gain) / math.sqrt(self.width)
            keys = self._rms_norm(keys, self.key_gain)
        scores = key_scores(queries, keys)
        if self.options.flat:
            scores, slots = scores.topk(self.options.knn, dim=-1)
        else:
            halves = scores.view(*self.parts, -1, n_keys)
            scores, slots = best_sums(halves, self.options.knn, self.pairs)
        return scores.transpose(0, 1), self._rows(slots).transpose(0, 1)

    def weigh(self, scores: Tensor) -> Tensor:
        """The weight of each of a head's slots. Shape: (n_tokens, heads, knn), kept"""
        return weights_of(scores, self.options)

    def parameter_groups(self) -> list[ParameterGroup]:
        """The values: each is read rarely, so they have a higher and, by default, constant rate.

        A shared table is in the group of the memory that made it.
        """
        if not self.owns_values:
            return []
        return [
            ParameterGroup(
                (self.values,),
                lr=self.options.value_lr,
                schedule="constant" if self.options.value_schedule == "constant" else None,
                weight_decay=0.0,
                touched_rows=self.options.sparse_update,
            )
        ]

    def begin_at_zero(self) -> None:
        """Set the values to zero.  Their gradient is not zero, so the layer learns."""
        nn.init.zeros_(self.values)

    def statistics(self) -> dict[str, Tensor]:
        """How often each slot was read in eval mode, and with what total weight.

        :returns: ``reads`` and ``weights``. Shape of each: (n_slots,)
        """
        return self._usage.counters(self.values.device)

    def reset_statistics(self) -> None:
        self._usage.reset()

    def metrics(self, statistics: Mapping[str, Tensor]) -> dict[str, float]:
        """How evenly the memory is used, by the measures of the paper.

        :returns: ``usage``, the share of slots that were read, in percent; ``kl`` and
            ``kl_weighted``, the divergence of the reads, plain and weighted, from uniform reads,
            in nats (0 is even use).
        """
        return usage_metrics(statistics)

    def _new_keys(self) -> nn.Parameter:
        sets = () if self.options.share_keys else self.parts
        keys = nn.Parameter(torch.empty(*sets, self.options.n_keys, self.width))
        if self.options.keys_init == "gaussian":
            nn.init.normal_(keys)
        else:
            nn.init.uniform_(keys, -1 / math.sqrt(self.width), 1 / math.sqrt(self.width))
        return keys

    def _new_values(self) -> nn.Parameter:
        values = nn.Parameter(torch.empty(self.options.n_slots, self.dim))
        nn.init.normal_(values, std=self.dim**-0.5)
        return values

    def _rms_norm(self, x: Tensor, gain: Tensor) -> Tensor:
        return functional.rms_norm(x, (self.width,), gain.to(x.dtype), eps=1e-6)

    def _rows(self, slots: Tensor) -> Tensor:
        """The rows of the table for given slots. Shape: (heads, n_tokens, knn), kept"""
        if self.options.shuffle_slots:
            slots = self.head_permutations.gather(1, slots.flatten(1)).view_as(slots)
        if self.options.modulo_size is not None:
            slots = slots % self.options.modulo_size
        return slots
