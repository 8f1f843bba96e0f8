# ruff: noqa: RUF001 (quotation marks of several languages)
"""Raw text to words and back, as in XLM's text pipeline.

Punctuation is normalised, non-printing characters are removed, Moses (or a segmenter, for Chinese,
Thai and Japanese) splits words, and optionally case and accents are removed.  Words are not
escaped for XML.  The rules are those of sacremoses, a port of Moses' scripts.
"""

from __future__ import annotations

import dataclasses
import functools
import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sacremoses import MosesDetokenizer, MosesPunctNormalizer, MosesTokenizer

from xlm_fastbpe.segmenters import SEGMENTED, Segmenter, segmenter

_SPECIAL_IN_PATTERNS = frozenset(".^$*+?{}[]\\|()")
# Perl's \p{C}: control, format, unassigned, private and surrogate characters.
_NON_PRINTING = "C"
_ACCENT = "Mn"
_THAI_SPACE = re.compile("(?<=[\u0e00-\u0e7f]) (?=[\u0e00-\u0e7f])")


# A little of everything that Moses' rules, or those of a language, treat specially.
_PROBE = (
    "Mr. O'Neil's „test“ — l'été, d’accord: « œuvre » (3.5 %, 1\u00a0000 €), the U.S. No. 5; "
    "e.g. this… Straße & <b> [x] foo-bar, A.B.,C: 5,300.5 z.B. ça?! ``so'' 你好，世界。"
)


@dataclass(frozen=True)
class Pretokenizer:
    """Converts text of several languages to words, and words to text.

    :param languages: candidates for the language of a text, if it is not given; at least one.
    :param lowercase: convert words to lower case.
    :param remove_accents: remove accents.
    """

    languages: tuple[str, ...]
    lowercase: bool = False
    remove_accents: bool = False

    def words(self, text: str, language: str | None = None) -> str:
        """The words of a text, a space between them.

        :param language: None to guess.
        :raises PluginError: the language needs a segmenter that is not installed.
        """
        return self._rules(language or likely_language(text, self.languages)).words(text)

    def text(self, words: Sequence[str], language: str | None = None) -> str:
        """The text of words, as far as it can be restored.

        :param language: None to guess.
        """
        return self._rules(language or likely_language(" ".join(words), self.languages)).text(words)

    def settings(self) -> dict[str, Any]:
        """The constructor's arguments, for JSON."""
        return dataclasses.asdict(self)

    def trait(self) -> list[Any]:
        """A value that differs if two of them split text differently."""
        split_by_moses = [name for name in self.languages if name not in SEGMENTED]
        return [self.settings(), [self._rules(name).words(_PROBE) for name in split_by_moses]]

    def _rules(self, language: str) -> Rules:
        return _rules(language, self.lowercase, self.remove_accents)


class Rules:
    """The pipeline of one language; its parts are made when they are first needed.

    :param language: Moses' code for it; languages that Moses does not know get general rules.
    :param lowercase: convert words to lower case.
    :param remove_accents: decompose words (NFD) and drop characters of category Mn.
    """

    def __init__(self, language: str, *, lowercase: bool, remove_accents: bool) -> None:
        self._language = language
        self._lowercase = lowercase
        self._remove_accents = remove_accents

    def words(self, text: str) -> str:
        """The words of a text, a space between them.

        :raises PluginError: the language needs a segmenter that is not installed.
        """
        words = self._split(text)
        if self._lowercase:
            words = words.lower()
        if self._remove_accents and not words.isascii():
            decomposed = unicodedata.normalize("NFD", words)
            words = "".join(c for c in decomposed if unicodedata.category(c) != _ACCENT)
        return " ".join(words.split())

    def text(self, words: Sequence[str]) -> str:
        """The text of words: undoes `words`, except that case, accents and normalised punctuation
        are not restored."""
        if self._language == "th":
            return _THAI_SPACE.sub("", " ".join(words))
        return str(self._detokenizer.detokenize(words, unescape=False))

    def _split(self, text: str) -> str:
        if self._language == "zh":  # here XLM segments first, elsewhere it normalises first
            return self._normalised(" ".join(self._segmenter(text)))
        text = self._normalised(text)
        if self._language in SEGMENTED:
            return " ".join(self._segmenter(text))
        return str(self._tokenizer.tokenize(text, escape=False, return_str=True))

    def _normalised(self, text: str) -> str:
        text = self._normalizer.normalize(text)
        if text.isprintable():  # most text is; the only white space that is printable is " "
            return text
        return "".join(" " if _is_non_printing(c) else c for c in text)

    @functools.cached_property
    def _normalizer(self) -> MosesPunctNormalizer:
        return _Normalizer(self._language)

    @functools.cached_property
    def _tokenizer(self) -> MosesTokenizer:
        return _Tokenizer(self._language)

    @functools.cached_property
    def _detokenizer(self) -> MosesDetokenizer:
        return MosesDetokenizer(self._language)

    @functools.cached_property
    def _segmenter(self) -> Segmenter:
        return segmenter(self._language)


class _Normalizer(MosesPunctNormalizer):  # type: ignore[misc]
    """Moses' normaliser, which would look up each of its hundred patterns for every text."""

    def __init__(self, language: str) -> None:
        super().__init__(language, perl_parity=True)  # as Moses' script, unlike old sacremoses
        rules = [*self.REPLACE_UNICODE_PUNCTUATION, *self.substitutions]
        self._steps = [_substitution(pattern, replacement) for pattern, replacement in rules]

    def normalize(self, text: str) -> str:
        for step in self._steps:
            text = step(text)
        return text.strip()


def _substitution(pattern: str, replacement: str) -> Callable[[str], str]:
    if _SPECIAL_IN_PATTERNS.isdisjoint(pattern + replacement):
        return lambda text: text.replace(pattern, replacement)
    return functools.partial(re.compile(pattern).sub, replacement)


class _Tokenizer(MosesTokenizer):  # type: ignore[misc]
    """Moses' tokenizer, which would build a set of all letters for every word such as ``U.S.``."""

    _letters = frozenset(MosesTokenizer.IsAlpha)
    _lower = frozenset(MosesTokenizer.IsLower)

    def __init__(self, language: str) -> None:
        super().__init__(language)
        self._letters = frozenset(self.IsAlpha)  # Chinese and Korean have more

    def islower(self, text: str) -> bool:
        return self._lower.issuperset(text)

    def isanyalpha(self, text: str) -> bool:
        return not self._letters.isdisjoint(text)


@functools.cache
def _rules(language: str, lowercase: bool, remove_accents: bool) -> Rules:
    return Rules(language, lowercase=lowercase, remove_accents=remove_accents)


@functools.cache
def _is_non_printing(character: str) -> bool:
    return unicodedata.category(character).startswith(_NON_PRINTING)


_THAI = re.compile("[\u0e00-\u0e7f]")
_KANA = re.compile("[\u3040-\u30ff]")
_HAN = re.compile("[\u3400-\u4dbf\u4e00-\u9fff]")
_ELISION = re.compile(r"\b(?:[cdjlmnst]|qu)['’] ?[^\W\d_]{2}", re.IGNORECASE)


def likely_language(text: str, languages: Sequence[str]) -> str:
    """Guess which of some languages a text is in, as far as it matters to Moses' rules.

    Chinese, Thai and Japanese are recognised by their script, French and Italian by their elisions
    (``l'eau``).  Everything else counts as the first language.
    """
    n_characters = len(text) - text.count(" ")
    if "th" in languages and 2 * len(_THAI.findall(text)) > n_characters:
        return "th"
    n_kana, n_han = len(_KANA.findall(text)), len(_HAN.findall(text))
    if 2 * (n_kana + n_han) > n_characters:
        for language in ("ja", "zh") if n_kana else ("zh", "ja"):
            if language in languages:
                return language
    others = [language for language in languages if language not in SEGMENTED]
    elided = [language for language in others if language in ("fr", "it")]
    if elided and _ELISION.search(text):
        return elided[0]
    return (others or languages)[0]
