"""Learning codes and a vocabulary from words."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping

from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from xlm_fastbpe.codes import END, MARK, Codes, Pair
from xlm_fastbpe.vocabulary import SPECIALS
from xlm_plugins import DataError

LEAST_COUNT = 2
"""What occurs less often is not learnt: a character, and a pair."""
# The library numbers symbols of several characters in an order that changes from run to run, and
# the numbers decide between pairs of equal counts.  So a character at the end of a word is
# written as a private one, which stand in no text, and all symbols begin as one character.
_FIRST_LAST = 0xF0000


def learn(counts: Mapping[str, int], n_tokens: int) -> tuple[dict[Pair, int], dict[str, int]]:
    """Learn merges until there are as many tokens as asked for, or no pair occurs twice.

    :param counts: how often each word occurs.
    :param n_tokens: tokens to learn, those of one character included.
    :returns: the merges, and how often each token occurs.
    :raises DataError: there are no words, or no room for merges.
    """
    alphabet = _alphabet(counts)
    if not alphabet:
        raise DataError("there is no text to learn codes from", remedy="give text")
    least = len(SPECIALS) + len(alphabet) + 1
    if n_tokens <= len(alphabet):
        raise DataError(
            f"a vocabulary of {len(SPECIALS) + n_tokens} has no room for the special tokens, the "
            "characters of the text and a merge",
            expected=f"at least {least}",
            remedy=f"--vocab-size {least} or, better, several times that",
        )
    merges = _learnt_merges(counts, n_tokens - len(alphabet))
    if not merges:
        raise DataError("no two letters stand together twice in the text", remedy="give more text")
    codes = Codes(dict.fromkeys(merges, 0))
    found = count_tokens(codes, counts)
    tokens = dict.fromkeys([*alphabet, *codes.symbols()])
    return _counted(codes, found), {token: found[token] for token in tokens}


def count_tokens(codes: Codes, counts: Mapping[str, int]) -> Counter[str]:
    """How often each piece occurs when words are split."""
    found: Counter[str] = Counter()
    for word, count in counts.items():
        for piece in codes.split(word):
            found[piece] += count
    return found


def most_frequent(counts: Mapping[str, int], n_tokens: int) -> list[tuple[str, int]]:
    """Tokens with their counts by falling count; equal ones by their letters."""
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:n_tokens]


def _alphabet(counts: Mapping[str, int]) -> list[str]:
    """The tokens of one character: both forms of each, so that any word of theirs has tokens."""
    found: Counter[str] = Counter()
    for word, count in counts.items():
        for character in word:
            found[character] += count
    characters = [character for character, count in found.items() if count >= LEAST_COUNT]
    return [form for character in characters for form in (character, character + MARK)]


def _learnt_merges(counts: Mapping[str, int], n_merges: int) -> list[Pair]:
    last = sorted({word[-1] for word in counts})
    private = {character: chr(_FIRST_LAST + n) for n, character in enumerate(last)}
    plain = {written: character + END for character, written in private.items()}
    words = {word[:-1] + private[word[-1]]: count for word, count in counts.items()}
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.BpeTrainer(
        vocab_size=len({character for word in words for character in word}) + n_merges,
        min_frequency=LEAST_COUNT,
        show_progress=False,
    )
    tokenizer.train_from_iterator(_repeated(words), trainer)
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    return [(left, right[:-1] + plain.get(right[-1], right[-1])) for left, right in merges]


def _repeated(words: Mapping[str, int]) -> Iterable[str]:
    """Each word as often as it occurs: the library counts for itself."""
    return (f"{word} " * count for word, count in words.items())


def _counted(codes: Codes, n_of_piece: Mapping[str, int]) -> dict[Pair, int]:
    """How often each merge is applied: as often as what it gives stands in the text, whole or
    inside of what later merges give."""
    n_of = {
        piece.removesuffix(MARK) if piece.endswith(MARK) else piece + END: count
        for piece, count in n_of_piece.items()
    }
    merges = dict(codes.merges)
    for left, right in reversed(codes.merges):
        count = n_of.pop(left + right, 0)
        merges[left, right] = count
        for part in (left, right):
            n_of[part] = n_of.get(part, 0) + count
    return merges
