"""The fastBPE tokenizer: contract, ids, files, a model's vocabulary, errors."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from xlm_fastbpe import FastBPEOptions
from xlm_fastbpe.tokenizer import FastBPE
from xlm_fastbpe.vocabulary import SPECIALS, read_vocabulary

from xlm_plugins import BundleError, DataError
from xlm_plugins.testing import check_tokenizer

SENTENCES = [
    "In the beginning was the word, and the word wasn't short.",
    "Am Anfang war das Wort, und das Wort war kürzer als gedacht.",
    "Au début était le mot, et l'été fut très léger.",
] * 3
CODES = "l o 9\ne r</w> 8\nlo w</w> 7\nw er</w> 6\nw e 5\n"
WORDS = [*SPECIALS, "low", "lo@@", "wer", ",", "l@@", "o@@", "w@@", "w", "e", "we@@"]


def trained(folder: Path, size: int = 130, **options: object) -> FastBPE:
    return FastBPE.train(SENTENCES, size, FastBPEOptions(**options), folder, workers=1)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> FastBPE:
    return trained(tmp_path_factory.mktemp("tokenizer"), languages=("en", "fr"))


def written(tokenizer: FastBPE, text: str) -> str:
    """The written forms of a text's tokens."""
    tokens = tokenizer.tokens()
    return " ".join(tokens[i] for i in tokenizer.encode_batch([text]).values)


def test_the_contract() -> None:
    check_tokenizer("fastbpe")


def test_ids_are_laid_out_as_in_xlm(tokenizer: FastBPE) -> None:
    assert tuple(tokenizer.tokens()[:14]) == SPECIALS
    assert len(tokenizer.tokens()) == 130
    roles = tokenizer.vocabulary().roles
    assert roles == {"bos": 0, "eos": 1, "pad": 2, "unk": 3, "sep": 4, "mask": 5}
    assert tokenizer.reserved() == (0, 1, 2, *range(4, 14))
    with pytest.raises(KeyError):
        tokenizer.special("cls")


def test_tokens_are_sorted_by_decreasing_count(tmp_path: Path) -> None:
    trained(tmp_path)
    _, counts = read_vocabulary((tmp_path / "vocab").read_text(encoding="utf-8"), "vocab")
    assert counts[14:] == sorted(counts[14:], reverse=True)
    assert counts[14] > 3


def test_text_survives(tokenizer: FastBPE) -> None:
    assert tokenizer.decode_batch(tokenizer.encode_batch(SENTENCES).rows) == SENTENCES


def test_words_and_pieces_of_a_given_vocabulary() -> None:
    tokenizer = FastBPE.from_vocabulary(WORDS, codes=CODES)
    assert written(tokenizer, "low, lower we") == "low , lo@@ wer w@@ e"
    assert tokenizer.decode_batch([[14, 17, 15, 16]]) == ["low, lower"]
    assert written(tokenizer, "LOW xlow") == "<unk> <unk> <unk> <unk> low"
    lower = FastBPE.from_vocabulary(WORDS, codes=CODES, lowercase=True, remove_accents=True)
    assert written(lower, "LÖW") == "low"


def test_without_codes_text_must_be_tokens() -> None:
    tokenizer = FastBPE.from_vocabulary(WORDS)
    assert written(tokenizer, "  low lo@@ wer lower <special1>\n,\u00a0low") == (
        "low lo@@ wer <unk> <unk> , low"
    )
    assert tokenizer.decode_batch([[14, 15, 16, 17]]) == ["low lower ,"]


def test_unknown_and_special_tokens_leave_nothing() -> None:
    tokenizer = FastBPE.from_vocabulary(WORDS, codes=CODES)
    rows = [[1, 15, 5, 16, 1], [15, 3, 14], [15], list(range(14)), [], np.array([1, 14])]
    assert tokenizer.decode_batch(rows) == ["lower", "lo low", "lo", "", "", "low"]
    with pytest.raises(DataError, match="id 24") as error:
        tokenizer.decode_batch([[14, 24]])
    assert "0 to 23" in error.value.expected


def test_spelled_out_special_tokens_stay_text(tokenizer: FastBPE) -> None:
    for one in (tokenizer, FastBPE.from_vocabulary(WORDS)):
        ids = one.encode_batch([*SPECIALS, "a <special1> </s>"]).values
        assert not set(ids.tolist()) & set(one.reserved())


def test_a_given_language_decides_the_rules(tokenizer: FastBPE) -> None:
    french, english = tokenizer.in_language("fr"), tokenizer.in_language("en")
    assert written(french, "l'été").startswith("l'")
    assert written(english, "l'été") != written(french, "l'été") == written(tokenizer, "l'été")
    assert french.fingerprint == tokenizer.fingerprint
    assert written(pickle.loads(pickle.dumps(english)), "l'été") == written(english, "l'été")
    ids = english.encode_batch(["wasn't"]).rows
    assert english.decode_batch(ids) == ["wasn't"]


def test_given_files_are_used_as_they_are(tmp_path: Path) -> None:
    codes, vocab, folder = tmp_path / "codes", tmp_path / "vocab", tmp_path / "out"
    folder.mkdir()
    codes.write_text(CODES, encoding="utf-8")
    # Lines without a token, or with a repeated one, get no id: XLM skips them.
    lines = [f"{word} 7" for word in WORDS[14:]] + [f"x{n} 1" for n in range(400)]
    vocab.write_text("\n".join([lines[0], "\u3000 5", *lines[1:4], "low 3", *lines[4:], ""]))
    options = FastBPEOptions(codes=str(codes), vocab=str(vocab))
    never: Iterator[str] = (pytest.fail("the text was read") for _ in range(1))
    tokenizer = FastBPE.train(never, 20, options, folder, 1)
    assert tokenizer.tokens() == [*WORDS, *(f"x{n}" for n in range(400))]
    assert written(FastBPE.load(folder), "lower") == "lo@@ wer"


def test_a_vocabulary_is_counted_for_codes_that_are_given(tmp_path: Path) -> None:
    codes = tmp_path / "my.codes"
    codes.write_text(CODES, encoding="utf-8")
    texts = ["low lower low", "low we"]
    tokenizer = FastBPE.train(texts, 16, FastBPEOptions(codes=str(codes)), tmp_path, 1)
    assert tokenizer.tokens()[14:] == ["low", "e"]


def test_it_can_be_saved_and_pickled(tokenizer: FastBPE, tmp_path: Path) -> None:
    for one in (tokenizer, FastBPE.from_vocabulary(WORDS, range(len(WORDS)))):
        folder = tmp_path / one.fingerprint
        folder.mkdir()
        one.save(folder)
        for copy in (FastBPE.load(folder), pickle.loads(pickle.dumps(one))):
            assert copy.fingerprint == one.fingerprint
            assert copy.tokens() == one.tokens()
            rows = copy.encode_batch(SENTENCES)
            np.testing.assert_array_equal(rows.values, one.encode_batch(SENTENCES).values)
    assert sorted(path.name for path in folder.iterdir()) == ["fastbpe.json", "vocab"]
    assert (folder / "vocab").read_text().splitlines()[0] == "low 14"


def test_whatever_decides_the_ids_is_in_the_fingerprint(monkeypatch: pytest.MonkeyPatch) -> None:
    variants = [
        FastBPE.from_vocabulary(WORDS, codes=CODES),
        FastBPE.from_vocabulary(WORDS[:-1], codes=CODES),
        FastBPE.from_vocabulary(WORDS, codes=CODES[:-6]),
        FastBPE.from_vocabulary(WORDS),
        FastBPE.from_vocabulary(WORDS, codes=CODES, languages=("fr",)),
        FastBPE.from_vocabulary(WORDS, codes=CODES, lowercase=True),
        FastBPE.from_vocabulary(WORDS, codes=CODES, remove_accents=True),
    ]
    assert len({variant.fingerprint for variant in variants}) == len(variants)
    again = FastBPE.from_vocabulary(WORDS, range(len(WORDS)), CODES.replace("9", "1"))
    assert again.fingerprint == variants[0].fingerprint  # counts decide nothing
    # A sacremoses that cuts words otherwise.
    monkeypatch.setattr("xlm_fastbpe.pretokenization.Rules.words", lambda self, text: text)
    assert FastBPE.from_vocabulary(WORDS, codes=CODES).fingerprint != variants[0].fingerprint


@pytest.mark.parametrize("name", ["fastbpe.json", "vocab", "codes"])
@pytest.mark.parametrize("damage", ["missing", "truncated", "noise", "empty"])
def test_a_damaged_folder_is_refused(
    tokenizer: FastBPE, tmp_path: Path, name: str, damage: str
) -> None:
    tokenizer.save(tmp_path)
    path = tmp_path / name
    whole = path.read_bytes()
    content = {"truncated": whole[: len(whole) // 2 - 2], "noise": b"\xff" * 99, "empty": b""}
    path.unlink() if damage == "missing" else path.write_bytes(content[damage])
    with pytest.raises(BundleError, match=name) as error:
        FastBPE.load(tmp_path)
    assert error.value.remedy


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["the", *WORDS], "begins with the <s>"),
        ([*WORDS[:9], *WORDS], "begins with"),
        ([*WORDS, "low"], "'low' twice"),
        ([*WORDS, "a b"], "'a b'"),
        ([], "begins with"),
    ],
)
def test_words_that_are_no_vocabulary_are_refused(words: list[str], what: str) -> None:
    with pytest.raises(BundleError, match=what):
        FastBPE.from_vocabulary(words)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "is empty"),
        (CODES, "line 1: 'l o 9'"),
        ("the 5\nof five\n", "line 2: 'of five'"),
        ("the 5\nthe 4\n", "line 2: 'the 4'"),
        ("<s> 5\n", "line 1"),
    ],
)
def test_another_file_is_no_vocabulary(text: str, what: str) -> None:
    with pytest.raises(DataError, match=rf"my\.vocab is not a vocabulary.*{what}"):
        read_vocabulary(text, "my.vocab")


def test_files_that_cannot_be_read_are_told(tmp_path: Path) -> None:
    for option in ("codes", "vocab"):
        for path in (tmp_path / "nowhere", tmp_path):
            with pytest.raises(DataError, match=str(path)):
                trained(tmp_path, **{option: str(path)})
    (tmp_path / "latin").write_bytes("é 3".encode("latin-1"))
    with pytest.raises(DataError, match="latin"):
        trained(tmp_path, vocab=str(tmp_path / "latin"))
    assert [path.name for path in tmp_path.iterdir()] == ["latin"]


def test_an_error_of_the_text_source_comes_through(tmp_path: Path) -> None:
    def broken() -> Iterator[str]:
        yield "fine"
        raise DataError("line 2 is not UTF-8")

    with pytest.raises(DataError, match="line 2"):
        FastBPE.train(broken(), 380, FastBPEOptions(), tmp_path, 1)


def test_training_is_silent(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    trained(tmp_path)
    assert capfd.readouterr() == ("", "")


def test_settings_are_plain(tokenizer: FastBPE, tmp_path: Path) -> None:
    tokenizer.save(tmp_path)
    settings = json.loads((tmp_path / "fastbpe.json").read_text(encoding="utf-8"))
    assert settings == {
        "n_words": 130,
        "n_codes": len((tmp_path / "codes").read_text(encoding="utf-8").splitlines()),
        "languages": ["en", "fr"],
        "lowercase": False,
        "remove_accents": False,
    }
