"""Continuing raw text with a causal language model."""

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
    TextReader,
    device_of,
    no_progress,
    one_line,
    predicts,
    trained_on,
)
from xlm_plugins.model.bundle import Bundle
from xlm_plugins.model.generation.search import check_beam, continue_prompts

MAX_TOKENS = 100
"""Default limit on generated tokens, if the model has the positions."""

BATCH_TOKENS = 16384
"""Default number of tokens, prompts included, that are generated together.

It is larger than for other uses because each step reads one token of each row only.
"""


@dataclass(frozen=True)
class Continuation:
    """A prompt and the text that the model generated after it.

    :param text: the prompt and its continuation, on one line.
    :param score: of the continuation alone: sum of log-probabilities / length^penalty.
    """

    text: str
    score: float


class TextGenerator(TextReader):
    """A bundle that continues texts in one language.

    :param language: of the texts; required if the model knows several.
    :param options: how to search; greedy by default.
    :param number: continuations per text: that many samples, or the best of a beam.
    :param max_tokens: maximum number of tokens to generate; if None, `MAX_TOKENS`, or half of the
        model's positions where they are fewer.
    :param batch_tokens: tokens, prompts included, that are generated together; `BATCH_TOKENS` if
        None.
    :raises OptionError: an unknown language, a model that was not trained to predict the next
        token, more tokens than it has positions, or more continuations than the beam is wide.
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
        self._options = options or GenerationOptions()
        self._number = number
        _check_objectives(bundle)
        _check_number(self._options, number)
        check_beam(self._options, bundle.description.vocabulary)
        super().__init__(bundle, language, batch_tokens or BATCH_TOKENS)
        n_positions = bundle.description.options.max_positions
        self._max_tokens = max_tokens or min(MAX_TOKENS, n_positions // 2)
        if self.longest < 0:
            raise OptionError(
                f"the model has no positions for {self._max_tokens} tokens",
                expected=f"at most {n_positions - 1}",
            )

    @property
    def longest(self) -> int:
        """Number of tokens of a prompt that the model reads: its last ones, if it is longer."""
        n_positions = self._bundle.description.options.max_positions
        return n_positions - 1 - self._max_tokens  # one for the first EOS; the last is never read

    @torch.inference_mode()
    def generate(
        self, texts: Sequence[str], prompts: Ragged, advance: Advance = no_progress
    ) -> list[list[Continuation]]:
        """Continue texts; an empty one starts a new text.

        A continuation does not depend on the other texts, unless it is sampled: sampling draws
        from torch's current random state.

        :param prompts: the texts as `encode` returns them.
        :returns: ``number`` continuations per text; those of a beam best first.
        """
        found: list[list[Continuation]] = [[] for _ in texts]
        for which in self._batches(prompts.lengths.clip(max=self.longest)):
            taken = [texts[index] for index in which]
            continued = self._generate_batch(taken, prompts.take(which))
            for index, continuations in zip(which.tolist(), continued, strict=True):
                found[index] = continuations
            advance(len(which))
        return found

    def _batches(self, lengths: IntArray) -> Iterator[IntArray]:
        """Group prompts of equal length, the longest first; yields the indices of each group."""
        rows_each = max(self._number, self._options.beam)
        for length in np.unique(lengths)[::-1].tolist():
            same = (lengths == length).nonzero()[0]
            tokens_each = rows_each * (1 + length + self._max_tokens)
            n_together = max(1, self._batch_tokens // tokens_each)
            yield from np.split(same, range(n_together, len(same), n_together))

    def _generate_batch(self, texts: Sequence[str], prompts: Ragged) -> list[list[Continuation]]:
        """Continue texts whose prompts have the same length once they are cut."""
        vocabulary = self._bundle.description.vocabulary
        n_samples = self._number if self._options.sample else 1
        read = [row[max(0, len(row) - self.longest) :].tolist() for row in prompts.rows]
        rows = [[vocabulary.roles["eos"], *row] for row in read for _ in range(n_samples)]
        found = continue_prompts(
            self._bundle.model,
            torch.tensor(rows, device=device_of(self._bundle)),
            self._language,
            vocabulary,
            self._options,
            self._max_tokens,
        )
        n_best = self._number // n_samples
        by_rank = [found.rows(rank) for rank in range(n_best)]
        generated = [row for ranked in zip(*by_rank, strict=True) for row in ranked]
        scores = found.scores[:, :n_best].flatten().tolist()
        lines = [
            Continuation(one_line(text), score)
            for text, score in zip(self._joined(texts, read, generated), scores, strict=True)
        ]
        return [lines[begin:][: self._number] for begin in range(0, len(lines), self._number)]

    def _joined(
        self, texts: Sequence[str], read: Sequence[list[int]], generated: Sequence[list[int]]
    ) -> Iterator[str]:
        """Each text as it was given, followed by each of its continuations.

        Prompt and continuation are decoded together, because only the first generated token
        decides whether there is a space between them.

        :param read: the prompt's tokens of each text.
        :param generated: ``number`` rows of tokens for each text.
        """
        decode = self._tokenizer.decode_batch
        given = [index for index in range(len(texts)) for _ in range(self._number)]
        wholes = decode([[*read[i], *row] for i, row in zip(given, generated, strict=True)])
        starts = decode(read)
        for i, whole in zip(given, wholes, strict=True):
            continuation = whole.removeprefix(starts[i])
            yield (texts[i].rstrip() if continuation.startswith(" ") else texts[i]) + continuation


def _check_objectives(bundle: Bundle) -> None:
    if not predicts(bundle, "next token"):
        raise OptionError(
            f"the model does not generate text: it was trained on {trained_on(bundle)}",
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
