"""What every use of a bundle on raw text shares: languages, batches, what it was trained on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from xlm_plugins.contracts.batch import Batch, pack
from xlm_plugins.contracts.ragged import IntArray, Ragged
from xlm_plugins.contracts.tokenizer import Tokenizer
from xlm_plugins.core.errors import OptionError
from xlm_plugins.model.bundle import Bundle, TextModel

BATCH_TOKENS = 4096
"""Default number of tokens per forward pass."""

_LINE_ENDS = str.maketrans("\r\n", "  ")

Advance = Callable[[int], object]
"""Called after every batch with the number of sentences in it."""


def no_progress(n_sentences: int) -> None:
    """Report nothing: the default `Advance`."""


class TextReader:
    """A model that reads texts in one language: the base of what applies it to raw text.

    :param language: of the texts; required if the model knows several.
    :param batch_tokens: tokens per forward pass; `BATCH_TOKENS` if None.
    :raises OptionError: an unknown language, or none named where there are several.
    """

    def __init__(
        self, bundle: TextModel, language: str | None = None, batch_tokens: int | None = None
    ) -> None:
        self._bundle = bundle
        self._language = language_id(bundle, language)
        self._tokenizer = tokenizer_of(bundle, language)
        self._batch_tokens = batch_tokens or BATCH_TOKENS

    @property
    def longest(self) -> int:
        """Number of tokens of a text that the model reads; the rest is cut off."""
        return longest_sentence(self._bundle)

    def encode(self, texts: Sequence[str]) -> Ragged:
        """Tokenize texts, without a frame and at full length."""
        return self._tokenizer.encode_batch(list(texts))

    def _batch(self, rows: Ragged) -> Batch:
        """Rows in the sentence frame, cut to `longest`, on the model's device."""
        batch = sentence_batch(self._bundle, rows, self._language)
        return batch.to(device_of(self._bundle))


def tokenizer_of(bundle: TextModel, language: str | None) -> Tokenizer:
    """The bundle's tokenizer, with the rules of the language, if it is named or the only one."""
    languages = bundle.description.languages
    if language is None and len(languages) == 1:
        (language,) = languages
    return bundle.tokenizer if language is None else bundle.tokenizer.in_language(language)


def language_id(bundle: TextModel, language: str | None) -> int:
    """The id of a language, or of the model's only language if none is named.

    A model without language embeddings accepts any.

    :raises OptionError: an unknown language, or none named where there are several.
    """
    known = bundle.description.known_languages
    if known is None:
        return 0
    if language is None and len(known) == 1:
        return next(iter(known.values()))
    if language is None or language not in known:
        raise OptionError(
            f"the model does not know the language {language!r}"
            if language
            else "the model knows several languages, and none was named",
            expected=f"--language with one of {', '.join(sorted(known))}",
        )
    return known[language]


def predicts(bundle: Bundle, what: Literal["next token", "masked tokens"]) -> bool:
    """Whether any of the model's objectives predicts this (`Objective.predicts`)."""
    return any(objective.predicts == what for objective in bundle.objectives.values())


def is_causal(bundle: Bundle) -> bool:
    """Whether the encoder was trained with causal attention only, and so needs it here too."""
    objectives = bundle.objectives.values()
    only_next = all(objective.predicts == "next token" for objective in objectives)
    return bundle.model.decoder is None and bool(objectives) and only_next


def trained_on(bundle: Bundle) -> str:
    """The names of the model's objectives, for messages."""
    return ", ".join(bundle.objectives) or "nothing"


def device_of(bundle: TextModel) -> torch.device:
    """The device of the model's parameters."""
    parameter: Tensor = next(bundle.model.parameters())
    return parameter.device


def longest_sentence(bundle: TextModel) -> int:
    """The most tokens that the model's positions hold between the two tokens of the frame."""
    return bundle.description.options.max_positions - 2


def cut(rows: Ragged, longest: int) -> Ragged:
    """Truncate rows to a length."""
    return rows.cut(np.minimum(rows.lengths, longest))


def sentence_batch(bundle: TextModel, rows: Ragged, language: int) -> Batch:
    """Unframed rows as a batch ``</s> w1 .. wn </s>``, cut to the model's positions."""
    framed = cut(rows, longest_sentence(bundle)).framed(*bundle.description.vocabulary.frame)
    nothing = np.empty(0, np.int64)
    return pack(
        framed,
        framed.positions(),
        framed.filled(language),
        nothing,
        nothing,
        np.arange(framed.n_rows),
    )


def batches_by_length(
    lengths: IntArray, batch_tokens: int, shortest: int = 1
) -> Iterator[IntArray]:
    """Group rows of similar length, the longest first; yields the indices of each group.

    :param batch_tokens: upper bound on a batch's rows times the length of its longest row; a
        longer row gets a batch to itself.
    :param shortest: shorter rows count as this many tokens.
    """
    order = np.argsort(-lengths, kind="stable")
    while len(order):
        n_together = max(1, batch_tokens // max(shortest, int(lengths[order[0]])))
        yield order[:n_together]
        order = order[n_together:]


def one_line(text: str) -> str:
    """The text with line ends replaced by spaces."""
    return text.translate(_LINE_ENDS)
