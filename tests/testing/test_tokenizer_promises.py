"""`check_tokenizer`: for each promise, a tokenizer that breaks it is refused."""

from __future__ import annotations

import random

import pytest
from xlm_sentencepiece.tokenizer import SentencePieceTokenizer

from xlm_plugins import Component, DataError, Ragged
from xlm_plugins.testing import BrokenPromiseError, check_tokenizer, tokenizer_promises
from xlm_plugins.testing.words import WordTokenizer


class Sound(WordTokenizer):
    """One token per word; keeps all promises."""


class NeverTrained(Sound):
    @classmethod
    def train(cls, texts, vocabulary_size, options, folder, workers):
        raise DataError("no")


class TooManyIds(Sound):
    @classmethod
    def train(cls, texts, vocabulary_size, options, folder, workers):
        return super().train(texts, vocabulary_size + 1, options, folder, workers)


class FailsOnSize(Sound):
    @classmethod
    def train(cls, texts, vocabulary_size, options, folder, workers):
        if vocabulary_size < 6:
            raise IndexError(vocabulary_size)
        return super().train(texts, vocabulary_size, options, folder, workers)


class LearnsByChance(Sound):
    @classmethod
    def train(cls, texts, vocabulary_size, options, folder, workers):
        tokenizer = super().train(texts, vocabulary_size, options, folder, workers)
        words = tokenizer.tokens()[6:]
        random.shuffle(words)
        return cls(words)


class SavesTooLittle(Sound):
    def save(self, folder):
        Sound(self._tokens[6:-1]).save(folder)


class LoadsAnything(Sound):
    @classmethod
    def load(cls, folder):
        return cls(["a"]) if not list(folder.iterdir()) else super().load(folder)


class HoldsFunction(Sound):
    def __init__(self, words):
        super().__init__(words)
        self.clean = lambda text: text


class OneFingerprint(Sound):
    @property
    def fingerprint(self):
        return "words"


class WritesAlike(Sound):
    def tokens(self):
        return [token.replace("sep", "pad") for token in super().tokens()]


class MaskIsText(Sound):
    def reserved(self):
        return (0, 1, 2, 5)


class AnyRole(Sound):
    def special(self, role):
        return self.ROLES.index(role) if role in self.ROLES else 3


class LosesEmptyLines(Sound):
    def encode_batch(self, texts, *, continues=False):
        return super().encode_batch([text for text in texts if text], continues=continues)


class Frames(Sound):
    def encode_batch(self, texts, *, continues=False):
        return super().encode_batch(texts, continues=continues).framed(6, 6)


class ReadsMask(Sound):
    def encode_batch(self, texts, *, continues=False):
        return Ragged.of([[self._ids.get(word, 3) for word in text.split()] for text in texts])


class DecodesLoudly(Sound):
    def decode_batch(self, rows):
        return [text.upper() for text in super().decode_batch(rows)]


class NeverSettles(Sound):
    def decode_batch(self, rows):
        return [
            " ".join("not known" if i == 3 else self._tokens[i] for i in row if i > 5 or i == 3)
            for row in rows
        ]


class ShowsEos(Sound):
    def decode_batch(self, rows):
        return [" ".join(self._tokens[i] for i in row if i > 5 or i == 1) for row in rows]


class DropsBeginning(Sound):
    def encode_batch(self, texts, *, continues=False):
        return super().encode_batch([t[3:] if continues else t for t in texts])


class MarksEveryBeginning(SentencePieceTokenizer):
    """Marks the beginning of a line even before text that continues a word."""

    def encode_batch(self, texts, *, continues=False):
        return super().encode_batch(texts)


BROKEN = [
    (NeverTrained, "can_be_trained", "DataError: no"),
    (TooManyIds, "can_be_trained", "401 ids where 400"),
    (FailsOnSize, "refuses_what_cannot_be", "IndexError: 1"),
    (LearnsByChance, "learns_the_same_again", "different tokens"),
    (SavesTooLittle, "survives_saving", "`train` wrote, its fingerprint"),
    (LoadsAnything, "refuses_an_empty_folder", "empty folder"),
    (HoldsFunction, "travels_to_workers", "lambda"),
    (OneFingerprint, "tells_vocabularies_apart", "the same one for 399 ids"),
    (WritesAlike, "writes_each_id_differently", "'<pad>'"),
    (MaskIsText, "has_an_id_for_each_role", "mask, 4, is not in"),
    (AnyRole, "has_an_id_for_each_role", "not a KeyError"),
    (LosesEmptyLines, "encodes_texts_apart", "rows for"),
    (Frames, "encodes_texts_apart", "an empty text"),
    (ReadsMask, "keeps_reserved_ids_from_text", r"\[0\], which is reserved"),
    (DecodesLoudly, "gives_plain_words_back", "is decoded as"),
    (NeverSettles, "settles_after_one_round", "the second time"),
    (ShowsEos, "drops_special_tokens", "<eos>"),
    (DropsBeginning, "goes_on_in_the_middle_of_a_line", "which continues it"),
]


def component(target: type, name: str) -> Component:
    return Component(name, f"{__name__}:{target.__name__}", summary="for a test")


@pytest.mark.parametrize(
    ("tokenizer", "promise", "found"), BROKEN, ids=lambda value: getattr(value, "__name__", None)
)
def test_a_broken_promise_is_named(tokenizer: type, promise: str, found: str) -> None:
    with pytest.raises(BrokenPromiseError, match=found) as error:
        check_tokenizer(component(tokenizer, "broken"))
    assert error.value.promise == promise


def test_texts_are_also_continued_within_words() -> None:
    from xlm_sentencepiece import SentencePieceOptions

    target = f"{__name__}:MarksEveryBeginning"
    broken = Component("broken", target, SentencePieceOptions, "for a test")
    with pytest.raises(BrokenPromiseError, match="which continues it") as error:
        check_tokenizer(broken)
    assert error.value.promise == "goes_on_in_the_middle_of_a_line"


def test_a_valid_tokenizer_is_accepted() -> None:
    check_tokenizer(component(Sound, "sound"))


def test_a_small_vocabulary_is_found_if_a_large_one_is_impossible() -> None:
    check_tokenizer(component(Characters, "characters"))


class Characters(Sound):
    """One token per character, of which the text has 31."""

    @classmethod
    def train(cls, texts, vocabulary_size, options, folder, workers):
        characters = sorted({character for text in texts for character in text})
        if not 6 < vocabulary_size <= 6 + len(characters):
            raise DataError(f"only {len(characters)}")
        tokenizer = cls(characters[: vocabulary_size - 6])
        tokenizer.save(folder)
        return tokenizer

    def encode_batch(self, texts, *, continues=False):
        return Ragged.of([[self._ids.get(character, 3) for character in t] for t in texts])

    def decode_batch(self, rows):
        return ["".join(self._tokens[i] for i in row if i > 5) for row in rows]


def test_every_promise_has_a_test() -> None:
    promises = {each.name for each in tokenizer_promises.PROMISES}
    assert promises == {promise for _, promise, _ in BROKEN}
