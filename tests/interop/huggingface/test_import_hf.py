# ruff: noqa: RUF001 (text in several scripts)
"""Encoders of transformers as bundles, compared with what transformers computes."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
import torch
from helpers.roberta_models import SMALL, imported, random_model, xlm_r_pieces
from safetensors.torch import load_file, save_file

from xlm_plugins.cli.main import main
from xlm_plugins.data.prepare.embedded import embedded_sentences
from xlm_plugins.inference.loaded_model import LoadedModel

transformers = pytest.importorskip("transformers")


TOLERANCE = {"rtol": 0, "atol": 1e-5}
TEXTS = ["In the beginning God created", "l'été à Noël, 1,000.50 fois", "<s> 🐢", ""]
REAL_MODEL = "XLM_TEST_XLMR_SENTENCEPIECE"
SIZES = {
    "small": SMALL,
    "one layer": {"hidden_size": 12, "num_hidden_layers": 1, "num_attention_heads": 3},
    "wide": {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2},
}


@pytest.fixture(scope="module")
def pieces() -> bytes:
    pieces: bytes = xlm_r_pieces()
    return pieces


def written(folder: Path, pieces: bytes, kind: str = "XLMRobertaForMaskedLM", **shape: Any) -> Any:
    """Save a random model and its tokenizer into a folder, and return the model."""
    processor = sentencepiece.SentencePieceProcessor(model_proto=pieces)
    shape = {**SIZES["small"], "type_vocab_size": 1, **shape}
    model = random_model(kind, len(processor) + 2, **shape)
    model.save_pretrained(folder)
    (folder / "sentencepiece.bpe.model").write_bytes(pieces)
    return model


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory, pieces: bytes) -> Path:
    """A folder with a small model.  For reading only."""
    folder = tmp_path_factory.mktemp("plain")
    written(folder, pieces)
    return folder


def copied(plain: Path, to: Path, leave: str = "") -> Path:
    folder = to / "copy"
    shutil.copytree(plain, folder, ignore=shutil.ignore_patterns(leave))
    return folder


def assert_alike(model: LoadedModel, theirs: Any, tokenizer: Any) -> None:
    """All layers' states and the scores of padded texts equal those of transformers."""
    inputs = tokenizer(TEXTS, padding=True, return_tensors="pt")
    real = inputs["attention_mask"].bool()
    with torch.no_grad():
        expected = theirs(**inputs, output_hidden_states=True)
        states = model.extract_features(inputs["input_ids"], return_all_hiddens=True)
        scores = model.bundle.model.stack("encoder").scores(states[-1][real])
    assert len(states) == len(expected.hidden_states)
    for found, wanted in zip(states, expected.hidden_states, strict=True):
        torch.testing.assert_close(found[real], wanted[real], **TOLERANCE)
    if "logits" in expected:
        torch.testing.assert_close(scores, expected.logits[real], **TOLERANCE)


@pytest.mark.parametrize("kind", ["XLMRobertaForMaskedLM", "RobertaForMaskedLM", "XLMRobertaModel"])
@pytest.mark.parametrize("size", SIZES)
def test_states_scores_and_ids_are_those_of_transformers(
    tmp_path: Path, pieces: bytes, size: str, kind: str
) -> None:
    theirs = written(tmp_path / "hf", pieces, kind, **SIZES[size], type_vocab_size=2)
    tokenizer = transformers.XLMRobertaTokenizer.from_pretrained(tmp_path / "hf")
    model = imported(tmp_path / "hf")
    assert_alike(model, theirs, tokenizer)
    for text in TEXTS[:2]:
        assert model.encode(text).tolist() == tokenizer(text)["input_ids"]
        assert model.decode(model.encode(text)) == tokenizer.decode(
            tokenizer(text)["input_ids"], skip_special_tokens=True
        )


def test_pieces_are_shifted_as_xlm_r_shifts_them(plain: Path, pieces: bytes) -> None:
    model = imported(plain)
    processor = sentencepiece.SentencePieceProcessor(model_proto=pieces)
    for text in TEXTS:
        shifted = [i + 1 if i else 3 for i in processor.encode(text)]
        assert model.encode(text).tolist() == [0, *shifted, 2]
    roles = model.bundle.description.vocabulary.roles
    wanted = {"bos": 0, "pad": 1, "eos": 2, "unk": 3, "mask": len(processor) + 1}
    assert {role: roles[role] for role in wanted} == wanted
    filled = model.fill_mask("In the <mask> God created", top=3)
    assert len(filled[0]) == 3


def test_perplexity_is_measured_on_text_of_any_language(
    plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for language in ("en", "fr"):
        lines = embedded_sentences("valid", language)[:40]
        (tmp_path / f"valid.{language}.txt").write_text("\n".join(lines) + "\n")
        (tmp_path / f"train.{language}.txt").write_text("\n".join(lines) + "\n")
    bundle, data = str(tmp_path / "bundle"), str(tmp_path / "data")
    assert main(["import", "hf", str(plain), bundle]) == 0
    assert main(["prepare", str(tmp_path), data, "--tokenizer-from", bundle]) == 0
    capsys.readouterr()
    assert main(["evaluate", bundle, "--data", data]) == 2
    told = capsys.readouterr().err
    assert "no text in 'test' to measure mlm on" in told
    assert "hint: --split valid, or add such text" in told
    assert main(["evaluate", bundle, "--data", data, "--split", "valid", "--json"]) == 0
    metrics = json.loads(capsys.readouterr().out)
    assert metrics["valid_mlm_ppl"] > 100  # it is random, and has about 300 tokens
    assert {"valid_en_mlm_ppl", "valid_fr_mlm_ppl", "valid_en_mlm_acc"} <= metrics.keys()


@pytest.mark.parametrize("form", ["pickle", "sharded", "half"])
def test_weights_in_other_files_are_the_same(plain: Path, tmp_path: Path, form: str) -> None:
    folder = copied(plain, tmp_path, "model.safetensors")
    weights = load_file(plain / "model.safetensors")
    if form == "pickle":
        torch.save(weights, folder / "pytorch_model.bin")
    elif form == "half":
        save_file({n: t.bfloat16() for n, t in weights.items()}, folder / "model.safetensors")
        weights = {name: tensor.bfloat16().float() for name, tensor in weights.items()}
    else:
        names = sorted(weights)
        where = {name: f"part-{i % 2}.safetensors" for i, name in enumerate(names)}
        for part in set(where.values()):
            save_file({n: weights[n] for n in names if where[n] == part}, folder / part)
        index = folder / "model.safetensors.index.json"
        index.write_text(json.dumps({"weight_map": where}))
    tokens = imported(folder).bundle.model.stack("encoder").embeddings.tokens.weight
    wanted = weights["roberta.embeddings.word_embeddings.weight"]
    torch.testing.assert_close(tokens, wanted, rtol=0, atol=0, check_dtype=True)


def test_a_fast_tokenizer_alone_gives_the_same_ids(plain: Path, tmp_path: Path) -> None:
    folder = copied(plain, tmp_path, "sentencepiece.bpe.model")
    tokenizer = transformers.XLMRobertaTokenizerFast.from_pretrained(plain)
    tokenizer.save_pretrained(folder)
    (folder / "sentencepiece.bpe.model").unlink(missing_ok=True)  # transformers 4 writes both
    model = imported(folder)
    for text in [*TEXTS[:2], *embedded_sentences("test", "fr")[:20]]:
        assert model.encode(text).tolist() == tokenizer(text)["input_ids"]


@pytest.mark.skipif(REAL_MODEL not in os.environ, reason=f"{REAL_MODEL} names no file")
@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("Hello world!", [0, 35378, 8999, 38, 2]),
        ("你好，世界", [0, 6, 124084, 4, 3221, 2]),
        ("नमस्ते दुनिया", [0, 68700, 97883, 29405, 2]),
        ("مرحبا بالعالم", [0, 665, 193478, 258, 1705, 77796, 2]),
        ("Bonjour le monde", [0, 84602, 95, 11146, 2]),
    ],
)
def test_xlm_rs_own_model_gives_the_published_ids(
    tmp_path: Path, text: str, ids: list[int]
) -> None:
    from xlm_sentencepiece.tokenizer import MODEL_NAME, SentencePieceTokenizer

    shutil.copy(os.environ[REAL_MODEL], tmp_path / MODEL_NAME)
    tokenizer = SentencePieceTokenizer.load(tmp_path)
    (row,) = tokenizer.encode_batch([text]).framed(*tokenizer.frame).rows
    assert row.tolist() == ids
    assert tokenizer.decode_batch([ids]) == [text if text != "你好，世界" else "你好,世界"]


def test_tokens_of_another_kind_are_refused(
    plain: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    folder = copied(plain, tmp_path, "sentencepiece.bpe.model")
    (folder / "vocab.json").write_text(json.dumps({"<s>": 0, "the": 1}))
    (folder / "merges.txt").write_text("t h\n")
    refused(["import", "hf", folder, "out"], "XLM's tokenizer")


def changed_config(folder: Path, **values: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.mark.parametrize(
    ("values", "facts"),
    [
        ({"hidden_act": "silu"}, ("silu", "gelu")),
        ({"model_type": "bert", "architectures": ["BertModel"]}, ("BertModel", "XLMRobertaModel")),
        (
            {"architectures": ["XLMRobertaForSequenceClassification"]},
            ("XLMRobertaForSequenceClassification", "XLMRobertaForMaskedLM", "XLMWithLMHeadModel"),
        ),
        (
            {"model_type": "camembert", "architectures": ["CamembertForMaskedLM"]},
            ("camembert", "CamembertForMaskedLM", "RobertaForMaskedLM"),
        ),
        ({"is_decoder": True}, ("decoder",)),
        ({"position_embedding_type": "relative_key"}, ("relative_key", "absolute")),
        ({"num_attention_heads": 5}, ("32", "5")),
        ({"num_hidden_layers": 4}, ("encoder.layer.3",)),
        ({"num_hidden_layers": 2}, ("encoder.layer.2", "no counterpart")),
        ({"pad_token_id": 0}, ("pad", "0", "1")),
        ({"hidden_size": "wide"}, ("dim", "wide")),
    ],
    ids=str,
)
def test_another_architecture_is_refused(
    plain: Path,
    tmp_path: Path,
    refused: Callable[..., str],
    values: dict[str, Any],
    facts: tuple[str, ...],
) -> None:
    folder = copied(plain, tmp_path)
    changed_config(folder, **values)
    refused(["import", "hf", folder, "out"], *facts)


def test_a_vocabulary_of_another_size_is_reported_with_both(
    plain: Path, pieces: bytes, tmp_path: Path, refused: Callable[..., str]
) -> None:
    folder = copied(plain, tmp_path)
    weights = load_file(plain / "model.safetensors")
    for name in ("roberta.embeddings.word_embeddings.weight", "lm_head.bias"):
        weights[name] = weights[name][:-7]
    save_file(weights, folder / "model.safetensors")
    refused(["import", "hf", folder, "out"], "302", "295")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "sentencepiece.bpe.model"])
@pytest.mark.parametrize("damage", ["missing", "truncated"])
def test_a_damaged_folder_is_refused(
    plain: Path, tmp_path: Path, refused: Callable[..., str], name: str, damage: str
) -> None:
    folder = copied(plain, tmp_path)
    path = folder / name
    whole = path.read_bytes()
    path.unlink() if damage == "missing" else path.write_bytes(whole[: len(whole) // 2])
    refused(["import", "hf", folder, "out"], folder)


def test_an_index_that_leads_out_of_the_folder_is_refused(
    plain: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    folder = copied(plain, tmp_path, "model.safetensors")
    index = {"weight_map": {"a": str(plain / "model.safetensors")}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    refused(["import", "hf", folder, "out"], "index", plain)


def test_a_pickle_that_runs_code_is_refused(
    plain: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    class Malicious:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(tmp_path / "it ran"),)

    folder = copied(plain, tmp_path, "model.safetensors")
    torch.save({"roberta.x": Malicious()}, folder / "pytorch_model.bin")
    refused(["import", "hf", folder, "out"], "pytorch_model.bin", "mkdir")


def test_a_missing_model_and_an_existing_out_are_reported(
    plain: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    refused(["import", "hf", "nowhere", "out"], "nowhere")
    (tmp_path / "empty").mkdir()
    refused(["import", "hf", "empty", "out"], "config.json", "model.pt")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "something").touch()
    refused(["import", "hf", plain, "out"], "out already exists")
