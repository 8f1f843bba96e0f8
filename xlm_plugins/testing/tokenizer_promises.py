"""What a tokenizer promises."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from xlm_plugins.contracts.tokenizer import Tokenizer
from xlm_plugins.core.errors import BundleError, DataError
from xlm_plugins.core.registry import Component
from xlm_plugins.testing import text
from xlm_plugins.testing.promises import demand, promise

MOST_IDS = 400
SENTENCES = text.both(300, seed=0)
PLAIN = [" ".join(words) for words in (text.words()[:4], text.words()[4:20], text.words()[:1])]
PLAIN += [text.in_greek(sentence) for sentence in PLAIN]
"""Sentences of frequent words only, which any vocabulary of the text has."""
STRANGE = [
    "",
    " ",
    "  two  spaces ",
    "\t",
    "MiXeD Case, 1,000.50!",
    "🐢 𓀀",
    "ଓଡ଼ିଆ",
    "\ufffd\u200b\0",
]


@dataclass(frozen=True)
class TokenizerCase:
    """A tokenizer under test.

    :param folder: where it may write.
    """

    component: Component
    options: Any
    folder: str

    def new_folder(self) -> Path:
        folder = Path(self.folder) / str(len(list(Path(self.folder).iterdir())))
        folder.mkdir()
        return folder

    def train(self, size: int, folder: Path | None = None, workers: int = 1) -> Tokenizer:
        """A tokenizer of the sentences, which come one by one, as they do from files.

        :raises DataError: they cannot give a vocabulary of that size.
        """
        folder = folder or self.new_folder()
        tokenizer: Tokenizer = self.component.load().train(
            iter(SENTENCES), size, self.options, folder, workers
        )
        return tokenizer

    def load(self, folder: Path) -> Tokenizer:
        tokenizer: Tokenizer = self.component.load().load(folder)
        return tokenizer

    @cached_property
    def size(self) -> int:
        """The largest vocabulary that the sentences can give, at most `MOST_IDS`.

        :raises DataError: they give none.
        """
        works, fails, tried = 0, MOST_IDS + 1, MOST_IDS
        while fails - works > 1:
            try:
                self.train(tried)
                works = tried
            except DataError:
                if tried == 1:
                    raise
                fails = tried
            tried = (works + fails) // 2
        return works

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """One that was trained."""
        return self.train(self.size)


def ids(tokenizer: Tokenizer, texts: Sequence[str], *, continues: bool = False) -> list[list[int]]:
    """What texts encode to, as plain lists."""
    return [row.tolist() for row in tokenizer.encode_batch(texts, continues=continues).rows]


@promise("some text gives a vocabulary, of no more ids than were asked for", "Tokenizer.train")
def can_be_trained(case: TokenizerCase) -> None:
    n_ids = len(case.tokenizer.tokens())
    demand(0 < n_ids <= case.size, f"{n_ids} ids where {case.size} were asked for")


@promise("a vocabulary that the text cannot give is a DataError, or smaller", "Tokenizer.train")
def refuses_what_cannot_be(case: TokenizerCase) -> None:
    for size in (1, 10_000_000):
        try:
            n_ids = len(case.train(size).tokens())
        except DataError:
            continue
        demand(n_ids <= size, f"{n_ids} ids where {size} were asked for")


@promise("the same text gives the same tokenizer, whatever the workers", "Tokenizer.train")
def learns_the_same_again(case: TokenizerCase) -> None:
    again = case.train(case.size, workers=2)
    demand(again.tokens() == case.tokenizer.tokens(), "other tokens the second time")
    demand(again.fingerprint == case.tokenizer.fingerprint, "another fingerprint the second time")


@promise("what `train` and `save` write, `load` reads: the same tokenizer", "Tokenizer.load")
def survives_saving(case: TokenizerCase) -> None:
    trained_in, saved_in = case.new_folder(), case.new_folder()
    tokenizer = case.train(case.size, trained_in)
    tokenizer.save(saved_in)
    for way, folder in (("train", trained_in), ("save", saved_in)):
        _demand_same(tokenizer, case.load(folder), f"read from what `{way}` wrote")


@promise("a folder without a tokenizer is a BundleError", "Tokenizer.load")
def refuses_an_empty_folder(case: TokenizerCase) -> None:
    try:
        found = case.load(case.new_folder())
    except BundleError:
        return
    demand(False, f"{found!r} is read from an empty folder")


@promise("a copy by pickle is the same tokenizer", "Tokenizer")
def travels_to_workers(case: TokenizerCase) -> None:
    copy = pickle.loads(pickle.dumps(case.tokenizer))
    _demand_same(case.tokenizer, copy, "unpickled")


@promise("another vocabulary has another fingerprint", "Tokenizer.fingerprint")
def tells_vocabularies_apart(case: TokenizerCase) -> None:
    tokenizer = case.tokenizer
    demand(bool(tokenizer.fingerprint), "an empty fingerprint")
    for size in (case.size - 1, case.size - 10):
        try:
            other = case.train(size)
        except DataError:
            continue
        same = other.fingerprint == tokenizer.fingerprint
        demand(not same or other.tokens() == tokenizer.tokens(), f"one for {size} ids as well")


@promise("every id has a written form of its own", "Tokenizer.tokens")
def writes_each_id_differently(case: TokenizerCase) -> None:
    tokens = case.tokenizer.tokens()
    demand(all(isinstance(token, str) for token in tokens), "tokens that are no strings")
    twice = sorted({token for token in tokens if tokens.count(token) > 1})
    demand(not twice, f"{', '.join(map(repr, twice[:3]))} stands for several ids")


@promise("each role has an id; all but unk are among those kept from text", "Tokenizer.special")
def has_an_id_for_each_role(case: TokenizerCase) -> None:
    tokenizer = case.tokenizer
    reserved, n_ids = tokenizer.reserved(), len(tokenizer.tokens())
    fine = list(reserved) == sorted(set(reserved)) and set(reserved) <= set(range(n_ids))
    demand(fine, f"reserved() gives {reserved}, no rising ids of {n_ids}")
    for role in Tokenizer.ROLES:
        token = tokenizer.special(role)
        demand(token in range(n_ids), f"{role} is {token}, of {n_ids} ids")
        demand(token in reserved or role == "unk", f"{role}, {token}, is not in reserved()")
    try:
        found = tokenizer.special("no-such-role")
    except KeyError:
        return
    demand(False, f"an unknown role is {found}, and no KeyError")


@promise("a row a text, the same whatever stands beside it", "Tokenizer.encode_batch")
def encodes_texts_apart(case: TokenizerCase) -> None:
    for continues in (False, True):
        texts = [*SENTENCES[:20], *STRANGE, *PLAIN]
        together = ids(case.tokenizer, texts, continues=continues)
        demand(len(together) == len(texts), f"{len(together)} rows of {len(texts)} texts")
        for one, row in zip(texts, together, strict=True):
            (alone,) = ids(case.tokenizer, [one], continues=continues)
            demand(alone == row, f"{one!r} encodes to {alone} alone, to {row} among others")
        nothing = case.tokenizer.encode_batch([], continues=continues)
        demand(nothing.n_rows == 0, f"{nothing.n_rows} rows of no text")
        (empty,) = ids(case.tokenizer, [""], continues=continues)
        demand(not empty, f"an empty text encodes to {empty}")


@promise("text never encodes to a reserved id, even if it spells one out", "Tokenizer.reserved")
def keeps_reserved_ids_from_text(case: TokenizerCase) -> None:
    tokenizer = case.tokenizer
    tokens, reserved = tokenizer.tokens(), tokenizer.reserved()
    spelt_out = [form for i in reserved for form in (tokens[i], f"a {tokens[i]} b")]
    for texts in (SENTENCES, STRANGE, spelt_out):
        for one, row in zip(texts, ids(tokenizer, texts), strict=True):
            outside = [i for i in row if i not in range(len(tokens))]
            demand(not outside, f"{one!r} encodes to {outside}, of {len(tokens)} ids")
            found = sorted(set(row) & set(reserved))
            demand(not found, f"{one!r} encodes to {found}, which is reserved")


@promise("plain words of the training text come back as they were", "Tokenizer.decode_batch")
def gives_plain_words_back(case: TokenizerCase) -> None:
    for given, found in _there_and_back(case.tokenizer, PLAIN):
        demand(found == given, f"{given!r} comes back as {found!r}")


@promise("text that came back once comes back the same again", "Tokenizer.decode_batch")
def settles_after_one_round(case: TokenizerCase) -> None:
    texts = [once for _, once in _there_and_back(case.tokenizer, [*STRANGE, *SENTENCES[:50]])]
    for once, twice in _there_and_back(case.tokenizer, texts):
        same = once.split() == twice.split()  # what was unknown may leave spaces behind
        demand(same, f"{once!r}, decoded, comes back as {twice!r} the next time")


@promise(
    "special tokens leave nothing behind; rows may be lists or arrays", "Tokenizer.decode_batch"
)
def drops_special_tokens(case: TokenizerCase) -> None:
    tokenizer = case.tokenizer
    (row,) = ids(tokenizer, PLAIN[:1])
    reserved = list(tokenizer.reserved())
    framed = [*reserved, *row, *reserved]
    wanted = [PLAIN[0], "", ""]
    lists = [framed, [], reserved]
    arrays: list[Any] = [np.array(row, int) for row in lists]
    for kind, rows in (("lists", lists), ("arrays", arrays)):
        found = tokenizer.decode_batch(rows)
        demand(found == wanted, f"{found} of {kind} where {wanted} was framed by special tokens")
    nothing = tokenizer.decode_batch([])
    demand(nothing == [], f"{nothing!r} of no rows")


@promise("a text that goes on gets no mark of a line's beginning", "Tokenizer.encode_batch")
def goes_on_in_the_middle_of_a_line(case: TokenizerCase) -> None:
    plain = [text for text, back in _there_and_back(case.tokenizer, SENTENCES[:9]) if text == back]
    for whole in (*PLAIN, *plain):
        for cut in _cuts(case.tokenizer, whole):
            (begin,) = ids(case.tokenizer, [whole[:cut]])
            (rest,) = ids(case.tokenizer, [whole[cut:]], continues=True)
            (found,) = case.tokenizer.decode_batch([begin + rest])
            parts = f"{whole[:cut]!r} and {whole[cut:]!r}, which continues it,"
            demand(found == whole, f"{parts} decode to {found!r}")


def _cuts(tokenizer: Tokenizer, sentence: str) -> Iterator[int]:
    """Before each space; and inside of words, where the part before the cut has the ids that it
    has in the word.  (With marks on what does not end a word, ``be@@ gin``, it never has.)"""
    end = 0
    for word in sentence.split(" "):
        begin, end = end + (end > 0), end + (end > 0) + len(word)
        if begin:
            yield begin - 1
        (row,) = ids(tokenizer, [word])
        parts = tokenizer.decode_batch([row[:n] for n in range(1, len(row))])
        for n, part in enumerate(parts, start=1):
            if 0 < len(part) < len(word) and ids(tokenizer, [part]) == [row[:n]]:
                yield begin + len(part)
                break


def _there_and_back(tokenizer: Tokenizer, texts: Sequence[str]) -> Iterator[tuple[str, str]]:
    return zip(texts, tokenizer.decode_batch(ids(tokenizer, texts)), strict=True)


def _demand_same(tokenizer: Tokenizer, copy: Tokenizer, what: str) -> None:
    same = copy.fingerprint == tokenizer.fingerprint
    demand(same, f"{what}, its fingerprint is {copy.fingerprint}, not {tokenizer.fingerprint}")
    demand(copy.tokens() == tokenizer.tokens(), f"{what}, it has other tokens")
    texts = [*SENTENCES[:50], *STRANGE]
    demand(ids(copy, texts) == ids(tokenizer, texts), f"{what}, it encodes otherwise")


PROMISES = (
    can_be_trained,
    refuses_what_cannot_be,
    learns_the_same_again,
    survives_saving,
    refuses_an_empty_folder,
    travels_to_workers,
    tells_vocabularies_apart,
    writes_each_id_differently,
    has_an_id_for_each_role,
    encodes_texts_apart,
    keeps_reserved_ids_from_text,
    gives_plain_words_back,
    settles_after_one_round,
    drops_special_tokens,
    goes_on_in_the_middle_of_a_line,
)
