# ruff: noqa: RUF001 (text in several scripts)
"""RoBERTa with its byte-level BPE: imported, used and exported, compared with transformers."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.roberta_models import SMALL, imported, random_model
from safetensors.torch import load_file
from tokenizers import ByteLevelBPETokenizer

from xlm_plugins.cli.main import main
from xlm_plugins.data.prepare.embedded import embedded_sentences
from xlm_plugins.inference.loaded_model import load
from xlm_plugins.interop.huggingface import export
from xlm_plugins.interop.huggingface.reload import compare

transformers = pytest.importorskip("transformers")


TOLERANCE = {"rtol": 0, "atol": 1e-5}
SPECIALS = ["<s>", "<pad>", "</s>", "<unk>"]
TEXTS = ["Hello world!", "In the beginning God", " l'été à Noël, 1,000.50 fois", "🐢\n", ""]
REAL_MODEL = "XLM_TEST_ROBERTA"
NASTY = [
    "  two  spaces \t\ttabs and\u00a0others\u2003 here ",
    "e\u0301\u0308 a\u0300",
    "\0\x07\x1c \x85",
    "he's she'll WE'RE 'tis",
    "👩‍👩‍👧🏽🇩🇪 \ufeff",
    "x²½Ⅷ٣",
    "太初有道，道與神同在。",
    "मे\u0902 वचन",
    "\n \n a",
]
SIZES: dict[str, dict[str, Any]] = {
    "small": SMALL,
    "one layer": {"hidden_size": 12, "num_hidden_layers": 1, "num_attention_heads": 3},
    "wide": {
        "hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2, "type_vocab_size": 2,
    },
}  # fmt: skip


def sentences(split: str, n_sentences: int) -> list[str]:
    languages = (embedded_sentences(split, language) for language in ("en", "fr", "de"))
    return [text for texts in languages for text in texts[:n_sentences]]


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """vocab.json and merges.txt with ids as in RoBERTa.  For reading only."""
    folder = tmp_path_factory.mktemp("tokenizer")
    trained = ByteLevelBPETokenizer()
    trained.train_from_iterator(sentences("train", 200), 595, show_progress=False)
    trained.save_model(str(folder))
    ids = trained.get_vocab(with_added_tokens=False)
    tokens = [*SPECIALS, *sorted(ids, key=ids.__getitem__), "<mask>"]
    (folder / "vocab.json").write_text(json.dumps({t: i for i, t in enumerate(tokens)}))
    return folder


def written(folder: Path, tokenizer: Path, kind: str = "RobertaForMaskedLM", **shape: Any) -> Any:
    """Save a random model with a tokenizer into a folder, and return the model."""
    model = random_model(kind, 600, **(SIZES["small"] | shape))
    model.save_pretrained(folder)
    shutil.copytree(tokenizer, folder, dirs_exist_ok=True)
    return model


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory, learned: Path) -> Path:
    """A folder with a small RoBERTa.  For reading only."""
    folder = tmp_path_factory.mktemp("plain")
    written(folder, learned)
    return folder


@pytest.fixture(scope="module")
def bundle(plain: Path) -> Path:
    """`plain`, imported.  For reading only."""
    imported(plain)
    return plain.with_name(f"{plain.name}-bundle")


def copied(plain: Path, to: Path, leave: str = "") -> Path:
    folder = to / "copy"
    shutil.copytree(plain, folder, ignore=shutil.ignore_patterns(leave))
    return folder


@pytest.mark.parametrize("size", SIZES)
def test_states_scores_and_ids_are_those_of_transformers(
    tmp_path: Path, learned: Path, size: str
) -> None:
    theirs = written(tmp_path / "hf", learned, **SIZES[size])
    model = imported(tmp_path / "hf")
    tokenizer = transformers.RobertaTokenizerFast.from_pretrained(tmp_path / "hf")
    inputs = tokenizer(TEXTS, padding=True, return_tensors="pt")
    real = inputs["attention_mask"].bool()
    with torch.no_grad():
        expected = theirs(**inputs, output_hidden_states=True)
        states = model.extract_features(inputs["input_ids"], return_all_hiddens=True)
        scores = model.bundle.model.stack("encoder").scores(states[-1][real])
    assert len(states) == len(expected.hidden_states)
    for found, wanted in zip(states, expected.hidden_states, strict=True):
        torch.testing.assert_close(found[real], wanted[real], **TOLERANCE)
    torch.testing.assert_close(scores, expected.logits[real], **TOLERANCE)
    for text in TEXTS:
        assert model.encode(text).tolist() == tokenizer(text)["input_ids"]
        assert model.decode(model.encode(text)) == text


@pytest.mark.parametrize("form", ["vocab.json and merges.txt", "tokenizer.json"])
def test_real_and_difficult_text_has_the_ids_of_transformers(
    plain: Path, tmp_path: Path, form: str
) -> None:
    folder = copied(plain, tmp_path)
    tokenizer = transformers.RobertaTokenizerFast.from_pretrained(folder)
    if form == "tokenizer.json":
        for name in ("vocab.json", "merges.txt"):
            (folder / name).unlink()
        tokenizer.save_pretrained(folder)
    own = imported(folder).bundle.tokenizer
    texts = [*TEXTS, *NASTY, *sentences("test", 150)]
    rows = [row.tolist() for row in own.encode_batch(texts).rows]
    assert rows == tokenizer(texts, add_special_tokens=False)["input_ids"]
    assert own.decode_batch(rows) == texts


@pytest.mark.skipif(REAL_MODEL not in os.environ, reason=f"{REAL_MODEL} names no folder")
@pytest.mark.parametrize(("text", "word"), [("Hello world", 31414), (" Hello world", 20920)])
def test_robertas_own_files_give_the_published_ids(text: str, word: int) -> None:
    from xlm_bytebpe.tokenizer import ByteBPE

    tokenizer = ByteBPE.from_hugging_face(Path(os.environ[REAL_MODEL]))
    assert tokenizer is not None
    assert tokenizer.encode_batch([text]).framed(*tokenizer.frame).values.tolist() == [
        0, word, 232, 2
    ]  # fmt: skip
    assert tokenizer.special("mask") == 50264


def test_masks_are_filled_as_transformers_fills_them(plain: Path, bundle: Path) -> None:
    model = load(bundle)
    theirs = transformers.RobertaForMaskedLM.from_pretrained(plain)
    pipeline = transformers.pipeline(
        "fill-mask",
        model=theirs,
        tokenizer=transformers.RobertaTokenizerFast.from_pretrained(plain),
    )
    text = "In the<mask> God created"  # read from vocab.json, their mask does not absorb a space
    (ours,) = model.fill_mask("In the <mask> God created", top=5)
    found = [guess for guess in pipeline(text, top_k=10) if guess["token"] not in (0, 1, 2, 3, 599)]
    tokens = model.bundle.tokenizer.tokens()
    assert [filling.token for filling in ours] == [tokens[guess["token"]] for guess in found[:5]]
    assert [filling.text for filling in ours] == [guess["sequence"] for guess in found[:5]]


@pytest.mark.parametrize("prefix_space", [False, True])
def test_it_survives_export_and_import(
    plain: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    prefix_space: bool,
) -> None:
    monkeypatch.setattr(export, "compare_in_new_process", compare)  # which would take seconds
    folder = copied(plain, tmp_path)
    (folder / "tokenizer_config.json").write_text(json.dumps({"add_prefix_space": prefix_space}))
    model = imported(folder)
    assert main(["export", "hf", str(folder) + "-bundle", str(tmp_path / "hf")]) == 0
    reported = capsys.readouterr().err
    assert "loaded as RobertaForMaskedLM" in reported
    assert "sample texts whose token ids differ: 0" in reported
    assert_same_for_transformers(folder, tmp_path / "hf")
    shutil.rmtree(tmp_path / "hf" / export.OWN_TOKENIZER)
    again = imported(tmp_path / "hf")
    assert again.bundle.tokenizer.fingerprint == model.bundle.tokenizer.fingerprint
    first, second = (
        load_file(tmp_path / name / "model.safetensors") for name in ("copy-bundle", "hf-bundle")
    )
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def assert_same_for_transformers(given: Path, exported: Path) -> None:
    """The exported model has the same weights, and its tokenizer gives the same ids."""
    ours = transformers.AutoModelForMaskedLM.from_pretrained(exported)
    weights = transformers.RobertaForMaskedLM.from_pretrained(given).state_dict()
    types = "roberta.embeddings.token_type_embeddings.weight"  # ours has none: added to positions
    positions = "roberta.embeddings.position_embeddings.weight"
    for name, tensor in ours.state_dict().items():
        if name == positions:
            tensor, wanted = tensor[2:], weights[name][2:] + weights[types][0]
            torch.testing.assert_close(tensor, wanted, rtol=0, atol=0)
        elif name != types:
            torch.testing.assert_close(tensor, weights[name], rtol=0, atol=0)
    own = transformers.AutoTokenizer.from_pretrained(exported)
    theirs = transformers.RobertaTokenizerFast.from_pretrained(given)
    texts = [*TEXTS, *NASTY, *sentences("test", 30)]
    assert own(texts)["input_ids"] == theirs(texts)["input_ids"]
    assert own("a b", "c")["input_ids"] == theirs("a b", "c")["input_ids"]
    masked = own.convert_ids_to_tokens(own("the <mask> of")["input_ids"])
    assert "Ġ" not in masked
    assert masked[-3:-1] == ["<mask>", "Ġof"]


def test_a_run_starts_from_it(bundle: Path, tiny_source: Path, tmp_path: Path) -> None:
    shape = {"dim": 32, "n-layers": 3, "n-heads": 4, "ffn-dim": 40, "max-positions": 64}
    source = tmp_path / "source"
    source.mkdir()
    for split in ("train", "valid"):
        shutil.copy(tiny_source / f"{split}.en.txt", source)
    data, out = tmp_path / "data", tmp_path / "run"
    assert main(["prepare", str(source), str(data), f"--tokenizer-from={bundle}"]) == 0
    flags = [f"--{name}={value}" for name, value in shape.items()]
    command = [
        "train", "--objective=mlm", f"--data={data}", f"--out={out}", f"--init={bundle}", *flags,
        "--output-dense", "--no-language-embeddings", "--layer-norm-eps=1e-5", "--steps=2",
        "--batch-tokens=256", "--window=32", "--warmup=0", "--lr=1e-6", "--threads=1",
    ]  # fmt: skip
    assert main(command) == 0
    first, trained = (load(path).bundle.model.state_dict() for path in (bundle, out))
    assert first.keys() == trained.keys()
    for name, tensor in first.items():
        torch.testing.assert_close(trained[name], tensor, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", ["vocab.json", "merges.txt"])
@pytest.mark.parametrize("damage", ["missing", "truncated"])
def test_damaged_files_are_refused(
    plain: Path, tmp_path: Path, refused: Callable[..., str], name: str, damage: str
) -> None:
    folder = copied(plain, tmp_path)
    path = folder / name
    whole = path.read_text()
    path.unlink() if damage == "missing" else path.write_text(whole[: len(whole) // 2])
    refused(["import", "hf", folder, "out"], name if damage == "truncated" else "it has ")


def test_a_vocabulary_of_another_size_is_reported_with_both(
    plain: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    folder = copied(plain, tmp_path)
    ids = json.loads((folder / "vocab.json").read_text())
    tokens = [*list(ids)[:-1], *(f"madeupword{n:04}" for n in range(3)), "<mask>"]
    (folder / "vocab.json").write_text(json.dumps({t: i for i, t in enumerate(tokens)}))
    refused(["import", "hf", folder, "out"], "603", "600")


def test_another_type_of_tokenizer_is_named(
    plain: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    folder = copied(plain, tmp_path, "*.json")
    shutil.copy(plain / "config.json", folder)
    (folder / "merges.txt").unlink()
    tree = {
        "model": {"type": "WordPiece", "vocab": {}},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
    }
    (folder / "tokenizer.json").write_text(json.dumps(tree))
    refused(["import", "hf", folder, "out"], "WordPiece", "byte-level BPE")
