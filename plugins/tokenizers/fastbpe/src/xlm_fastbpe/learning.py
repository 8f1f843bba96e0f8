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
"""Characters and pairs that occur less often are not learned."""
# The library numbers symbols of several characters in an order that changes from run to run, and
# the numbers break ties between pairs of equal counts.  So a character at the end of a word is
# replaced by a private-use one, which no text has, and all symbols start as one character.
_FIRST_LAST = 0xF0000


def learn(counts: Mapping[str, int], n_tokens: int) -> tuple[dict[Pair, int], dict[str, int]]:
    """Learn merges until there are ``n_tokens`` tokens, or no pair occurs twice.

    :param counts: the count of each word.
    :param n_tokens: number of tokens to learn, including those of one character.
    :returns: the merges with their counts, and the count of each token.
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
    merges = _learned_merges(counts, n_tokens - len(alphabet))
    if not merges:
        raise DataError("no pair of letters occurs twice in the text", remedy="give more text")
    codes = Codes(dict.fromkeys(merges, 0))
    found = count_tokens(codes, counts)
    tokens = dict.fromkeys([*alphabet, *codes.symbols()])
    return _counted(codes, found), {token: found[token] for token in tokens}


def count_tokens(codes: Codes, counts: Mapping[str, int]) -> Counter[str]:
    """Count the pieces that words are split into."""
    found: Counter[str] = Counter()
    for word, count in counts.items():
        for piece in codes.split(word):
            found[piece] += count
    return found


def most_frequent(counts: Mapping[str, int], n_tokens: int) -> list[tuple[str, int]]:
    """Tokens with their counts, in descending order; ties are sorted by token."""
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:n_tokens]


def _alphabet(counts: Mapping[str, int]) -> list[str]:
    """The tokens of one character, in both forms, so that any word of these can be encoded."""
    found: Counter[str] = Counter()
    for word, count in counts.items():
        for character in word:
            found[character] += count
    characters = [character for character, count in found.items() if count >= LEAST_COUNT]
    return [form for character in characters for form in (character, character + MARK)]


def _learned_merges(counts: Mapping[str, int], n_merges: int) -> list[Pair]:
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
    """Each word as often as it occurs: the library counts words itself."""
    return (f"{word} " * count for word, count in words.items())


def _counted(codes: Codes, n_of_piece: Mapping[str, int]) -> dict[Pair, int]:
    """How often each merge is applied: as often as its result occurs in the text, by itself or
    within the results of later merges."""
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
