"""A tokenizer of whitespace-separated words, for tests that need one without any plugin.

A module of its own, so that worker processes can import it by name.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter

from xlm_plugins.core.contracts import Tokenizer
from xlm_plugins.core.errors import DataError
from xlm_plugins.core.ragged import Ragged


class WordTokenizer(Tokenizer):
    def __init__(self, words):
        self._tokens = [f"<{role}>" for role in self.ROLES] + list(words)
        self._ids = {word: number for number, word in enumerate(self._tokens)}

    @classmethod
    def train(cls, texts, vocabulary_size, options, folder, workers):
        counts = Counter(word for text in texts for word in text.split())
        wanted = vocabulary_size - len(cls.ROLES)
        if len(counts) < wanted:
            raise DataError(f"only {len(counts)} words", expected=f"at least {wanted}")
        words = sorted(counts, key=lambda word: (-counts[word], word))[:wanted]
        tokenizer = cls(words)
        tokenizer.save(folder)
        return tokenizer

    @classmethod
    def load(cls, folder):
        return cls(json.loads((folder / "words.json").read_text(encoding="utf-8")))

    def save(self, folder):
        words = json.dumps(self._tokens[len(self.ROLES) :])
        (folder / "words.json").write_text(words, encoding="utf-8")

    def encode_batch(self, texts, *, continues=False):
        unknown = self.special("unk")
        # `~` encodes to nothing, as text does that a normaliser removes.
        words = [[word for word in text.split() if word != "~"] for text in texts]
        return Ragged.of([[self._ids.get(word, unknown) for word in row] for row in words])

    def decode_batch(self, rows):
        return [" ".join(self._tokens[i] for i in row if i >= len(self.ROLES)) for row in rows]

    def tokens(self):
        return list(self._tokens)

    def special(self, role):
        return self.ROLES.index(role)

    def reserved(self):
        return tuple(range(len(self.ROLES)))

    @property
    def fingerprint(self):
        return hashlib.sha256(json.dumps(self._tokens).encode()).hexdigest()[:16]
