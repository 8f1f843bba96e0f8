"""Models for sentence-transformers: they make the vectors that `xlm embed` makes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from xlm_plugins.cli.main import main
from xlm_plugins.core.errors import BundleError, OptionError, PluginError, RunError
from xlm_plugins.core.plugins import Plugins
from xlm_plugins.core.saved_tokenizers import mark_tokenizer
from xlm_plugins.inference.embed import embed
from xlm_plugins.interop.huggingface import sentence_export
from xlm_plugins.interop.huggingface.export import SAMPLE
from xlm_plugins.interop.huggingface.sentence_export import SentenceExport
from xlm_plugins.interop.huggingface.sentence_reload import VectorDifferences, compare
from xlm_plugins.model.bundle import Bundle

sentence_transformers = pytest.importorskip("sentence_transformers")

Build = Callable[..., Bundle]

ROBERTA = {
    "layout": "xlm-r", "languages": (), "output_dense": True, "language_embeddings": False,
    "layer_norm_eps": 1e-5, "ffn_dim": 24,
}  # fmt: skip
MODELS: dict[str, dict[str, Any]] = {
    "one language": {"languages": ("en",)},
    "one of three languages": {},
    "no language embeddings": {"language_embeddings": False},
    "causal": {"objectives": ("clm",)},
    "xlm-r": ROBERTA,
}


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reload exports in this process: a new one takes seconds to import its libraries."""
    monkeypatch.setattr(sentence_export, "compare_in_new_process", compare)


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize("name", MODELS)
def test_vectors_are_those_of_embed(build: Build, tmp_path: Path, name: str) -> None:
    bundle = build(**MODELS[name])
    known = bundle.description.known_languages
    language = "fr" if known and len(known) > 1 else None
    found = SentenceExport.prepare(bundle, tmp_path / "st", language=language).write()
    assert found.largest < 1e-5
    assert found.texts == []
    model = sentence_transformers.SentenceTransformer(str(tmp_path / "st"), device="cpu")
    assert model.max_seq_length == 64
    texts = ["In the beginning", "was the word", "and  the word " * 40]
    ours = embed(bundle, texts, language)
    np.testing.assert_allclose(model.encode(texts), ours, rtol=0, atol=1e-5)
    assert np.abs(ours[0] - ours[1]).max() > 0.1


@pytest.mark.usefixtures("in_process")
def test_an_empty_text_has_the_state_of_eos(build: Build, tmp_path: Path) -> None:
    bundle = build(**ROBERTA)
    prepared = SentenceExport.prepare(bundle, tmp_path / "st")
    assert not any("empty text" in note for note in prepared.notes)
    prepared.write()
    model = sentence_transformers.SentenceTransformer(str(tmp_path / "st"), device="cpu")
    np.testing.assert_allclose(model.encode([""]), embed(bundle, [""]), rtol=0, atol=1e-5)


def test_where_both_ends_are_eos_the_empty_text_is_noted(build: Build, tmp_path: Path) -> None:
    bundle = build(languages=("en",))
    mean = SentenceExport.prepare(bundle, tmp_path / "st")
    first = SentenceExport.prepare(bundle, tmp_path / "st", pool="first")
    assert any("empty text" in note for note in mean.notes)
    assert not any("empty text" in note for note in first.notes)


@pytest.mark.usefixtures("in_process")
def test_the_first_state_normalized_with_prompts(build: Build, tmp_path: Path) -> None:
    bundle = build(languages=("en",))
    prompts = {"query": "was the "}
    SentenceExport.prepare(
        bundle, tmp_path / "st", pool="first", normalize=True, prompts=prompts
    ).write()
    model = sentence_transformers.SentenceTransformer(str(tmp_path / "st"), device="cpu")
    (found,) = model.encode(["word"], prompt_name="query")
    (ours,) = embed(bundle, ["was the word"], pool="first")
    np.testing.assert_allclose(found, ours / np.linalg.norm(ours), rtol=0, atol=1e-5)


@pytest.mark.usefixtures("in_process")
def test_xlms_own_tokenizer(build: Build, tmp_path: Path, plugins: Plugins) -> None:
    component = plugins.get("tokenizer", "fastbpe")
    (tmp_path / "learned").mkdir()
    learned = component.load().train(
        SAMPLE * 3, 200, component.options_from({}), tmp_path / "learned", 1
    )
    mark_tokenizer(component, learned, tmp_path / "learned")
    bundle = build(tmp_path / "learned", languages=("en",))
    assert SentenceExport.prepare(bundle, tmp_path / "st").write().largest < 1e-5


@pytest.mark.usefixtures("in_process")
def test_a_token_that_spells_eos_in_capitals_counts_in_full(
    build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = build(languages=("en",))
    forms = bundle.tokenizer.tokens()
    (row,) = bundle.tokenizer.encode_batch(["word"]).rows
    forms[row[0]] = forms[bundle.description.vocabulary.frame[1]].upper()
    monkeypatch.setattr(type(bundle.tokenizer), "tokens", lambda _: forms)
    exported = SentenceExport.prepare(bundle, tmp_path / "st")
    exported._write_modules(folder := tmp_path)
    module = sentence_transformers.models.WordWeights.load(str(folder / "1_WordWeights"))
    weights = module.emb_layer.weight[:, 0].tolist()
    assert weights[row[0]] == 1
    assert sum(weight < 1 for weight in weights) == 1  # this tokenizer's frame is EOS twice


def test_a_run_is_exported_and_reloaded_in_a_new_process(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--language=en", "--license=mit", "--prompt=query=ask: "]
    status = main(["export", "sentence-transformers", str(run), str(tmp_path / "st"), *arguments])
    reported = capsys.readouterr().err
    assert status == 0, reported
    assert "loaded as SentenceTransformer; the largest difference" in reported
    assert "sample texts whose token ids differ: 0" in reported
    card = (tmp_path / "st" / "README.md").read_text()
    for said in ('library_name: "sentence-transformers"', 'license: "mit"', "SentenceTransformer("):
        assert said in card
    config = json.loads((tmp_path / "st" / "config_sentence_transformers.json").read_text())
    assert config["prompts"] == {"query": "ask: "}
    assert main(["describe", str(tmp_path / "st")]) == 0
    assert "Transformer > WordWeights > Pooling" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "--language with one of en, fr"),
        (["--language=en", "--prompt=query"], "NAME=TEXT"),
        (["--language=en", "--prompt=a=1", "--prompt=a=2"], "two --prompt have the same name"),
        (["--language=zz"], "does not know it"),
    ],
)
def test_what_is_refused(
    run: Path, refused: Callable[..., str], arguments: list[str], said: str
) -> None:
    refused(["export", "sentence-transformers", run, "out", *arguments], said)


def test_a_model_that_makes_other_vectors_is_not_kept(
    build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = VectorDifferences(0.5, [])
    monkeypatch.setattr(sentence_export, "compare_in_new_process", lambda *_: found)
    prepared = SentenceExport.prepare(build(languages=("en",)), tmp_path / "new" / "st")
    with pytest.raises(RunError, match=r"differ by 0\.5"):
        prepared.write()
    assert list((tmp_path / "new").iterdir()) == []


@pytest.mark.usefixtures("in_process")
def test_a_difference_is_seen(
    build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Plain mean pooling, which counts BOS and EOS, makes other vectors."""
    monkeypatch.setattr(sentence_export, "_ALMOST_NONE", 1.0)
    with pytest.raises(RunError, match="other vectors than xlm embed"):
        SentenceExport.prepare(build(languages=("en",)), tmp_path / "st").write()


def test_a_pool_that_the_model_cannot_have_is_refused(build: Build, tmp_path: Path) -> None:
    causal = build(objectives=("clm",), languages=("en",))
    with pytest.raises(OptionError, match="causally"):
        SentenceExport.prepare(causal, tmp_path / "st", pool="first")


def test_a_tokenizer_without_an_equivalent_is_refused(
    build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("xlm_plugins.interop.huggingface.export.has_form", lambda _: False)
    with pytest.raises(BundleError, match="tokenizer"):
        SentenceExport.prepare(build(languages=("en",)), tmp_path / "st")


def test_without_sentence_transformers_the_extra_is_named(
    build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sentence_export, "find_spec", lambda _: None)
    with pytest.raises(PluginError) as error:
        SentenceExport.prepare(build(languages=("en",)), tmp_path / "st")
    assert "xlm-plugins[sentence-transformers]" in error.value.remedy
