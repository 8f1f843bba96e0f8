"""A tokenizer of whole words, for tests without plugins."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from xlm_plugins.contracts.ragged import Ragged
from xlm_plugins.contracts.tokenizer import Tokenizer
from xlm_plugins.core.errors import BundleError, DataError

FILE_NAME = "words.json"


class WordTokenizer(Tokenizer):
    """One id per role, in the order of `Tokenizer.ROLES`, then one per word.

    A word is a sequence of letters and digits; everything else is dropped.

    :param words: the vocabulary, without the special tokens.
    """

    def __init__(self, words: Iterable[str]) -> None:
        self._tokens = [f"<{role}>" for role in self.ROLES] + list(words)
        self._ids = {word: number for number, word in enumerate(self._tokens)}

    @classmethod
    def train(
        cls, texts: Iterable[str], vocabulary_size: int, options: Any, folder: Path, workers: int
    ) -> WordTokenizer:
        """Use the most frequent words.

        :raises DataError: the text has too few words.
        """
        counts = Counter(word for text in texts for word in _words(text))
        wanted = vocabulary_size - len(cls.ROLES)
        if not 0 < wanted <= len(counts):
            raise DataError(f"only {len(counts)} words", expected=f"at least {wanted}")
        words = sorted(counts, key=lambda word: (-counts[word], word))[:wanted]
        tokenizer = cls(words)
        tokenizer.save(folder)
        return tokenizer

    @classmethod
    def load(cls, folder: Path) -> WordTokenizer:
        try:
            return cls(json.loads((folder / FILE_NAME).read_text(encoding="utf-8")))
        except (OSError, ValueError) as error:
            raise BundleError(f"{folder} has no tokenizer of words: {error}") from error

    def save(self, folder: Path) -> None:
        words = json.dumps(self._tokens[len(self.ROLES) :])
        (folder / FILE_NAME).write_text(words, encoding="utf-8")

    def encode_batch(self, texts: Sequence[str], *, continues: bool = False) -> Ragged:
        unknown = self.special("unk")
        return Ragged.of([[self._ids.get(word, unknown) for word in _words(t)] for t in texts])

    def decode_batch(self, rows: Sequence[Sequence[int]]) -> list[str]:
        return [" ".join(self._tokens[i] for i in row if i >= len(self.ROLES)) for row in rows]

    def tokens(self) -> list[str]:
        return list(self._tokens)

    def special(self, role: str) -> int:
        if role not in self.ROLES:
            raise KeyError(role)
        return self.ROLES.index(role)

    def reserved(self) -> tuple[int, ...]:
        """All roles but unk, which unknown words encode to."""
        return tuple(self.special(role) for role in self.ROLES if role != "unk")

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(json.dumps(self._tokens).encode()).hexdigest()[:16]


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text)
