"""XLM's vocabulary file: a line ``TOKEN COUNT`` for every token, the most frequent first.

Ids 0 to 13 are the special tokens, which are not in the file; its first line is id 14.
"""

from __future__ import annotations

from collections.abc import Sequence

from xlm_plugins import DataError

SPECIALS = ("<s>", "</s>", "<pad>", "<unk>", *(f"<special{i}>" for i in range(10)))
ROLES = {"bos": 0, "eos": 1, "pad": 2, "unk": 3, "sep": 4, "mask": 5}
# In published files, the token in a few lines is some kind of white space.
_MOST_BAD_LINES = 0.01


def read_vocabulary(text: str, origin: str) -> tuple[list[str], list[int]]:
    """The tokens of a vocabulary file and their counts, the special tokens first.

    Like XLM, it skips lines that are not a token and a count, or repeat a token: they get no id.

    :param text: the content of the file.
    :param origin: its name, for error messages.
    :raises DataError: it is not a vocabulary.
    """
    counts = dict.fromkeys(SPECIALS, 0)
    lines = text.split("\n")
    if not lines[-1]:
        lines.pop()
    bad: list[tuple[int, str]] = []
    for number, line in enumerate(lines, start=1):
        fields = line.split()
        if len(fields) == 2 and fields[0] not in counts and fields[1].isdecimal():
            counts[fields[0]] = int(fields[1])
        else:
            bad.append((number, line))
    if not lines or len(bad) > _MOST_BAD_LINES * len(lines):
        where = f", line {bad[0][0]}: {bad[0][1][:60]!r}" if bad else " is empty"
        raise DataError(
            f"{origin} is not a vocabulary of XLM{where}",
            expected="lines such as `the 4711`, each token once",
        )
    return list(counts), list(counts.values())


def written_vocabulary(words: Sequence[str], counts: Sequence[int]) -> str:
    """The content of a vocabulary file.

    :param words: the special tokens first.
    """
    lines = zip(words[len(SPECIALS) :], counts[len(SPECIALS) :], strict=True)
    return "".join(f"{word} {count}\n" for word, count in lines)
