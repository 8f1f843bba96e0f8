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
"""Sentences of frequent words, which any vocabulary of the text contains."""
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

    :param folder: a folder for its files.
    """

    component: Component
    options: Any
    folder: str

    def new_folder(self) -> Path:
        folder = Path(self.folder) / str(len(list(Path(self.folder).iterdir())))
        folder.mkdir()
        return folder

    def train(self, size: int, folder: Path | None = None, workers: int = 1) -> Tokenizer:
        """Train on the sentences, which come from an iterator, as from files.

        :raises DataError: they are not enough for a vocabulary of that size.
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
        """The largest possible vocabulary of the sentences, up to `MOST_IDS`.

        :raises DataError: there is none.
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
        """A trained tokenizer."""
        return self.train(self.size)


def ids(tokenizer: Tokenizer, texts: Sequence[str], *, continues: bool = False) -> list[list[int]]:
    """The ids of texts, as lists."""
    return [row.tolist() for row in tokenizer.encode_batch(texts, continues=continues).rows]


@promise("it learns a vocabulary of at most the requested size", "Tokenizer.train")
def can_be_trained(case: TokenizerCase) -> None:
    n_ids = len(case.tokenizer.tokens())
    demand(0 < n_ids <= case.size, f"{n_ids} ids where {case.size} were asked for")


@promise("too large a vocabulary for the text is a DataError, or smaller", "Tokenizer.train")
def refuses_what_cannot_be(case: TokenizerCase) -> None:
    for size in (1, 10_000_000):
        try:
            n_ids = len(case.train(size).tokens())
        except DataError:
            continue
        demand(n_ids <= size, f"{n_ids} ids where {size} were asked for")


@promise("the same text gives the same tokenizer, for any number of workers", "Tokenizer.train")
def learns_the_same_again(case: TokenizerCase) -> None:
    again = case.train(case.size, workers=2)
    demand(again.tokens() == case.tokenizer.tokens(), "different tokens the second time")
    demand(
        again.fingerprint == case.tokenizer.fingerprint, "a different fingerprint the second time"
    )


@promise("`load` restores what `train` and `save` write", "Tokenizer.load")
def survives_saving(case: TokenizerCase) -> None:
    trained_in, saved_in = case.new_folder(), case.new_folder()
    tokenizer = case.train(case.size, trained_in)
    tokenizer.save(saved_in)
    for way, folder in (("train", trained_in), ("save", saved_in)):
        _demand_same(tokenizer, case.load(folder), f"loaded from what `{way}` wrote")


@promise("loading a folder without a tokenizer is a BundleError", "Tokenizer.load")
def refuses_an_empty_folder(case: TokenizerCase) -> None:
    try:
        found = case.load(case.new_folder())
    except BundleError:
        return
    demand(False, f"{found!r} is loaded from an empty folder")


@promise("a pickled copy is the same tokenizer", "Tokenizer")
def travels_to_workers(case: TokenizerCase) -> None:
    copy = pickle.loads(pickle.dumps(case.tokenizer))
    _demand_same(case.tokenizer, copy, "unpickled")


@promise("different vocabularies have different fingerprints", "Tokenizer.fingerprint")
def tells_vocabularies_apart(case: TokenizerCase) -> None:
    tokenizer = case.tokenizer
    demand(bool(tokenizer.fingerprint), "an empty fingerprint")
    for size in (case.size - 1, case.size - 10):
        try:
            other = case.train(size)
        except DataError:
            continue
        same = other.fingerprint == tokenizer.fingerprint
        demand(not same or other.tokens() == tokenizer.tokens(), f"the same one for {size} ids")


@promise("every id has a unique written form", "Tokenizer.tokens")
def writes_each_id_differently(case: TokenizerCase) -> None:
    tokens = case.tokenizer.tokens()
    demand(all(isinstance(token, str) for token in tokens), "tokens that are not strings")
    twice = sorted({token for token in tokens if tokens.count(token) > 1})
    demand(not twice, f"{', '.join(map(repr, twice[:3]))} stands for several ids")


@promise("each role has an id, and all but unk are reserved", "Tokenizer.special")
def has_an_id_for_each_role(case: TokenizerCase) -> None:
    tokenizer = case.tokenizer
    reserved, n_ids = tokenizer.reserved(), len(tokenizer.tokens())
    fine = list(reserved) == sorted(set(reserved)) and set(reserved) <= set(range(n_ids))
    demand(fine, f"reserved() returns {reserved}, not increasing ids below {n_ids}")
    for role in Tokenizer.ROLES:
        token = tokenizer.special(role)
        demand(token in range(n_ids), f"{role} is {token}, but there are {n_ids} ids")
        demand(token in reserved or role == "unk", f"{role}, {token}, is not in reserved()")
    try:
        found = tokenizer.special("no-such-role")
    except KeyError:
        return
    demand(False, f"an unknown role is {found}, not a KeyError")


@promise("one row per text, which does not depend on other texts", "Tokenizer.encode_batch")
def encodes_texts_apart(case: TokenizerCase) -> None:
    for continues in (False, True):
        texts = [*SENTENCES[:20], *STRANGE, *PLAIN]
        together = ids(case.tokenizer, texts, continues=continues)
        demand(len(together) == len(texts), f"{len(together)} rows for {len(texts)} texts")
        for one, row in zip(texts, together, strict=True):
            (alone,) = ids(case.tokenizer, [one], continues=continues)
            demand(alone == row, f"{one!r} encodes to {alone} alone, to {row} among others")
        nothing = case.tokenizer.encode_batch([], continues=continues)
        demand(nothing.n_rows == 0, f"{nothing.n_rows} rows for no texts")
        (empty,) = ids(case.tokenizer, [""], continues=continues)
        demand(not empty, f"an empty text encodes to {empty}")


@promise("text never encodes to reserved ids, even if it contains one's form", "Tokenizer.reserved")
def keeps_reserved_ids_from_text(case: TokenizerCase) -> None:
    tokenizer = case.tokenizer
    tokens, reserved = tokenizer.tokens(), tokenizer.reserved()
    spelt_out = [form for i in reserved for form in (tokens[i], f"a {tokens[i]} b")]
    for texts in (SENTENCES, STRANGE, spelt_out):
        for one, row in zip(texts, ids(tokenizer, texts), strict=True):
            outside = [i for i in row if i not in range(len(tokens))]
            demand(not outside, f"{one!r} encodes to {outside}, but there are {len(tokens)} ids")
            found = sorted(set(row) & set(reserved))
            demand(not found, f"{one!r} encodes to {found}, which is reserved")


@promise("encoding and decoding restores words of the training text", "Tokenizer.decode_batch")
def gives_plain_words_back(case: TokenizerCase) -> None:
    for given, found in _there_and_back(case.tokenizer, PLAIN):
        demand(found == given, f"{given!r} is decoded as {found!r}")


@promise("encoding and decoding a second time changes nothing", "Tokenizer.decode_batch")
def settles_after_one_round(case: TokenizerCase) -> None:
    texts = [once for _, once in _there_and_back(case.tokenizer, [*STRANGE, *SENTENCES[:50]])]
    for once, twice in _there_and_back(case.tokenizer, texts):
        same = once.split() == twice.split()  # what was unknown may leave spaces behind
        demand(same, f"{once!r}, itself decoded, is decoded as {twice!r} the second time")


@promise("special tokens leave no trace; rows may be lists or arrays", "Tokenizer.decode_batch")
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
        demand(found == wanted, f"{found} from {kind} of {wanted} with special tokens around it")
    nothing = tokenizer.decode_batch([])
    demand(nothing == [], f"{nothing!r} for no rows")


@promise("with `continues`, nothing marks the beginning of a line", "Tokenizer.encode_batch")
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
    """Before each space; and inside words, if the part before the cut has the same ids as within
    the word.  (If all parts but the last are marked, ``be@@ gin``, it never has.)"""
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
    demand(copy.tokens() == tokenizer.tokens(), f"{what}, it has different tokens")
    texts = [*SENTENCES[:50], *STRANGE]
    demand(ids(copy, texts) == ids(tokenizer, texts), f"{what}, it encodes differently")


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
