"""XLM's vocabulary, from a checkpoint or from the file of ``token count`` lines beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xlm_plugins.core.errors import BundleError

SPECIALS = ("<s>", "</s>", "<pad>", "<unk>", *(f"<special{i}>" for i in range(10)))
"""The words of the ids 0 to 13 (docs/semantics.md, 1)."""

MOST_ODD_LINES = 0.01
"""Share of malformed lines allowed: in published files, a few tokens are white space."""


@dataclass(frozen=True)
class Words:
    """A vocabulary in order of ids, the special words first.

    :param origin: where it comes from, for error messages.
    """

    words: tuple[str, ...]
    counts: tuple[int, ...]
    origin: str


def words_of(
    content: Mapping[str, Any], params: Mapping[str, Any], checkpoint: Path, path: Path | None
) -> Words:
    """The vocabulary of a checkpoint, which a file, if given, must match.

    :param params: the checkpoint's options, which may truncate the file's vocabulary.
    :param path: the file of ``token count`` lines.
    :raises BundleError: there is no vocabulary, or the file has another one.
    """
    given = _read_vocabulary(path, params) if path else None
    held = _held(content, checkpoint) or given
    if held is None:
        raise BundleError(
            f"{checkpoint} holds no vocabulary (dico_id2word)",
            remedy="--vocab VOCAB, the file of `token count` lines that belongs to it",
        )
    if given is not None:
        _check_same(given, held)
    return held


def _check_same(given: Words, held: Words) -> None:
    expected = "the vocabulary that the model was trained with"
    if len(given.words) != len(held.words):
        raise BundleError(
            f"{given.origin} has {_size(given)}, but {held.origin} has {_size(held)}",
            expected=expected,
        )
    for number, (theirs, own) in enumerate(zip(given.words, held.words, strict=True)):
        if theirs != own:
            raise BundleError(
                f"{given.origin} has {theirs!r} as id {number}, but {held.origin} has {own!r}",
                expected=expected,
            )


def _size(words: Words) -> str:
    n_ids = len(words.words)
    return f"{n_ids - len(SPECIALS)} words ({n_ids} ids with the special ones)"


def _held(content: Mapping[str, Any], checkpoint: Path) -> Words | None:
    by_id = content.get("dico_id2word")
    if by_id is None:
        return None
    if not isinstance(by_id, Mapping) or sorted(by_id) != list(range(len(by_id))):
        raise BundleError(f"the vocabulary of {checkpoint} does not number its words from 0")
    words = tuple(str(by_id[number]) for number in range(len(by_id)))
    if words[: len(SPECIALS)] != SPECIALS:
        raise BundleError(
            f"the vocabulary of {checkpoint} begins with {' '.join(words[:6])} ...",
            expected=f"{' '.join(SPECIALS[:6])} ..., the 14 special words of XLM",
        )
    counts = content.get("dico_counts") or {}
    return Words(words, tuple(int(counts.get(word, 0)) for word in words), str(checkpoint))


def _read_vocabulary(path: Path, params: Mapping[str, Any]) -> Words:
    """Read ``token count`` lines; a run may keep only the first or the frequent ones.

    Like XLM, it ignores lines that are malformed or repeat a token.
    """
    counts = dict.fromkeys(SPECIALS, 0)
    lines = [line.split() for line in read_text(path).removesuffix("\n").split("\n")]
    for fields in lines:
        if len(fields) == 2 and fields[1].isdecimal():
            counts.setdefault(fields[0], int(fields[1]))
    if len(lines) - (len(counts) - len(SPECIALS)) > MOST_ODD_LINES * len(lines):
        raise BundleError(
            f"{path} is not a vocabulary of XLM: {len(lines)} lines have "
            f"{len(counts) - len(SPECIALS)} tokens with a count",
            expected="lines such as `the 4711`",
        )
    kept = [word for word, n in counts.items() if n >= params["min_count"] or word in SPECIALS]
    kept = kept[: params["max_vocab"]] if params["max_vocab"] > 0 else kept
    return Words(tuple(kept), tuple(counts[word] for word in kept), str(path))


def read_text(path: Path) -> str:
    """The content of a text file.

    :raises BundleError: there is no such file, or it is not text.
    """
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeError) as error:
        raise BundleError(f"{path} cannot be read as text: {error}") from error
