"""XLM's tokenization behind the `Tokenizer` contract: Moses' rules, then fastBPE's codes.

Ids are laid out as in XLM: ``<s> </s> <pad> <unk>``, ten reserved specials, of which the first is
the separator and the second the mask, then the tokens by decreasing count.
"""

from __future__ import annotations

import copy
import functools
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from xlm_fastbpe import FastBPEOptions
from xlm_fastbpe.codes import MARK, Codes, Pair, read_codes, written_codes
from xlm_fastbpe.learning import count_tokens, learn, most_frequent
from xlm_fastbpe.pretokenization import Pretokenizer
from xlm_fastbpe.vocabulary import ROLES, SPECIALS, read_vocabulary, written_vocabulary
from xlm_fastbpe.word_table import WordTable
from xlm_plugins import BundleError, DataError, Ragged, Tokenizer, write_json, write_text

SETTINGS_NAME, CODES_NAME, VOCABULARY_NAME = "fastbpe.json", "codes", "vocab"


class FastBPE(Tokenizer):
    """A vocabulary, the codes that split words into its tokens, and how text becomes words.

    :param words: the written form of every id, the special ones first.
    :param counts: the count of each, which is only saved.
    :param merges: of the codes; None for text that is already split into tokens by white space.
    :param pretokenizer: converts text to words; not used without codes.
    :raises BundleError: the words are not a vocabulary of XLM.
    """

    def __init__(
        self,
        words: Sequence[str],
        counts: Sequence[int],
        merges: Mapping[Pair, int] | None,
        pretokenizer: Pretokenizer,
    ) -> None:
        _check_words(words)
        self._tokens = list(words)
        self._counts = list(counts)
        self._merges = merges
        self._pretokenizer = pretokenizer
        self._language: str | None = None
        # Text that spells out a special token is unknown: special tokens have no entry here.
        ids = {word: number for number, word in enumerate(words) if number >= len(SPECIALS)}
        tokenize: Callable[[bytes], Ragged] = functools.partial(_ids_of_tokens, ids)
        if merges is not None:
            tokenize = Codes(merges, ids, ROLES["unk"]).ids_of
        self._table = WordTable(tokenize)

    @classmethod
    def from_vocabulary(
        cls,
        words: Sequence[str],
        counts: Sequence[int] | None = None,
        codes: str | None = None,
        *,
        languages: Sequence[str] = ("en",),
        lowercase: bool = False,
        remove_accents: bool = False,
    ) -> FastBPE:
        """The tokenizer of a model whose vocabulary is known, such as a checkpoint of XLM.

        :param words: the written form of every id, the 14 special ones first.
        :param counts: the count of each, if known.
        :param codes: the content of a codes file.  Without it, text must already be split into
            tokens by white space, and the other arguments are not used.
        :param languages: the model's, among which the language of a text is guessed if it is not
            given; the first one if nothing tells.
        :raises BundleError: the words are not a vocabulary of XLM.
        :raises DataError: the codes are invalid.
        """
        merges = None if codes is None else read_codes(codes, "the codes")
        pretokenizer = Pretokenizer(tuple(languages) or ("en",), lowercase, remove_accents)
        return cls(words, [0] * len(words) if counts is None else counts, merges, pretokenizer)

    @classmethod
    def train(
        cls,
        texts: Iterable[str],
        vocabulary_size: int,
        options: FastBPEOptions,
        folder: Path,
        workers: int,
    ) -> FastBPE:
        """Learn codes and vocabulary, unless the options name files for them.

        The same text gives the same tokenizer, whatever the number of workers.

        :param vocabulary_size: number of ids, special ones included, unless the options name a
            vocabulary, which is used as it is.
        :param workers: not used.
        :raises DataError: the text is not enough for that vocabulary, or a given file is damaged.
        :raises PluginError: a language's segmenter is not installed.
        """
        pretokenizer = Pretokenizer(
            options.languages or ("en",), options.lowercase, options.remove_accents
        )
        merges = _codes_of(options.codes)
        if options.vocab:
            words, counts = read_vocabulary(_content(options.vocab), options.vocab)
        else:
            n_tokens = vocabulary_size - len(SPECIALS)
            of_words = Counter(word for text in texts for word in pretokenizer.words(text).split())
            if merges is None:
                merges, found = learn(of_words, n_tokens)
            else:
                found = count_tokens(Codes(merges), of_words)
            learned = most_frequent(found, n_tokens)
            words = [*SPECIALS, *(token for token, _ in learned)]
            counts = [0] * len(SPECIALS) + [count for _, count in learned]
        tokenizer = cls(words, counts, merges, pretokenizer)
        tokenizer.save(folder)
        return tokenizer

    @classmethod
    def load(cls, folder: Path) -> FastBPE:
        try:
            settings = json.loads((folder / SETTINGS_NAME).read_text(encoding="utf-8"))
            path = folder / VOCABULARY_NAME
            words, counts = read_vocabulary(_content(path), str(path))
            sizes = settings.pop("n_words"), settings.pop("n_codes")
            merges = None if sizes[1] is None else _codes_of(folder / CODES_NAME)
            pretokenizer = Pretokenizer(**settings | {"languages": tuple(settings["languages"])})
        except (OSError, ValueError, KeyError, TypeError, AttributeError, DataError) as error:
            problem = error.problem if isinstance(error, DataError) else repr(error)
            raise BundleError(
                f"{folder} holds no fastBPE tokenizer, or a damaged one: {problem}",
                expected=f"{SETTINGS_NAME}, {VOCABULARY_NAME} and {CODES_NAME}, as saved",
                remedy="restore the folder, or make the tokenizer again",
            ) from error
        found = len(words), None if merges is None else len(merges)
        if found != sizes:
            raise BundleError(
                f"{path} has {found[0]} tokens, special ones included, and {CODES_NAME} beside it "
                f"{found[1] or 'no'} merges",
                expected=f"{sizes[0]} and {sizes[1] or 'no'}, as when they were saved",
                remedy="restore the folder",
            )
        return cls(words, counts, merges, pretokenizer)

    def save(self, folder: Path) -> None:
        vocabulary = written_vocabulary(self._tokens, self._counts)
        write_text(folder / VOCABULARY_NAME, vocabulary)
        if self._merges is not None:
            write_text(folder / CODES_NAME, written_codes(self._merges))
        settings = {
            "n_words": len(self._tokens),
            "n_codes": None if self._merges is None else len(self._merges),
            **self._pretokenizer.settings(),
        }
        write_json(folder / SETTINGS_NAME, settings)

    def in_language(self, language: str) -> FastBPE:
        """The same tokenizer for text of one language, which is then not guessed."""
        of_language = copy.copy(self)
        of_language._language = language
        return of_language

    def encode_batch(self, texts: Sequence[str], *, continues: bool = False) -> Ragged:
        """Encode sentences; see `Tokenizer.encode_batch`.

        Nothing marks the beginning of a line, so texts that continue one are encoded alike.

        :raises PluginError: a text's language needs a segmenter that is not installed.
        """
        return self._table.encode([self._words(text) for text in texts])

    def decode_batch(self, rows: Sequence[Sequence[int]]) -> list[str]:
        """Decode rows of ids; special ids, including unknown, leave nothing.

        :raises DataError: an id is outside the vocabulary.
        """
        return [self._text(self._joined(row)) for row in rows]

    def tokens(self) -> list[str]:
        return list(self._tokens)

    def special(self, role: str) -> int:
        return ROLES[role]

    def reserved(self) -> tuple[int, ...]:
        """All special ids but that of unk, which unknown text encodes to."""
        return tuple(number for number in range(len(SPECIALS)) if number != ROLES["unk"])

    @functools.cached_property
    def fingerprint(self) -> str:
        """A hash of tokens, codes, settings, and a probe sentence split by Moses' rules: another
        version of sacremoses changes it only if it splits words differently."""
        merges = None if self._merges is None else list(self._merges)
        text = None if merges is None else self._pretokenizer.trait()
        written = json.dumps([self._tokens, merges, text], ensure_ascii=True)
        return hashlib.sha256(written.encode()).hexdigest()[:16]

    def __reduce__(self) -> tuple[object, ...]:
        made_of = (self._tokens, self._counts, self._merges, self._pretokenizer)
        return type(self), made_of, {"_language": self._language}

    def _words(self, text: str) -> str:
        if self._merges is None:
            return " ".join(text.split())
        return self._pretokenizer.words(text, self._language)

    def _text(self, words: list[str]) -> str:
        if self._merges is None:
            return " ".join(words)
        return self._pretokenizer.text(words, self._language)

    def _joined(self, row: Sequence[int]) -> list[str]:
        """The words of a row of ids."""
        ids = [int(number) for number in row]
        if ids and not 0 <= min(ids) <= max(ids) < len(self._tokens):
            wrong = min(ids) if min(ids) < 0 else max(ids)
            raise DataError(f"id {wrong}", expected=f"an id from 0 to {len(self._tokens) - 1}")
        # An unknown token becomes an empty string between two spaces, and so ends a word.
        tokens = [
            "" if number == ROLES["unk"] else self._tokens[number]
            for number in ids
            if number >= len(SPECIALS) or number == ROLES["unk"]
        ]
        return " ".join(tokens).replace(f"{MARK} ", "").removesuffix(MARK).split()


def _ids_of_tokens(ids: Mapping[str, int], tokens: bytes) -> Ragged:
    """The ids of text that is already split into tokens, one row per token."""
    values = [ids.get(token, ROLES["unk"]) for token in tokens.decode().split(" ")[:-1]]
    return Ragged(np.array(values, np.int64), np.arange(len(values) + 1))


def _check_words(words: Sequence[str]) -> None:
    if tuple(words[: len(SPECIALS)]) != SPECIALS:
        raise BundleError(
            f"the vocabulary begins with {' '.join(words[:6])} ...",
            expected=f"{' '.join(SPECIALS[:6])} ..., as in XLM",
        )
    if len(set(words)) != len(words):
        twice = [word for word, n in Counter(words).items() if n > 1]
        raise BundleError(f"the vocabulary has {twice[0]!r} twice", expected="each token once")
    wrong = [word for word in words if word.split() != [word]]
    if wrong:
        raise BundleError(f"the vocabulary has the token {wrong[0]!r}", expected="no white space")


def _codes_of(path: str | Path) -> dict[Pair, int] | None:
    return read_codes(_content(path), str(path)) if path else None


def _content(path: str | Path) -> str:
    """The content of a text file, with its line ends as they are.

    :raises DataError: it cannot be read as text.
    """
    try:
        return Path(path).read_bytes().decode()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}", expected="a text file") from error
