"""Going on with raw text: what a causal language model writes behind a prompt."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from xlm_plugins.config.model import GenerationOptions
from xlm_plugins.contracts.ragged import IntArray, Ragged
from xlm_plugins.core.errors import OptionError
from xlm_plugins.inference.common import (
    Advance,
    device_of,
    language_id,
    one_line,
    predicts,
    tokenizer_of,
    trained_on,
    unwatched,
)
from xlm_plugins.model.bundle import Bundle
from xlm_plugins.model.generation.search import check_beam, go_on

MAX_TOKENS = 100
"""Tokens that are written at most, if nobody says otherwise and the model has the positions."""

BATCH_TOKENS = 16384
"""Tokens that are written together, if nobody says otherwise; each step reads one of each row."""


@dataclass(frozen=True)
class Continuation:
    """One text with what the model wrote behind it.

    :param text: the prompt and what follows, without a line's end in it.
    :param score: of what follows: sum of log-probabilities / length^penalty.
    """

    text: str
    score: float


class Writer:
    """A bundle that goes on with texts in one language.

    :param language: of the texts; needed where the model knows several.
    :param options: how; greedily by default.
    :param number: continuations of each text: so many samples, or the best of a beam.
    :param max_tokens: tokens to write at most; `MAX_TOKENS`, or half of the model's positions
        where they are fewer, if None.
    :param batch_tokens: tokens, prompt and all, that are written together; `BATCH_TOKENS` if None.
    :raises OptionError: an unknown language, a model that was not trained for it, more tokens than
        it has positions for, or more continuations than there can be.
    """

    def __init__(
        self,
        bundle: Bundle,
        language: str | None = None,
        options: GenerationOptions | None = None,
        *,
        number: int = 1,
        max_tokens: int | None = None,
        batch_tokens: int | None = None,
    ) -> None:
        self._bundle = bundle
        self._options = options or GenerationOptions()
        self._number = number
        _check_objectives(bundle)
        _check_number(self._options, number)
        check_beam(self._options, bundle.description.vocabulary)
        self._language = language_id(bundle, language)
        self._tokenizer = tokenizer_of(bundle, language)
        n_positions = bundle.description.options.max_positions
        self._max_tokens = max_tokens or min(MAX_TOKENS, n_positions // 2)
        self._batch_tokens = batch_tokens or BATCH_TOKENS
        if self.longest < 0:
            raise OptionError(
                f"the model has no positions for {self._max_tokens} tokens",
                expected=f"at most {n_positions - 1}",
            )

    @property
    def longest(self) -> int:
        """Tokens of a prompt that the model reads: the last ones, where it has more."""
        n_positions = self._bundle.description.options.max_positions
        return n_positions - 1 - self._max_tokens  # the first EOS; the closing one is not read

    def encode(self, texts: Sequence[str]) -> Ragged:
        """The tokens of prompts, unframed and uncut, as `write` takes them."""
        return self._tokenizer.encode_batch(list(texts))

    @torch.inference_mode()
    def write(
        self, texts: Sequence[str], prompts: Ragged, advance: Advance = unwatched
    ) -> list[list[Continuation]]:
        """Go on with texts; an empty one begins a new text.

        What a text becomes does not depend on the others, unless it is sampled: that draws from
        torch's current random state.

        :param prompts: what `encode` made of the texts.
        :returns: ``number`` continuations of each text, the best first if they are a beam's.
        """
        found: list[list[Continuation]] = [[] for _ in texts]
        for which in self._batches(prompts.lengths.clip(max=self.longest)):
            taken = [texts[index] for index in which]
            written = self._write_batch(taken, prompts.take(which))
            for index, continuations in zip(which.tolist(), written, strict=True):
                found[index] = continuations
            advance(len(which))
        return found

    def _batches(self, lengths: IntArray) -> Iterator[IntArray]:
        """Prompts of one length by their numbers, the longest first."""
        rows_each = max(self._number, self._options.beam)
        for length in np.unique(lengths)[::-1].tolist():
            same = (lengths == length).nonzero()[0]
            tokens_each = rows_each * (1 + length + self._max_tokens)
            n_together = max(1, self._batch_tokens // tokens_each)
            yield from np.split(same, range(n_together, len(same), n_together))

    def _write_batch(self, texts: Sequence[str], prompts: Ragged) -> list[list[Continuation]]:
        """Go on with texts whose prompts, or what is read of them, are of one length."""
        vocabulary = self._bundle.description.vocabulary
        n_samples = self._number if self._options.sample else 1
        read = [row[max(0, len(row) - self.longest) :].tolist() for row in prompts.rows]
        rows = [[vocabulary.roles["eos"], *row] for row in read for _ in range(n_samples)]
        found = go_on(
            self._bundle.model,
            torch.tensor(rows, device=device_of(self._bundle)),
            self._language,
            vocabulary,
            self._options,
            self._max_tokens,
        )
        n_best = self._number // n_samples
        by_rank = [found.rows(rank) for rank in range(n_best)]
        written = [row for ranked in zip(*by_rank, strict=True) for row in ranked]
        scores = found.scores[:, :n_best].flatten().tolist()
        lines = [
            Continuation(one_line(text), score)
            for text, score in zip(self._joined(texts, read, written), scores, strict=True)
        ]
        return [lines[begin:][: self._number] for begin in range(0, len(lines), self._number)]

    def _joined(
        self, texts: Sequence[str], read: Sequence[list[int]], written: Sequence[list[int]]
    ) -> Iterator[str]:
        """Each text as it was given, followed by what was written behind it, text by text.

        Both sides of the seam are decoded together: whether there is a space is for the first
        token behind it to say.

        :param read: the tokens of each text.
        :param written: ``number`` rows of tokens for each text.
        """
        decode = self._tokenizer.decode_batch
        given = [index for index in range(len(texts)) for _ in range(self._number)]
        wholes = decode([[*read[i], *row] for i, row in zip(given, written, strict=True)])
        starts = decode(read)
        for i, whole in zip(given, wholes, strict=True):
            behind = whole.removeprefix(starts[i])
            yield (texts[i].rstrip() if behind.startswith(" ") else texts[i]) + behind


def _check_objectives(bundle: Bundle) -> None:
    if not predicts(bundle, "next token"):
        raise OptionError(
            f"the model does not write: it was trained on {trained_on(bundle)}",
            expected="a model trained with an objective that predicts the next token, such as clm",
            remedy=f"train it: xlm train --init {bundle.path} --objective clm --data DATA",
        )


def _check_number(options: GenerationOptions, number: int) -> None:
    if options.sample or number <= options.beam:
        return
    raise OptionError(
        f"a beam of {options.beam} does not find {number} continuations",
        expected=f"number up to {options.beam}",
        remedy=f"--sample, or --beam {number} or more",
    )
