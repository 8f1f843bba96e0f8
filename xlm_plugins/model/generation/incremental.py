"""Decoding token by token: keys and values are cached, those of a source are projected once.

`Decoding` holds the cache of a pool of sentences; `search` and `beam` choose the next tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from xlm_plugins.model.nn.attention import side_by_side
from xlm_plugins.model.nn.transformer import Source, Stack, TransformerLayer

GROWTH = 32
"""Positions by which the cache grows at a time, so that only long sentences take much memory."""


@dataclass
class _Cache:
    """One layer's keys and values.

    ``keys``, ``values``: of all tokens so far, for each position the ``width`` hypotheses of a
    sentence next to each other, (n_sentences, n_heads, capacity, head_dim);
    ``source``: keys and values of the source, (n_sentences, n_heads, length, head_dim) each; None
        without a source.
    """

    layer: TransformerLayer
    keys: Tensor
    values: Tensor
    source: tuple[Tensor, Tensor] | None


class Decoding:
    """The state of decoding a pool of sentences.

    Rows are hypotheses, ``width`` adjacent ones for each sentence.  All rows of a sentence share
    one set of keys, those of every hypothesis so far, and a mask selects each row's own past; so
    extending another hypothesis moves no keys.

    :param stack: a decoder, or an encoder with causal attention; in eval mode.
    :param n_sentences: the size of the pool.
    :param language: id of the language that is generated.
    :param source: the encoder's states, for a decoder that translates.
    :param width: hypotheses per sentence.
    """

    def __init__(
        self,
        stack: Stack,
        n_sentences: int,
        language: int,
        source: Source | None = None,
        width: int = 1,
    ) -> None:
        self.stack = stack
        self.width = width
        self.length = 0
        self._language = language
        self._mask: Tensor | None = None
        like, padded = stack.embeddings.tokens.weight, None
        if source is not None:
            like = source.states
            padded, real = side_by_side(source.states, source.offsets)
            self._mask = None if real is None else torch.where(real, 0.0, -torch.inf).to(padded)
        self._past = like.new_empty(n_sentences, width, 0)
        self._caches = [self._cache(layer, padded) for layer in stack.transformer_layers]

    def _cache(self, layer: TransformerLayer, padded: Tensor | None) -> _Cache:
        n_heads, dim = layer.attention.n_heads, self.stack.embeddings.tokens.embedding_dim
        empty = self._past.new_empty(len(self._past), n_heads, 0, dim // n_heads)
        source = None if padded is None else layer.source_attention.keys_and_values(padded)
        return _Cache(layer, empty, empty, source)

    def append(self, tokens: Tensor) -> Tensor:
        """Append one token to each row.

        :param tokens: shape (n_rows,).
        :returns: the last layer's states at these tokens.  Shape: (n_rows, dim)
        """
        at = self.length * self.width
        past = self._make_room(at)
        x = self.stack.embeddings.at_position(tokens, self.length, self._language)
        for cache in self._caches:
            layer = cache.layer
            attended = layer.attention.append(x, cache.keys, cache.values, at, past)
            x = layer.attention_norm(x + attended)
            if cache.source is not None:
                queries = layer.source_attention.queries(x, self.width)
                read = layer.source_attention.read(queries, *cache.source, self._mask)
                x = layer.source_attention_norm(x + read)
            x = layer.transform(x)
        self.length += 1
        return x

    def keep_sentences(self, sentences: Tensor) -> None:
        """Drop all sentences but some.

        :param sentences: their indices in the pool, in rising order.  Shape: (n_some,)
        """
        self._mask = None if self._mask is None else self._mask.index_select(0, sentences)
        self._past = self._past.index_select(0, sentences)
        for cache in self._caches:
            if cache.source is not None:
                keys, values = cache.source
                cache.source = keys.index_select(0, sentences), values.index_select(0, sentences)
            cache.keys = cache.keys.index_select(0, sentences)
            cache.values = cache.values.index_select(0, sentences)

    def continue_rows(self, parents: Tensor) -> None:
        """Let each row extend another hypothesis of its sentence.

        :param parents: which of the sentence's rows each row extends.  Shape: (n_sentences, width)
        """
        which = parents[:, :, None].expand(-1, -1, self._past.shape[2])
        self._past = self._past.gather(1, which)

    def _make_room(self, at: int) -> Tensor | None:
        """Make room for one more position.

        :returns: what to add to each row's attention scores, to mask other hypotheses; None for
            width 1.  Shape: (n_sentences, 1, width, at + width)
        """
        if at == self._past.shape[2]:
            self._past = nn.functional.pad(self._past, (0, GROWTH * self.width), value=-torch.inf)
            for cache in self._caches:
                cache.keys = _longer(cache.keys, GROWTH * self.width)
                cache.values = _longer(cache.values, GROWTH * self.width)
        end = at + self.width
        self._past[:, :, at:end].diagonal(dim1=1, dim2=2).zero_()
        return None if self.width == 1 else self._past[:, None, :, :end]


def _longer(cached: Tensor, n_more: int) -> Tensor:
    return nn.functional.pad(cached, (0, 0, 0, n_more))
