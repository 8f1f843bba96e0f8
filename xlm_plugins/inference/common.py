"""What every use of a bundle on raw text shares: a language, batches, what it was trained on.

`embedding`, `filling`, `scoring`, `continuation` and `translation` build on it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from xlm_plugins.contracts.batch import Batch, pack
from xlm_plugins.contracts.ragged import IntArray, Ragged
from xlm_plugins.contracts.tokenizer import Tokenizer
from xlm_plugins.core.errors import OptionError
from xlm_plugins.model.bundle import Bundle

BATCH_TOKENS = 4096
"""Tokens that go through a model together, if nobody says otherwise."""

_LINE_ENDS = str.maketrans("\r\n", "  ")

Advance = Callable[[int], object]
"""Is told how many more sentences are done, batch by batch."""


def unwatched(n_sentences: int) -> None:
    """Where nobody wants to know how many sentences are done."""


def tokenizer_of(bundle: Bundle, language: str | None) -> Tokenizer:
    """The bundle's tokenizer, by the rules of a language if it is named, or the only one."""
    languages = bundle.description.languages
    if language is None and len(languages) == 1:
        (language,) = languages
    return bundle.tokenizer if language is None else bundle.tokenizer.in_language(language)


def language_id(bundle: Bundle, language: str | None) -> int:
    """The id of a language that the model knows; of the only one when none is named.

    A model without language embeddings takes any.

    :raises OptionError: unknown, or none named where there are several.
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
    """Whether the model was trained to predict this, by any of its objectives."""
    return any(objective.predicts == what for objective in bundle.objectives.values())


def is_causal(bundle: Bundle) -> bool:
    """Whether the encoder was only ever trained with causal attention, and so must use it now."""
    objectives = bundle.objectives.values()
    only_next = all(objective.predicts == "next token" for objective in objectives)
    return bundle.model.decoder is None and bool(objectives) and only_next


def trained_on(bundle: Bundle) -> str:
    """The objectives of a model, for a sentence about it."""
    return ", ".join(bundle.objectives) or "nothing"


def device_of(bundle: Bundle) -> torch.device:
    """Where the model is."""
    parameter: Tensor = next(bundle.model.parameters())
    return parameter.device


def longest_sentence(bundle: Bundle) -> int:
    """Tokens of a sentence that the model reads inside its frame; the rest of it is cut off."""
    return bundle.description.options.max_positions - 2


def cut(rows: Ragged, longest: int) -> Ragged:
    """Rows without what goes beyond a length."""
    return rows.cut(np.minimum(rows.lengths, longest))


def sentence_batch(bundle: Bundle, rows: Ragged, language: int) -> Batch:
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
    """Rows of like length by their numbers, the longest first.

    :param batch_tokens: rows of a batch times tokens of its longest row: so many at most, unless
        a row has more alone.
    :param shortest: a shorter row counts as so many tokens.
    """
    order = np.argsort(-lengths, kind="stable")
    while len(order):
        n_together = max(1, batch_tokens // max(shortest, int(lengths[order[0]])))
        yield order[:n_together]
        order = order[n_together:]


def one_line(text: str) -> str:
    """A text without a line's end in it."""
    return text.translate(_LINE_ENDS)
