"""Sentence embeddings: a layer's states pooled to one vector per sentence."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from xlm_plugins.contracts.ragged import Ragged
from xlm_plugins.core.errors import OptionError
from xlm_plugins.inference.common import (
    Advance,
    TextReader,
    batches_by_length,
    is_causal,
    no_progress,
    trained_on,
)
from xlm_plugins.model.bundle import Bundle
from xlm_plugins.model.nn.pooling import mean_inside

POOLS = ("mean", "first")
Vectors = npt.NDArray[np.float32]


class Embedder(TextReader):
    """A bundle that maps sentences of one language to vectors (docs/semantics.md, 8.1).

    :param language: of the sentences; required if the model knows several.
    :param layer: 0 is the embedding layer, 1 the first layer, -1 the last; later layers are not
        computed.
    :param pool: ``mean`` over the sentence's tokens without its frame, or the state of the
        ``first`` position, which is the frame's first token.
    :param batch_tokens: tokens per forward pass; `BATCH_TOKENS` if None.
    :raises OptionError: an unknown language, no such layer or pool, or a model without an encoder.
    """

    def __init__(
        self,
        bundle: Bundle,
        language: str | None = None,
        *,
        layer: int = -1,
        pool: str = "mean",
        batch_tokens: int | None = None,
    ) -> None:
        super().__init__(bundle, language, batch_tokens)
        self._encoder = bundle.model.stack("encoder")
        self._n_layers = _number_of(layer, bundle.description.options.n_layers)
        self._causal = is_causal(bundle)
        if pool not in POOLS:
            raise OptionError(f"there is no pool {pool!r}", expected=" or ".join(POOLS))
        self._pool = pool
        if pool == "first" and self._causal:
            raise OptionError(
                f"the model, trained on {trained_on(bundle)}, attends causally: its first position "
                "sees none of the sentence",
                expected="the mean over tokens",
            )

    @torch.inference_mode()
    def embed(self, sentences: Ragged, advance: Advance = no_progress) -> Vectors:
        """Embed sentences; an empty one gets the state of its closing EOS.

        :returns: shape (n_sentences, dim).
        """
        found = np.empty((sentences.n_rows, self._bundle.description.options.dim), np.float32)
        lengths = 2 + sentences.lengths.clip(max=self.longest)
        for which in batches_by_length(lengths, self._batch_tokens):
            found[which] = self._embed_batch(sentences.take(which)).float().cpu().numpy()
            advance(len(which))
        return found

    def _embed_batch(self, sentences: Ragged) -> Tensor:
        batch = self._batch(sentences)
        at = batch.offsets[:-1] if self._pool == "first" else None
        states = self._encoder(batch, causal=self._causal, at=at, n_layers=self._n_layers)
        return states if self._pool == "first" else mean_inside(states, batch.offsets)


def embed(
    bundle: Bundle,
    texts: Sequence[str],
    language: str | None = None,
    *,
    layer: int = -1,
    pool: str = "mean",
) -> Vectors:
    """One vector per text; parameters as `Embedder`.

    :returns: shape (len(texts), dim).
    """
    embedder = Embedder(bundle, language, layer=layer, pool=pool)
    return embedder.embed(embedder.encode(texts))


def _number_of(layer: int, n_layers: int) -> int:
    """The number of layers to run for the states of a layer; negative ones count from the end."""
    number = layer + n_layers + 1 if layer < 0 else layer
    if not 0 <= number <= n_layers:
        raise OptionError(
            f"the model has no layer {layer}",
            expected=f"0 (the embeddings) to {n_layers}, or -1 (the last) to {-n_layers - 1}",
        )
    return number
