"""Text for tests: an invented language in Latin letters, and its twin in Greek letters.

Both are the same line by line, word by word and letter by letter: a word-aligned translation in
another script.  The text is always the same.
"""

from __future__ import annotations

import functools
import random

LANGUAGES = ("xa", "xb")
N_WORDS = 250
"""Words of each language; the 20 most frequent ones make up half of the text."""

_SYLLABLES = tuple(consonant + vowel for consonant in "bdklmnprst" for vowel in "aeiou")
_GREEK = str.maketrans("abdeiklmnoprstu", "αβδεικλμνοπρστυ")


@functools.cache
def words() -> tuple[str, ...]:
    """The words of ``xa``, the most frequent first."""
    rng = random.Random(1)
    found: dict[str, None] = {}
    while len(found) < N_WORDS:
        found["".join(rng.choices(_SYLLABLES, k=rng.randint(1, 3)))] = None
    return tuple(found)


def in_greek(text: str) -> str:
    """Text of ``xa``, in ``xb``."""
    return text.translate(_GREEK)


def lines(n: int, seed: int) -> list[str]:
    """Sentences of ``xa`` with 1 to 12 words each."""
    rng = random.Random(seed)
    weights = [1 / (rank + 8) for rank in range(N_WORDS)]
    return [" ".join(rng.choices(words(), weights, k=rng.randint(1, 12))) for _ in range(n)]


def both(n: int, seed: int) -> list[str]:
    """Sentences of ``xa``, followed by the same ones in ``xb``."""
    sentences = lines(n, seed)
    return sentences + [in_greek(sentence) for sentence in sentences]
