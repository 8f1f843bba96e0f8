# ruff: noqa: RUF001 (text in several scripts)
"""Byte-level BPE: contract, ids, equality with the library, round trips, errors."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import random
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
from packaging.version import Version
from tokenizers import Tokenizer as FastTokenizer
from tokenizers.pre_tokenizers import ByteLevel
from xlm_bytebpe import ByteBPEOptions, word_ids
from xlm_bytebpe.letters import BYTE_OF, LETTERS, SPACE, bytes_of
from xlm_bytebpe.tokenizer import N_FIXED, TOKENIZER_NAME, ByteBPE

from xlm_plugins import BundleError, DataError
from xlm_plugins.data.prepare.embedded import embedded_sentences
from xlm_plugins.testing import check_tokenizer

SENTENCES = [
    "In the beginning was the word, and the word was short.",
    "Am Anfang war das Wort, und das Wort war kürzer als gedacht.",
    "Au début était le mot, et l'été fut très léger.",
    "В начале было слово, и слово было коротким.",
    "आदि में वचन था",
    "太初有道，道與神同在。",
]
STRANGE = [
    "",
    " ",
    "  two  spaces and\u00a0others\u2003 \t tabs ",
    "he's she'll WE'RE 'tis 3's x²½Ⅷ٣",
    "\0\x1c \x1d\x85 \u200b\ufeff",
    "e\u0301 👩‍👩‍👧🏽🇩🇪 𓀀",
    "a\n\n b\r\n",
]
SPELT_OUT = ["<mask>", "<s> a </s>", "the <mask>, <pad><unk>"]


def trained(folder: Path, size: int = 400, **options: bool) -> ByteBPE:
    return ByteBPE.train(SENTENCES * 3, size, ByteBPEOptions(**options), folder, workers=1)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> ByteBPE:
    return trained(tmp_path_factory.mktemp("tokenizer"))


def ids(tokenizer: ByteBPE, texts: Sequence[str], *, continues: bool = False) -> list[list[int]]:
    return [row.tolist() for row in tokenizer.encode_batch(texts, continues=continues).rows]


def pieces(tokenizer: ByteBPE, text: str, *, continues: bool = False) -> list[str]:
    tokens = tokenizer.tokens()
    return [tokens[i] for i in tokenizer.encode_batch([text], continues=continues).values]


@pytest.mark.parametrize("prefix_space", [False, True])
def test_the_contract(prefix_space: bool) -> None:
    check_tokenizer("bytebpe", prefix_space=prefix_space)


def test_bytes_are_written_as_gpt2_writes_them() -> None:
    assert set(LETTERS) == set(ByteLevel.alphabet())
    assert sorted(BYTE_OF.values()) == list(range(256))
    assert [BYTE_OF[letter] for letter in "a!~ÿ"] == [0x61, 0x21, 0x7E, 0xFF]
    assert [BYTE_OF[letter] for letter in (SPACE, "Ċ", "Ā", "ł", "Ń")] == [
        0x20,
        0x0A,
        0,
        0xA0,
        0xAD,
    ]
    assert bytes_of("ĠÃ©t") == " ét".encode()
    assert bytes_of("太 é") == "太 é".encode()  # not written in letters


def test_ids_are_laid_out_as_in_roberta(tokenizer: ByteBPE) -> None:
    tokens = tokenizer.tokens()
    assert len(tokens) == 400
    assert tokens[:4] == ["<s>", "<pad>", "</s>", "<unk>"]
    assert tuple(tokens[4:260]) == LETTERS
    assert tokens[399] == "<mask>"
    roles = tokenizer.vocabulary().roles
    assert roles == {"bos": 0, "pad": 1, "eos": 2, "unk": 3, "sep": 2, "mask": 399, "begin": 0}
    assert tokenizer.frame == (0, 2)
    assert tokenizer.reserved() == (0, 1, 2, 3, 399)


@pytest.mark.parametrize("prefix_space", [False, True])
def test_text_is_tokenized_as_by_the_library(tmp_path: Path, prefix_space: bool) -> None:
    rng = random.Random(4)
    signs = [*" \t\n\u00a0\u2003\x1c\x85", *" ab1.'sé道"]
    texts = ["".join(rng.choices(signs, k=rng.randrange(16))) for _ in range(2000)]
    options = ByteBPEOptions(prefix_space)
    tokenizer = ByteBPE.train(texts, 500, options, tmp_path, 1)  # runs of white space are tokens
    theirs = tokenizer.to_hugging_face()
    texts += SENTENCES + STRANGE + SPELT_OUT
    rows = ids(tokenizer, texts)
    assert rows == [theirs.encode(text).ids for text in texts]
    assert rows == ids(tokenizer, texts)  # again, now that the words are cached
    assert [theirs.decode(row) for row in rows[-9:]] == [
        " " * (prefix_space and text[:1] not in ("", " ")) + text for text in texts[-9:]
    ]


def test_any_text_survives(tokenizer: ByteBPE) -> None:
    texts = [*SENTENCES, *STRANGE, *SPELT_OUT]
    rows = tokenizer.encode_batch(texts)
    assert tokenizer.decode_batch(rows.rows) == texts
    assert not set(rows.values.tolist()) & set(tokenizer.reserved())


def test_a_merge_to_a_special_token_is_never_made() -> None:
    tokens = ["<s>", "<pad>", "</s>", "<unk>", *LETTERS, "<s", "<mask>"]
    tokenizer = ByteBPE(tokens, [("<", "s"), ("<s", ">")])
    assert pieces(tokenizer, "<s>") == ["<", "s", ">"]
    assert tokenizer.reserved() == (0, 1, 2, 3, 261)


def test_half_a_character_is_not_lost(tokenizer: ByteBPE) -> None:
    (row,) = ids(tokenizer, ["🐢"])
    assert len(row) == 4
    assert tokenizer.decode_batch([row[:3], np.array(row)]) == ["\ufffd", "🐢"]
    with pytest.raises(DataError, match="400"):
        tokenizer.decode_batch([[400]])


def test_only_a_space_begins_a_word(tokenizer: ByteBPE, tmp_path: Path) -> None:
    assert pieces(tokenizer, "word word")[-1] == "Ġword"
    assert pieces(tokenizer, "word word")[0] != "Ġword"
    assert pieces(tokenizer, " word", continues=True) == ["Ġword"]
    assert pieces(tokenizer, "word", continues=True) == pieces(tokenizer, "word")
    prefixing = trained(tmp_path, prefix_space=True)
    assert pieces(prefixing, "word") == pieces(prefixing, " word") == ["Ġword"]
    assert pieces(prefixing, "word", continues=True)[0] != "Ġword"
    assert prefixing.decode_batch(ids(prefixing, ["word", " word"])) == ["word", "word"]


def test_the_cache_of_words_is_cleared_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = trained(tmp_path)
    wanted = ids(tokenizer, SENTENCES)
    monkeypatch.setattr(word_ids, "MOST_IDS", 10)
    monkeypatch.setattr(word_ids, "LONGEST", 4)
    for _ in range(3):
        assert ids(tokenizer, SENTENCES) == wanted


def test_the_same_text_gives_the_same_for_any_number_of_workers(tmp_path: Path) -> None:
    found = set()
    for workers in (1, 2, 7):
        ByteBPE.train(iter(SENTENCES * 3), 380, ByteBPEOptions(), tmp_path, workers)
        found.add((tmp_path / TOKENIZER_NAME).read_bytes())
    assert len(found) == 1


def test_it_can_be_saved_and_pickled(tmp_path: Path) -> None:
    tokenizer = trained(tmp_path, prefix_space=True)
    assert [path.name for path in tmp_path.iterdir()] == [TOKENIZER_NAME]
    for copy in (ByteBPE.load(tmp_path), pickle.loads(pickle.dumps(tokenizer))):
        assert copy.fingerprint == tokenizer.fingerprint
        assert copy.tokens() == tokenizer.tokens()
        assert ids(copy, SENTENCES + STRANGE) == ids(tokenizer, SENTENCES + STRANGE)
    opened = FastTokenizer.from_file(str(tmp_path / TOKENIZER_NAME))
    assert opened.encode(SENTENCES[0]).ids == ids(tokenizer, SENTENCES[:1])[0]


def test_what_decides_ids_is_in_the_fingerprint(tokenizer: ByteBPE, tmp_path: Path) -> None:
    tokens, merges, _ = tokenizer.__reduce__()[1]
    others = [trained(tmp_path, 399), ByteBPE(tokens, merges, prefix_space=True)]
    found = {other.fingerprint for other in (tokenizer, *others)}
    assert len(found) == 3
    assert {len(fingerprint) for fingerprint in found} == {16}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_forked_process_encodes_as_well(
    tokenizer: ByteBPE, capfd: pytest.CaptureFixture[str]
) -> None:
    wanted = ids(tokenizer, SENTENCES)
    with multiprocessing.get_context("fork").Pool(1) as pool:
        values = pool.apply_async(tokenizer.encode_batch, (STRANGE,)).get(timeout=60).values
    assert values.tolist() == tokenizer.encode_batch(STRANGE).values.tolist()
    assert ids(tokenizer, SENTENCES) == wanted
    if Version(version("tokenizers")) >= Version("0.23"):  # before, learning's threads make it warn
        assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("size", [1, N_FIXED])
def test_too_small_a_size_names_one_that_works(tmp_path: Path, size: int) -> None:
    with pytest.raises(DataError, match=f"vocabulary of {size} has no room") as error:
        trained(tmp_path, size)
    assert list(tmp_path.iterdir()) == []
    works = int(error.value.remedy.split()[1])
    assert len(trained(tmp_path, works).tokens()) == works


def test_the_vocabulary_is_smaller_if_no_pair_is_left(tmp_path: Path) -> None:
    assert len(trained(tmp_path, 100_000).tokens()) < 2000
    for texts in ([], ["", " "], ["ab"]):
        with pytest.raises(DataError, match="no pair of bytes"):
            ByteBPE.train(texts, 400, ByteBPEOptions(), tmp_path, 1)


def test_an_error_of_the_text_source_comes_through(tmp_path: Path) -> None:
    def broken() -> Iterator[str]:
        yield "fine"
        raise DataError("line 2 is not UTF-8")

    with pytest.raises(DataError, match="line 2"):
        ByteBPE.train(broken(), 400, ByteBPEOptions(), tmp_path, 1)


@pytest.mark.parametrize("damage", ["missing", "truncated", "noise", "empty", "another kind"])
def test_a_damaged_file_is_refused(tokenizer: ByteBPE, tmp_path: Path, damage: str) -> None:
    tokenizer.save(tmp_path)
    path = tmp_path / TOKENIZER_NAME
    whole = path.read_bytes()
    content = {
        "truncated": whole[: len(whole) // 2],
        "noise": b"\xff" * 99,
        "empty": b"",
        "another kind": whole.replace(b'"BPE"', b'"WordLevel"'),
    }
    path.unlink() if damage == "missing" else path.write_bytes(content[damage])
    with pytest.raises(BundleError, match=r"tokenizer\.json"):
        ByteBPE.load(tmp_path)


def test_real_text_survives(tmp_path: Path) -> None:
    texts = [t for language in ("en", "fr", "de") for t in embedded_sentences("valid", language)]
    tokenizer = ByteBPE.train(texts, 1500, ByteBPEOptions(), tmp_path, 1)
    rows = tokenizer.encode_batch(texts)
    assert tokenizer.decode_batch(rows.rows) == texts
    assert 2.5 < sum(map(len, texts)) / len(rows.values) < 6  # characters per token
    theirs = tokenizer.to_hugging_face()
    assert [row.tolist() for row in rows.rows[:300]] == [theirs.encode(t).ids for t in texts[:300]]
