"""Sentence embeddings: the states of a layer, made into one vector a sentence."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from xlm_plugins.contracts.ragged import Ragged
from xlm_plugins.core.errors import OptionError
from xlm_plugins.inference.common import (
    BATCH_TOKENS,
    Advance,
    batches_by_length,
    device_of,
    language_id,
    longest_sentence,
    sentence_batch,
    tokenizer_of,
    trained_on,
    unwatched,
)
from xlm_plugins.inference.features import looks_back
from xlm_plugins.model.bundle import Bundle
from xlm_plugins.model.nn.pooling import mean_inside

POOLS = ("mean", "first")
Vectors = npt.NDArray[np.float32]


class Embedder:
    """A bundle that turns sentences of one language into vectors.  (docs/semantics.md, 8.1)

    :param language: of the sentences; needed where the model knows several.
    :param layer: 0 is the embedding layer, 1 the first layer, -1 the last; those behind it are
        not computed.
    :param pool: ``mean`` over the sentence's own tokens, without the two EOS around them, or the
        state of the ``first`` position, an EOS.
    :param batch_tokens: tokens that are read together; `BATCH_TOKENS` if None.
    :raises OptionError: an unknown language, no such layer, or a model without an encoder.
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
        self._bundle = bundle
        self._encoder = bundle.model.stack("encoder")
        self._language = language_id(bundle, language)
        self._tokenizer = tokenizer_of(bundle, language)
        self._n_layers = _number_of(layer, bundle.description.options.n_layers)
        self._causal = looks_back(bundle)
        if pool not in POOLS:
            raise OptionError(f"there is no pool {pool!r}", expected=" or ".join(POOLS))
        self._pool = pool
        self._batch_tokens = batch_tokens or BATCH_TOKENS
        if pool == "first" and self._causal:
            raise OptionError(
                f"the first position sees no sentence in a model of {trained_on(bundle)} alone",
                expected="the mean over tokens",
            )

    @property
    def longest(self) -> int:
        """Tokens of a sentence that the model reads; the rest of it is cut off."""
        return longest_sentence(self._bundle)

    def encode(self, texts: Sequence[str]) -> Ragged:
        """The tokens of sentences, unframed and uncut, as `embed` takes them."""
        return self._tokenizer.encode_batch(list(texts))

    @torch.inference_mode()
    def embed(self, sentences: Ragged, advance: Advance = unwatched) -> Vectors:
        """Embed sentences; one without tokens gets the state of an EOS.

        :returns: shape (n_sentences, dim).
        """
        found = np.empty((sentences.n_rows, self._bundle.description.options.dim), np.float32)
        lengths = 2 + sentences.lengths.clip(max=self.longest)
        for which in batches_by_length(lengths, self._batch_tokens):
            found[which] = self._embed_batch(sentences.take(which)).float().cpu().numpy()
            advance(len(which))
        return found

    def _embed_batch(self, sentences: Ragged) -> Tensor:
        batch = sentence_batch(self._bundle, sentences, self._language)
        batch = batch.to(device_of(self._bundle))
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
    """One vector a text, as `Embedder` makes them.

    :returns: shape (len(texts), dim).
    """
    embedder = Embedder(bundle, language, layer=layer, pool=pool)
    return embedder.embed(embedder.encode(texts))


def _number_of(layer: int, n_layers: int) -> int:
    """How many layers to run for a layer's states, counted from the end where it is negative."""
    number = layer + n_layers + 1 if layer < 0 else layer
    if not 0 <= number <= n_layers:
        raise OptionError(
            f"the model has no layer {layer}",
            expected=f"0 (the embeddings) to {n_layers}, or -1 (the last) to {-n_layers - 1}",
        )
    return number
