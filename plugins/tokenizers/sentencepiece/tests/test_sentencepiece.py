# ruff: noqa: RUF001 (text in several scripts)
"""The SentencePiece tokenizer: contract, ids, round trips, errors, determinism."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from xlm_sentencepiece import SentencePieceOptions
from xlm_sentencepiece.layouts import XLM_SPECIALS
from xlm_sentencepiece.tokenizer import MODEL_NAME, SentencePieceTokenizer

from xlm_plugins import BundleError, DataError
from xlm_plugins.data.prepare.embedded import embedded_sentences
from xlm_plugins.testing import check_tokenizer

SENTENCES = [
    "In the beginning was the word, and the word was short.",
    "Am Anfang war das Wort, und das Wort war kürzer als gedacht.",
    "Au début était le mot, et l'été fut très léger.",
    "В начале было слово, и слово было коротким.",
    "في البدء كان الكلمة",
    "आदि में वचन था",
    "太初有道，道與神同在。",
    "ในปฐมกาลพระวาทะทรงดำรงอยู่",
]
UNSEEN = ["Ξένος λόγος", "🐢 and 𓀀", "ଓଡ଼ିଆ"]


def trained(folder: Path, size: int = 380, **options: object) -> SentencePieceTokenizer:
    return SentencePieceTokenizer.train(
        SENTENCES * 3, size, SentencePieceOptions(**options), folder, workers=1
    )


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> SentencePieceTokenizer:
    return trained(tmp_path_factory.mktemp("tokenizer"))


def pieces(tokenizer: SentencePieceTokenizer, text: str, **how: bool) -> list[str]:
    tokens = tokenizer.tokens()
    return [tokens[i] for i in tokenizer.encode_batch([text], **how).values]


@pytest.mark.parametrize("options", [{}, {"model": "bpe"}, {"byte_fallback": False}], ids=str)
def test_the_contract(options: dict[str, Any]) -> None:
    check_tokenizer("sentencepiece", **options)


def test_ids_are_laid_out_as_in_xlm(tokenizer: SentencePieceTokenizer) -> None:
    assert tuple(tokenizer.tokens()[:14]) == XLM_SPECIALS
    assert len(tokenizer.tokens()) == 380
    roles = tokenizer.vocabulary().roles
    assert roles == {"bos": 0, "eos": 1, "pad": 2, "unk": 3, "sep": 4, "mask": 5}
    assert tokenizer.reserved() == tuple(range(14))
    with pytest.raises(KeyError):
        tokenizer.special("cls")


@pytest.mark.parametrize("model", ["unigram", "bpe"])
def test_text_in_any_script_survives(tmp_path: Path, model: str) -> None:
    tokenizer = trained(tmp_path, model=model, normalisation="identity")
    rows = tokenizer.encode_batch(SENTENCES + UNSEEN)
    assert tokenizer.decode_batch(rows.rows) == SENTENCES + UNSEEN
    assert rows.n_rows == len(SENTENCES + UNSEEN)
    assert rows.values.min() >= len(XLM_SPECIALS)


def test_without_bytes_text_can_be_unknown(tmp_path: Path) -> None:
    tokenizer = trained(tmp_path, 125, byte_fallback=False)
    unknown = tokenizer.special("unk")
    assert unknown in tokenizer.encode_batch(["🐢"]).values
    assert unknown not in tokenizer.reserved()


def test_normalisation_is_the_chosen_one(tmp_path: Path) -> None:
    for name, expected in (("nmt_nfkc_cf", "wort fi"), ("nmt_nfkc", "Wort fi")):
        (tmp_path / name).mkdir()
        tokenizer = trained(tmp_path / name, normalisation=name)
        assert tokenizer.decode_batch(tokenizer.encode_batch(["Wort ﬁ"]).rows) == [expected]


@pytest.mark.parametrize("model", ["unigram", "bpe"])
def test_spelled_out_special_tokens_stay_text(tmp_path: Path, model: str) -> None:
    texts = ["<special1>", "a </s> b", "<pad><unk>", "<s>", "<0x41>", "<special0> <special1>"]
    tokenizer = SentencePieceTokenizer.train(
        (SENTENCES + texts) * 9, 380, SentencePieceOptions(model=model), tmp_path, 1
    )
    rows = tokenizer.encode_batch(texts)
    assert not set(rows.values.tolist()) & set(tokenizer.reserved())
    assert tokenizer.decode_batch(rows.rows) == texts


def test_special_ids_decode_to_nothing(tokenizer: SentencePieceTokenizer) -> None:
    row = tokenizer.encode_batch([SENTENCES[0]]).values.tolist()
    framed = [1, *row[:3], 5, 3, *row[3:], 1, 2, 2]
    assert tokenizer.decode_batch([framed, [], list(range(14))]) == [SENTENCES[0], "", ""]
    assert tokenizer.decode_batch([]) == []
    assert tokenizer.decode_batch([np.array(framed)]) == [SENTENCES[0]]
    with pytest.raises(DataError, match="380"):
        tokenizer.decode_batch([[380]])


def test_a_continuation_gets_no_extra_word_boundary(
    tokenizer: SentencePieceTokenizer,
) -> None:
    assert pieces(tokenizer, "word")[0].startswith("▁")
    assert not pieces(tokenizer, "word", continues=True)[0].startswith("▁")
    assert pieces(tokenizer, " word", continues=True) == pieces(tokenizer, "word")
    for begin, rest in (("In the beg", "inning was"), ("In the", " beginning was")):
        first = tokenizer.encode_batch([begin]).values
        second = tokenizer.encode_batch([rest], continues=True).values
        joined = [*first.tolist(), *second.tolist()]
        assert tokenizer.decode_batch([joined]) == [begin + rest]


def test_empty_texts_keep_their_rows(tokenizer: SentencePieceTokenizer) -> None:
    rows = tokenizer.encode_batch(["", "word", "  "])
    assert rows.lengths[[0, 2]].tolist() == [0, 0]
    assert rows.lengths[1] > 0
    assert tokenizer.encode_batch([]).n_rows == 0


def test_the_same_text_gives_the_same_model_for_any_number_of_workers(tmp_path: Path) -> None:
    models = set()
    for workers in (1, 2, 7):
        options = SentencePieceOptions()
        SentencePieceTokenizer.train(SENTENCES * 3, 380, options, tmp_path, workers)
        models.add((tmp_path / MODEL_NAME).read_bytes())
    assert len(models) == 1


def test_it_can_be_saved_and_pickled(tokenizer: SentencePieceTokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [MODEL_NAME]
    for copy in (SentencePieceTokenizer.load(tmp_path), pickle.loads(pickle.dumps(tokenizer))):
        assert copy.fingerprint == tokenizer.fingerprint
        assert copy.tokens() == tokenizer.tokens()
        rows = copy.encode_batch(SENTENCES)
        np.testing.assert_array_equal(rows.values, tokenizer.encode_batch(SENTENCES).values)


def test_another_vocabulary_has_another_fingerprint(
    tokenizer: SentencePieceTokenizer, tmp_path: Path
) -> None:
    assert len(tokenizer.fingerprint) == 16
    assert trained(tmp_path, 379).fingerprint != tokenizer.fingerprint


@pytest.mark.parametrize("damage", ["missing", "truncated", "noise", "empty"])
def test_a_damaged_model_is_refused(
    tokenizer: SentencePieceTokenizer, tmp_path: Path, damage: str
) -> None:
    tokenizer.save(tmp_path)
    path = tmp_path / MODEL_NAME
    whole = path.read_bytes()
    content = {"truncated": whole[: len(whole) // 2], "noise": b"x" * 99, "empty": b""}
    path.unlink() if damage == "missing" else path.write_bytes(content[damage])
    with pytest.raises(BundleError, match=r"sentencepiece\.model") as error:
        SentencePieceTokenizer.load(tmp_path)
    assert error.value.remedy


@pytest.mark.parametrize("model", ["unigram", "bpe"])
@pytest.mark.parametrize("size", [20, 8000])
def test_an_impossible_size_names_one_that_works(tmp_path: Path, model: str, size: int) -> None:
    with pytest.raises(DataError, match="SentencePiece says") as error:
        trained(tmp_path, size, model=model)
    assert list(tmp_path.iterdir()) == []
    works = error.value.remedy.split()[1].strip(",")
    assert error.value.remedy.startswith("--vocab-size ")
    assert len(trained(tmp_path, int(works), model=model).tokens()) == int(works)


@pytest.mark.parametrize("texts", [[], ["", " "]])
def test_missing_text_is_reported(tmp_path: Path, texts: list[str]) -> None:
    with pytest.raises(DataError, match="no text"):
        SentencePieceTokenizer.train(texts, 380, SentencePieceOptions(), tmp_path, 1)


def test_an_error_of_the_text_source_comes_through(tmp_path: Path) -> None:
    def broken() -> Iterator[str]:
        yield "fine"
        raise DataError("line 2 is not UTF-8")

    with pytest.raises(DataError, match="line 2"):
        SentencePieceTokenizer.train(broken(), 380, SentencePieceOptions(), tmp_path, 1)


def test_training_is_silent(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    trained(tmp_path)
    with pytest.raises(DataError):
        trained(tmp_path, 8000)
    assert capfd.readouterr() == ("", "")


def test_real_text_survives(tmp_path: Path) -> None:
    texts = [t for language in ("en", "fr", "de") for t in embedded_sentences("valid", language)]
    tokenizer = SentencePieceTokenizer.train(
        texts, 1500, SentencePieceOptions(normalisation="nfkc"), tmp_path, 1
    )
    rows = tokenizer.encode_batch(texts)
    assert tokenizer.decode_batch(rows.rows) == [" ".join(text.split()) for text in texts]
    assert 2.5 < sum(map(len, texts)) / len(rows.values) < 6  # characters per piece
