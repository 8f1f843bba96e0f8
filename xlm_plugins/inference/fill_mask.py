"""Filling masks: the most probable tokens for each gap in a text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from xlm_plugins.contracts.ragged import Ragged
from xlm_plugins.core.errors import OptionError
from xlm_plugins.inference.common import Advance, TextReader, batches_by_length, no_progress
from xlm_plugins.model.bundle import Bundle
from xlm_plugins.model.nn.output import rows_per_chunk

MASK_MARK = "<mask>"
_OTHER_MASK = re.compile(r"\[MASK\]|<special1>|<MASK>|\[mask\]|__mask__|_{3,}")
"""What people write who come from BERT, from XLM, or from a form with a gap in it."""


@dataclass(frozen=True)
class Filling:
    """One candidate for a mask: the token, its probability, and the text with it filled in."""

    token: str
    probability: float
    text: str


def fill_mask(
    bundle: Bundle, text: str, language: str | None = None, *, top: int = 5
) -> list[list[Filling]]:
    """The most probable tokens for each ``<mask>`` of a text (`MaskFiller`)."""
    (found,) = MaskFiller(bundle, language, top=top).fill([text])
    return found


class MaskFiller(TextReader):
    """A bundle that fills masks in texts of one language.

    The candidates mean something only if the model was trained to predict masked tokens.

    :param language: of the texts; required if the model knows several.
    :param top: candidates per mask.
    :param batch_tokens: tokens per forward pass; `BATCH_TOKENS` if None.
    :raises OptionError: an unknown language, or a model without an encoder.
    """

    def __init__(
        self,
        bundle: Bundle,
        language: str | None = None,
        *,
        top: int = 5,
        batch_tokens: int | None = None,
    ) -> None:
        super().__init__(bundle, language, batch_tokens)
        self._encoder = bundle.model.stack("encoder")
        vocabulary = bundle.description.vocabulary
        self._mask = vocabulary.roles["mask"]
        # Never candidates.  UNK is among them: text may encode to it, but no text decodes from it.
        self._special = sorted({*vocabulary.reserved, *vocabulary.roles.values()})
        self._top = min(top, vocabulary.size - len(self._special))
        self._tokens = bundle.tokenizer.tokens()

    @torch.inference_mode()
    def fill(
        self, texts: Sequence[str], advance: Advance = no_progress
    ) -> list[list[list[Filling]]]:
        """Fill each ``<mask>`` of each text.

        :returns: for each text and each of its masks, in order, the best fillings by falling
            probability.
        :raises OptionError: no mask in a text, or one longer than the model's positions.
        """
        rows = self.encode(texts)
        found: list[list[list[Filling]]] = [[] for _ in texts]
        for which in batches_by_length(2 + rows.lengths, self._batch_tokens):
            filled = self._fill_batch(rows.take(which))
            for index, of_text in zip(which.tolist(), filled, strict=True):
                found[index] = of_text
            advance(len(which))
        return found

    def encode(self, texts: Sequence[str]) -> Ragged:
        """Tokenize texts with masks; what follows a mask is encoded as the middle of a line.

        :raises OptionError: as `fill`.
        """
        parts = [_around_masks(text) for text in texts]
        tokenizer = self._tokenizer
        begins = tokenizer.encode_batch([begin for begin, *_ in parts]).rows
        ends = tokenizer.encode_batch([end for _, *ends in parts for end in ends], continues=True)
        following = iter(ends.rows)
        rows = []
        for begin, (_, *ends_of_text) in zip(begins, parts, strict=True):
            row = begin.tolist()
            for _ in ends_of_text:
                row += [self._mask, *next(following).tolist()]
            rows.append(row)
        if too_long := [len(row) for row in rows if len(row) > self.longest]:
            raise OptionError(
                f"the text has {too_long[0]} tokens", expected=f"at most {self.longest}"
            )
        return Ragged.of(rows)

    def _fill_batch(self, rows: Ragged) -> list[list[list[Filling]]]:
        """The fillings of each mask of each row."""
        batch = self._batch(rows)
        masks = (batch.tokens == self._mask).nonzero()[:, 0]
        probabilities, tokens = self._best(self._encoder(batch, at=masks))
        row_of = (torch.searchsorted(batch.offsets, masks, right=True) - 1).tolist()
        places = (masks - batch.offsets[row_of] - 1).tolist()  # after the first token of the frame
        given = [row.tolist() for row in rows.rows]
        texts = iter(
            self._tokenizer.decode_batch(
                [
                    [*given[row][:place], token, *given[row][place + 1 :]]
                    for row, place, best in zip(row_of, places, tokens, strict=True)
                    for token in best
                ]
            )
        )
        found: list[list[list[Filling]]] = [[] for _ in given]
        for row, probs, best in zip(row_of, probabilities, tokens, strict=True):
            fillings = zip(best, probs, strict=True)
            found[row].append([Filling(self._tokens[t], prob, next(texts)) for t, prob in fillings])
        return found

    def _best(self, states: Tensor) -> tuple[list[list[float]], list[list[int]]]:
        """The probabilities and the ids of the best tokens for each mask.

        :param states: shape (n_masks, dim).
        """
        probabilities: list[list[float]] = []
        tokens: list[list[int]] = []
        step = rows_per_chunk(len(self._tokens), states.device.type)
        for rows in torch.split(states, step):
            scores = self._encoder.scores(rows).float()
            scores[:, self._special] = -torch.inf
            best = scores.softmax(1).topk(self._top)
            probabilities += best.values.tolist()
            tokens += best.indices.tolist()
        return probabilities, tokens


def _around_masks(text: str) -> list[str]:
    """The parts of a text before, between and after its masks.

    The space before a mask is dropped: it belongs to the token that the mask stands for.

    :raises OptionError: there is no mask.
    """
    parts = text.split(MASK_MARK)
    if len(parts) == 1:
        other = _OTHER_MASK.search(text)
        meant = _OTHER_MASK.sub(MASK_MARK, text)
        raise OptionError(
            f"the text has no {MASK_MARK}: {text!r}",
            expected=f"such as 'the {MASK_MARK} of God'",
            remedy=f"{MASK_MARK} in place of {other[0]}: {meant!r}" if other else "",
        )
    return [*(part.rstrip() for part in parts[:-1]), parts[-1]]
