"""A stack one token at a time: keys and values are kept, a source's are projected once.

`Decoding` holds what the stack remembers of a pool of sentences; `generation` and `beam` decide
which token comes next.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from xlm_plugins.model.nn.attention import side_by_side
from xlm_plugins.model.nn.transformer import Source, Stack, TransformerLayer

GROWTH = 32
"""Places that the kept keys and values get at a time: room for long sentences only where needed."""


@dataclass
class _Kept:
    """One layer's keys and values.

    ``keys``, ``values``: of all that was written, place by place, each time ``width`` rows of a
    sentence side by side, (n_sentences, n_heads, capacity, head_dim);
    ``source``: keys and values of the source, (n_sentences, n_heads, length, head_dim) each; None
        where there is none to read.
    """

    layer: TransformerLayer
    keys: Tensor
    values: Tensor
    source: tuple[Tensor, Tensor] | None


class Decoding:
    """What a stack has read and written, for sentences that are written side by side.

    Rows are hypotheses: ``width`` of them for each sentence, next to each other.  All rows of a
    sentence look at the same keys, those of every row that was ever written, and a mask says
    which of them are a row's own past: so going on from another row moves no keys.

    :param stack: a decoder, or an encoder that looks back only; in eval mode.
    :param n_sentences: how many sentences are written.
    :param language: id of the language that is written.
    :param source: the encoder's states of the sentences, for a decoder that reads some.
    :param width: hypotheses a sentence.
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
        self._kept = [self._keep(layer, padded) for layer in stack.transformer_layers]

    def _keep(self, layer: TransformerLayer, padded: Tensor | None) -> _Kept:
        n_heads, dim = layer.attention.n_heads, self.stack.embeddings.tokens.embedding_dim
        empty = self._past.new_empty(len(self._past), n_heads, 0, dim // n_heads)
        source = None if padded is None else layer.source_attention.keys_and_values(padded)
        return _Kept(layer, empty, empty, source)

    def write(self, tokens: Tensor) -> Tensor:
        """Write one token in each row.

        :param tokens: shape (n_rows,).
        :returns: the last layer's states at these tokens.  Shape: (n_rows, dim)
        """
        at = self.length * self.width
        past = self._make_room(at)
        x = self.stack.embeddings.at_position(tokens, self.length, self._language)
        for kept in self._kept:
            layer = kept.layer
            written = layer.attention.write(x, kept.keys, kept.values, at, past)
            x = layer.attention_norm(x + written)
            if kept.source is not None:
                queries = layer.source_attention.queries(x, self.width)
                read = layer.source_attention.read(queries, *kept.source, self._mask)
                x = layer.source_attention_norm(x + read)
            x = layer.transform(x)
        self.length += 1
        return x

    def keep_sentences(self, sentences: Tensor) -> None:
        """Go on with some sentences only.

        :param sentences: their numbers among those that are left, rising.
        """
        self._mask = None if self._mask is None else self._mask.index_select(0, sentences)
        self._past = self._past.index_select(0, sentences)
        for kept in self._kept:
            if kept.source is not None:
                keys, values = kept.source
                kept.source = keys.index_select(0, sentences), values.index_select(0, sentences)
            kept.keys = kept.keys.index_select(0, sentences)
            kept.values = kept.values.index_select(0, sentences)

    def continue_rows(self, parents: Tensor) -> None:
        """Let each row go on from what another one of its sentence has written.

        :param parents: the row, of its sentence's, whose past each row takes over.
            Shape: (n_sentences, width)
        """
        which = parents[:, :, None].expand(-1, -1, self._past.shape[2])
        self._past = self._past.gather(1, which)

    def _make_room(self, at: int) -> Tensor | None:
        """Room for one more place; gives what is added to each row's scores of all places.

        :returns: shape (n_sentences, 1, width, at + width).
        """
        if at == self._past.shape[2]:
            self._past = nn.functional.pad(self._past, (0, GROWTH * self.width), value=-torch.inf)
            for kept in self._kept:
                kept.keys = _longer(kept.keys, GROWTH * self.width)
                kept.values = _longer(kept.values, GROWTH * self.width)
        end = at + self.width
        self._past[:, :, at:end].diagonal(dim1=1, dim2=2).zero_()
        return None if self.width == 1 else self._past[:, None, :, :end]


def _longer(kept: Tensor, n_places: int) -> Tensor:
    return nn.functional.pad(kept, (0, 0, 0, n_places))
