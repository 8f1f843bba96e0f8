"""A decoder one token at a time: the source is projected once, keys and values are kept.

`Decoding` holds what the decoder remembers of a pool of sentences; `generation` and `beam` decide
which token comes next.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from xlm_plugins.model.attention import side_by_side
from xlm_plugins.model.transformer import Source, Stack, TransformerLayer

GROWTH = 32
"""Places that the kept keys and values get at a time: room for long sentences only where needed."""


@dataclass
class _Kept:
    """One layer's keys and values.

    ``keys``, ``values``: of what was written, (n_rows, n_heads, capacity, head_dim);
    ``source``: keys and values of the source, (n_sentences, n_heads, length, head_dim) each.
    """

    layer: TransformerLayer
    keys: Tensor
    values: Tensor
    source: tuple[Tensor, Tensor]


class Decoding:
    """What a decoder has read and written, for sentences that are decoded side by side.

    Rows are hypotheses: ``width`` of them for each sentence, next to each other.

    :param decoder: in eval mode.
    :param source: the encoder's states of the sentences.
    :param language: id of the language that is written.
    :param width: hypotheses a sentence.
    """

    def __init__(self, decoder: Stack, source: Source, language: int, width: int = 1) -> None:
        self._decoder = decoder
        self._language = language
        self._width = width
        self.length = 0
        padded, self._mask = side_by_side(source.states, source.offsets)
        self.n_rows = len(padded) * width
        self._kept = [self._keep(layer, padded) for layer in decoder.transformer_layers]

    def _keep(self, layer: TransformerLayer, padded: Tensor) -> _Kept:
        attention = layer.source_attention
        head_dim = padded.shape[2] // attention.n_heads
        empty = padded.new_empty(self.n_rows, attention.n_heads, 0, head_dim)
        return _Kept(layer, empty, empty, attention.keys_and_values(padded))

    def write(self, tokens: Tensor) -> Tensor:
        """Write one token in each row.

        :param tokens: shape (n_rows,).
        :returns: the last layer's states at these tokens.  Shape: (n_rows, dim)
        """
        at = self.length
        self._make_room()
        x = self._decoder.embeddings.at_position(tokens, at, self._language)
        for kept in self._kept:
            layer = kept.layer
            x = layer.attention_norm(x + layer.attention.write(x, kept.keys, kept.values, at))
            queries = layer.source_attention.queries(x, self._width)
            read = layer.source_attention.read(queries, *kept.source, self._mask)
            x = layer.transform(layer.source_attention_norm(x + read))
        self.length += 1
        return x

    def keep_sentences(self, sentences: Tensor) -> None:
        """Go on with some sentences only.

        :param sentences: their numbers among those that are left, rising.
        """
        rows = (
            sentences[:, None] * self._width + torch.arange(self._width).to(sentences)
        ).flatten()
        self.n_rows = len(rows)
        self._mask = None if self._mask is None else self._mask.index_select(0, sentences)
        for kept in self._kept:
            keys, values = kept.source
            kept.source = keys.index_select(0, sentences), values.index_select(0, sentences)
        self.continue_rows(rows)

    def continue_rows(self, rows: Tensor) -> None:
        """Let each row go on from what another one has written.

        :param rows: the row whose past each row takes over.  Shape: (n_rows,)
        """
        for kept in self._kept:
            kept.keys = kept.keys.index_select(0, rows)
            kept.values = kept.values.index_select(0, rows)

    def _make_room(self) -> None:
        for kept in self._kept:
            if self.length == kept.keys.shape[2]:
                kept.keys, kept.values = _longer(kept.keys), _longer(kept.values)


def _longer(kept: Tensor) -> Tensor:
    grown = kept.new_zeros(*kept.shape[:2], kept.shape[2] + GROWTH, kept.shape[3])
    grown[:, :, : kept.shape[2]] = kept
    return grown
