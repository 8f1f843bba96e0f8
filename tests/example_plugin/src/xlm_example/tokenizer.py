"""The tokenizer: one token per character."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from xlm_plugins import BundleError, DataError, Ragged, Tokenizer

from xlm_example import ExampleTokenizerOptions

FILE_NAME = "characters.json"


class ExampleTokenizer(Tokenizer):
    """One id per role (bos, eos, pad, unk, mask, sep), then one per character.

    :param characters: the vocabulary, the most frequent first.
    :param lowercase: convert text to lower case before encoding.
    """

    def __init__(self, characters: Sequence[str], lowercase: bool) -> None:
        self._lowercase = lowercase
        self._tokens = [f"<{role}>" for role in self.ROLES] + list(characters)
        # The text "<mask>" is six characters, and never the id of the role.
        self._ids = {token: i for i, token in enumerate(self._tokens) if len(token) == 1}

    @classmethod
    def train(
        cls,
        texts: Iterable[str],
        vocabulary_size: int,
        options: ExampleTokenizerOptions,
        folder: Path,
        workers: int,
    ) -> ExampleTokenizer:
        counts: Counter[str] = Counter()
        for text in texts:  # one by one: the text may be larger than memory
            counts.update(text.lower() if options.lowercase else text)
        # Users see this error: what was given, what would work, a hint.
        possible = len(cls.ROLES) + len(counts)
        if not len(cls.ROLES) < vocabulary_size <= possible:
            raise DataError(
                f"the text is not suited for a vocabulary of {vocabulary_size}",
                expected=f"{len(cls.ROLES) + 1} to {possible}",
                remedy=f"--vocab-size {possible}",
            )
        # Ties are broken by character, so that the same text gives the same ids everywhere.
        by_count = sorted(counts, key=lambda character: (-counts[character], character))
        tokenizer = cls(by_count[: vocabulary_size - len(cls.ROLES)], options.lowercase)
        tokenizer.save(folder)
        return tokenizer

    @classmethod
    def load(cls, folder: Path) -> ExampleTokenizer:
        """Without options: `save` writes everything that determines the encoding."""
        try:
            tree = json.loads((folder / FILE_NAME).read_text(encoding="utf-8"))
            return cls(tree["characters"], tree["lowercase"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BundleError(f"{folder} has no character tokenizer: {error!r}") from error

    def save(self, folder: Path) -> None:
        (folder / FILE_NAME).write_text(self._as_json(), encoding="utf-8")

    def encode_batch(self, texts: Sequence[str], *, continues: bool = False) -> Ragged:
        """Encode texts; ``continues`` makes no difference, since nothing marks how a line begins."""
        unknown = self.special("unk")
        if self._lowercase:
            texts = [text.lower() for text in texts]
        return Ragged.of([[self._ids.get(character, unknown) for character in t] for t in texts])

    def decode_batch(self, rows: Sequence[Sequence[int]]) -> list[str]:
        n_roles = len(self.ROLES)
        return ["".join(self._tokens[i] for i in row if i >= n_roles) for row in rows]

    def tokens(self) -> list[str]:
        return list(self._tokens)

    def special(self, role: str) -> int:
        if role not in self.ROLES:
            raise KeyError(role)
        return self.ROLES.index(role)

    def reserved(self) -> tuple[int, ...]:
        """All roles but unk, which unknown characters encode to."""
        return tuple(self.special(role) for role in self.ROLES if role != "unk")

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(self._as_json().encode()).hexdigest()[:16]

    def _as_json(self) -> str:
        characters = self._tokens[len(self.ROLES) :]
        return json.dumps({"characters": characters, "lowercase": self._lowercase})
