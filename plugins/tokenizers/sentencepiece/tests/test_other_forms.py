# ruff: noqa: RUF001 (text in several scripts)
"""XLM-R's layout of ids, and the same tokenizer in Hugging Face's files."""

from __future__ import annotations

import io
import json
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentencepiece
from xlm_sentencepiece import SentencePieceOptions
from xlm_sentencepiece.model_file import Specification, read_specification
from xlm_sentencepiece.tokenizer import MODEL_NAME, SentencePieceTokenizer

from xlm_plugins import BundleError, DataError

SENTENCES = [
    "In the beginning was the word, and the word was short.",
    "Am Anfang war das Wort, und das Wort war kürzer als gedacht.",
    "Au début était le mot, et l'été fut très léger.",
    "В начале было слово, и слово было коротким.",
    "आदि में वचन था",
    "太初有道，道與神同在。",
    "ในปฐมกาลพระวาทะทรงดำรงอยู่",
]
STRANGE = [
    "",
    "  two  spaces ",
    "\ttab",
    "MiXeD Case, 1,000.50!",
    "🐢 and 𓀀",
    "ﬁ ½ ｆｕｌｌ",
    "Ξένος",
]


def learned(**options: Any) -> bytes:
    """A model like XLM-R's: `<unk> <s> </s>`, then the pieces."""
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES * 3),
        model_writer=written,
        minloglevel=2,
        hard_vocab_limit=False,
        **({"vocab_size": 200} | options),
    )
    return written.getvalue()


@pytest.fixture(scope="module")
def model() -> bytes:
    return learned()


@pytest.fixture
def tokenizer(model: bytes) -> SentencePieceTokenizer:
    return SentencePieceTokenizer(model)


def ids(tokenizer: SentencePieceTokenizer, texts: Sequence[str]) -> list[list[int]]:
    return [row.tolist() for row in tokenizer.encode_batch(texts).rows]


def test_xlm_rs_ids_are_sentencepieces_plus_one(
    tokenizer: SentencePieceTokenizer, model: bytes
) -> None:
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    for text, row in zip(SENTENCES, ids(tokenizer, SENTENCES), strict=True):
        assert row == [i + 1 if i else 3 for i in processor.encode(text)]
    mask = len(processor) + 1
    tokens = tokenizer.tokens()
    assert tokens[:4] == ["<s>", "<pad>", "</s>", "<unk>"]
    assert tokens[4:mask] == [processor.id_to_piece(i) for i in range(3, len(processor))]
    assert tokens[mask:] == ["<mask>"]
    roles = tokenizer.vocabulary().roles
    assert roles == {"bos": 0, "pad": 1, "eos": 2, "unk": 3, "sep": 2, "mask": mask, "begin": 0}
    assert tokenizer.frame == (0, 2)
    assert tokenizer.reserved() == (0, 1, 2, mask)  # without bytes, text can encode to <unk>


def test_xlm_rs_ids_come_back_as_text(tokenizer: SentencePieceTokenizer) -> None:
    plain = SENTENCES[:4]
    rows = [[0, *row, 2, 1, len(tokenizer.tokens()) - 1] for row in ids(tokenizer, plain)]
    assert tokenizer.decode_batch(rows) == plain
    with pytest.raises(DataError, match=str(len(tokenizer.tokens()))):
        tokenizer.decode_batch([[len(tokenizer.tokens())]])


def test_xlm_rs_layout_goes_with_the_tokenizer(
    tokenizer: SentencePieceTokenizer, tmp_path: Path
) -> None:
    tokenizer.save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [MODEL_NAME]
    for copy in (SentencePieceTokenizer.load(tmp_path), pickle.loads(pickle.dumps(tokenizer))):
        assert copy.frame == (0, 2)
        assert ids(copy, SENTENCES + STRANGE) == ids(tokenizer, SENTENCES + STRANGE)
    begin, rest = tokenizer.encode_batch(["In the beg"]), tokenizer.encode_batch(
        ["inning"], continues=True
    )  # fmt: skip
    joined = np.concatenate([begin.values, rest.values])
    assert tokenizer.decode_batch([joined]) == ["In the beginning"]


def test_a_model_with_another_layout_of_ids_is_refused() -> None:
    with pytest.raises(BundleError, match="begins with the pieces") as error:
        SentencePieceTokenizer(learned(pad_id=0, unk_id=1, bos_id=2, eos_id=3))
    assert "<unk> <s> </s>" in error.value.expected


@pytest.mark.parametrize(
    ("options", "specification"),
    [
        ({}, ("unigram", True, True)),
        ({"model_type": "bpe"}, ("bpe", True, True)),
        ({"add_dummy_prefix": False}, ("unigram", False, True)),
        ({"remove_extra_whitespaces": False}, ("unigram", True, False)),
    ],
    ids=str,
)
def test_a_model_file_specifies_how_it_tokenizes(
    options: dict[str, Any], specification: tuple[str, bool, bool]
) -> None:
    found = read_specification(learned(**options))
    assert (found.kind, found.begins_with_space, found.drops_spaces) == specification
    assert len(found.charsmap) > 1000
    assert read_specification(learned(normalization_rule_name="identity")).charsmap == b""


def test_the_last_of_repeated_messages_counts(model: bytes) -> None:
    assert read_specification(model + b"\x1a\x02\x18\x00").begins_with_space is False
    assert read_specification(b"") == Specification("unigram")


def test_other_types_cannot_be_exported() -> None:
    with pytest.raises(BundleError, match="type 3"):
        SentencePieceTokenizer(learned(model_type="word", vocab_size=60)).to_hugging_face()


@pytest.mark.parametrize("normalisation", ["nmt_nfkc", "nfkc_cf", "identity"])
@pytest.mark.parametrize("layout", ["xlm", "xlm without bytes", "xlm-r"])
@pytest.mark.parametrize("kind", ["unigram", "bpe"])
def test_hugging_faces_tokenizer_gives_the_same_ids_and_texts(
    tmp_path: Path, kind: str, layout: str, normalisation: str
) -> None:
    pytest.importorskip("tokenizers")
    if layout == "xlm-r":
        model = learned(model_type=kind, normalization_rule_name=normalisation)
        tokenizer = SentencePieceTokenizer(model)
    else:
        options = SentencePieceOptions(kind, "without" not in layout, normalisation=normalisation)
        size = 105 if "without" in layout else 360
        tokenizer = SentencePieceTokenizer.train(SENTENCES * 3, size, options, tmp_path, 1)
    theirs = tokenizer.to_hugging_face()
    rows = ids(tokenizer, SENTENCES + STRANGE)
    assert [found.ids for found in theirs.encode_batch(SENTENCES + STRANGE)] == rows
    assert theirs.get_vocab_size() == len(tokenizer.tokens())
    known = [row for row in rows if tokenizer.special("unk") not in row]
    assert len(known) > len(SENTENCES)
    assert [theirs.decode(row) for row in known] == tokenizer.decode_batch(known)


def test_spelled_out_bytes_stay_text_there(tmp_path: Path) -> None:
    pytest.importorskip("tokenizers")
    texts = ["<0x41> a", "<special5> b"]
    tokenizer = SentencePieceTokenizer.train(
        (SENTENCES + texts) * 3, 366, SentencePieceOptions(), tmp_path, 1
    )
    found = [encoding.ids for encoding in tokenizer.to_hugging_face().encode_batch(texts)]
    assert found == ids(tokenizer, texts)


def test_a_model_is_made_from_a_tokenizer_json(
    tokenizer: SentencePieceTokenizer, tmp_path: Path
) -> None:
    pytest.importorskip("tokenizers")
    tokenizer.to_hugging_face().save(str(tmp_path / "tokenizer.json"))
    again = SentencePieceTokenizer.from_hugging_face(tmp_path)
    assert again is not None
    assert again.tokens() == tokenizer.tokens()
    assert ids(again, SENTENCES + STRANGE) == ids(tokenizer, SENTENCES + STRANGE)
    again.save(tmp_path)
    assert SentencePieceTokenizer.load(tmp_path).fingerprint == again.fingerprint


def test_other_tokenizers_are_left_to_others(tmp_path: Path) -> None:
    assert SentencePieceTokenizer.from_hugging_face(tmp_path) is None
    path = tmp_path / "tokenizer.json"
    for model in ({"type": "BPE", "vocab": {"a": 0}}, {"type": "Unigram", "vocab": [["a", 0.0]]}):
        path.write_text(json.dumps({"model": model}))
        assert SentencePieceTokenizer.from_hugging_face(tmp_path) is None
    path.write_text("{")
    with pytest.raises(BundleError, match=r"tokenizer\.json"):
        SentencePieceTokenizer.from_hugging_face(tmp_path)
    (tmp_path / "sentencepiece.bpe.model").write_bytes(b"no model")
    with pytest.raises(BundleError, match=r"sentencepiece\.bpe\.model"):
        SentencePieceTokenizer.from_hugging_face(tmp_path)
