"""Batches of labelled texts, which downstream tasks train on.

The encoded texts are kept in memory, with four bytes per token.  As in pretraining, the content of
a batch depends on the data, the seed and the update's number only.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch.utils.data import Dataset

from xlm_plugins.contracts.batch import Batch, pack
from xlm_plugins.contracts.framing import encode_texts
from xlm_plugins.contracts.ragged import IntArray, Ragged, stack
from xlm_plugins.contracts.task import LabelledTexts, TaskData, Values
from xlm_plugins.contracts.tokenizer import Tokenizer
from xlm_plugins.core.errors import OptionError
from xlm_plugins.data.batches.keyed_rng import keyed_rng


@dataclass(frozen=True)
class Examples:
    """Rows for an encoder to read, and what to predict for each.

    :param tokens: framed rows.
    :param languages: the language id of each row. Shape: (n_rows,)
    :param targets: classes or values; zeros if they are unknown. Shape: (n_rows,)
    :param n_cut: rows that were too long and were truncated.
    """

    tokens: Ragged
    languages: IntArray
    targets: Values
    n_cut: int = 0

    @property
    def n_rows(self) -> int:
        return self.tokens.n_rows

    @classmethod
    def encode(
        cls,
        part: LabelledTexts,
        targets: Values | None,
        tokenizer: Tokenizer,
        language: int,
        longest: int,
    ) -> Examples:
        """Encode one part.

        :param language: its id.
        :param longest: maximum tokens per row, including its frame.
        """
        framed, n_cut = encode_texts(tokenizer.in_language(part.language), part.texts, longest)
        tokens = Ragged(framed.values.astype(np.int32), framed.offsets)
        known = np.zeros(part.n_rows, np.int64) if targets is None else targets
        return cls(tokens, np.full(part.n_rows, language), known, n_cut)

    @classmethod
    def cat(cls, parts: Sequence[Examples]) -> Examples:
        """All rows of all parts, in order."""
        return cls(
            stack([part.tokens for part in parts]),
            np.concatenate([part.languages for part in parts]),
            np.concatenate([part.targets for part in parts]),
            sum(part.n_cut for part in parts),
        )

    def batch(self, rows: IntArray) -> Batch:
        """A batch of some rows; each row predicts one target, at its first token."""
        tokens = self.tokens.take(rows)
        languages = Ragged(np.repeat(self.languages[rows], tokens.lengths), tokens.offsets)
        begins = tokens.offsets[:-1]
        return pack(tokens, tokens.positions(), languages, begins, self.targets[rows], rows)


def encode_task(
    data: TaskData, tokenizer: Tokenizer, languages: Mapping[str, int] | None, longest: int
) -> list[Examples]:
    """Encode all parts of a task's data.

    :param languages: id of each language that the model knows; None if it does not distinguish
        languages, so that any will do.
    :raises OptionError: a part in a language that the model does not know.
    """
    for part in data.parts:
        if languages is not None and part.language not in languages:
            raise OptionError(
                f"{part.file} is in {part.language!r}, which the model does not know",
                expected=f"one of {', '.join(sorted(languages))}",
                remedy="leave that language out, or start from a model that was trained with it",
            )
    return [
        Examples.encode(
            part, targets, tokenizer, languages[part.language] if languages else 0, longest
        )
        for part, targets in zip(data.parts, data.targets, strict=True)
    ]


def fingerprint(data: TaskData, examples: Sequence[Examples]) -> str:
    """A hash of the data that is trained and evaluated on.

    :param examples: the rows of each part of ``data``.
    """
    digest = hashlib.sha256()
    for part, rows in zip(data.parts, examples, strict=True):
        digest.update(f"{part.split} {part.title}\n".encode())
        for values in (rows.tokens.values, rows.tokens.offsets, rows.languages, rows.targets):
            digest.update(values.tobytes())
    return digest.hexdigest()[:16]


class ExampleBatches(Dataset[list[Batch]]):
    """This rank's micro-batches by number of the update; picklable, for loader processes.

    Every epoch has its own order of the rows and sees each at most once: rows left at its end that
    do not fill a batch are left out, and come in another epoch.

    :param batch_size: rows in a global batch, or all rows if there are fewer.
    :raises OptionError: a batch has fewer rows than parts to divide it into.
    """

    def __init__(
        self,
        examples: Examples,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        accumulation: int = 1,
    ) -> None:
        self._examples = examples
        self._size = min(batch_size, examples.n_rows)
        self._seed = seed
        self._n_parts = world_size * accumulation
        self._own = slice(rank * accumulation, (rank + 1) * accumulation)
        self._order: tuple[int, IntArray] = (-1, np.empty(0, np.int64))
        if self._size < self._n_parts:
            raise OptionError(
                f"a batch of {self._size} row(s) cannot be divided among {world_size} process(es) "
                f"x {accumulation} micro-batch(es)",
                remedy="raise --batch-sentences, or use fewer processes",
            )

    @property
    def per_epoch(self) -> int:
        """Updates per epoch."""
        return self._examples.n_rows // self._size

    def __getitem__(self, index: int) -> list[Batch]:
        """This rank's micro-batches of one update."""
        epoch, number = divmod(index, self.per_epoch)
        rows = self._order_of(epoch)[number * self._size : (number + 1) * self._size]
        parts = np.array_split(rows, self._n_parts)[self._own]
        return [self._examples.batch(part) for part in parts]

    def _order_of(self, epoch: int) -> IntArray:
        """The order of the rows in an epoch; the last one is cached, as many rows take a while."""
        if self._order[0] != epoch:
            order = keyed_rng(self._seed, "examples", epoch).permutation(self._examples.n_rows)
            self._order = (epoch, order)
        return self._order[1]
