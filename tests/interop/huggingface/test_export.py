"""Models for transformers and others: exported, reloaded, and imported again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file

from xlm_plugins.cli.main import main
from xlm_plugins.core.errors import BundleError, OptionError, PluginError, RunError
from xlm_plugins.core.plugins import Plugins
from xlm_plugins.core.saved_tokenizers import mark_tokenizer
from xlm_plugins.core.selection import Position
from xlm_plugins.inference.loaded_model import load
from xlm_plugins.interop.huggingface import export
from xlm_plugins.interop.huggingface.reload import Differences, compare
from xlm_plugins.model.bundle import Bundle
from xlm_plugins.model.description import PlacedLayer

if TYPE_CHECKING:
    pass

transformers = pytest.importorskip("transformers")


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reload exports in this process: a new one takes seconds to import transformers."""
    monkeypatch.setattr(export, "compare_in_new_process", compare)


Build = Callable[..., Bundle]

ROBERTA = {
    "layout": "xlm-r", "languages": (), "output_dense": True, "language_embeddings": False,
    "layer_norm_eps": 1e-5, "ffn_dim": 24,
}  # fmt: skip
MODELS: dict[str, dict[str, Any]] = {
    "languages": {},
    "one language": {"languages": ("en",)},
    "untied": {"tied_output": False},
    "sinusoidal, relu": {"position_embeddings": "sinusoidal", "activation": "relu"},
    "no language embeddings": {"language_embeddings": False},
    "causal": {"objectives": ("clm",)},
    "xlm-r": ROBERTA,
    "xlm-r, untied": ROBERTA | {"tied_output": False, "activation": "relu"},
    "xlm-r's tokenizer in xlm's model": {"layout": "xlm-r"},
}


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize("name", MODELS)
def test_weights_are_equal_after_export_and_import(
    build: Build, tmp_path: Path, plugins: Plugins, name: str
) -> None:
    bundle = build(**MODELS[name])
    found = export.Export.prepare(bundle, tmp_path / "hf").write()
    assert found.class_name == ("XLMRobertaForMaskedLM" if "xlm-r" in name[:5] and
                                "tokenizer" not in name else "XLMWithLMHeadModel")  # fmt: skip
    assert max(found.hidden, found.scores) < 1e-5
    assert found.texts == []
    assert main(["import", "hf", str(tmp_path / "hf"), str(tmp_path / "again")]) == 0
    again = Bundle.load(tmp_path / "again", plugins)
    ours, theirs = bundle.model.state_dict(), again.model.state_dict()
    assert ours.keys() == theirs.keys()
    for key, tensor in ours.items():
        torch.testing.assert_close(theirs[key], tensor, rtol=0, atol=0, msg=key)
    assert again.tokenizer.fingerprint == bundle.tokenizer.fingerprint
    assert again.objectives.keys() == bundle.objectives.keys()
    assert again.description.languages == bundle.description.languages


@pytest.mark.usefixtures("in_process")
def test_a_checkpoint_of_xlm_survives_export_and_import(
    golden_checkpoint: Callable[[str], Path], tmp_path: Path, plugins: Plugins
) -> None:
    for command in (
        ["import", "xlm", golden_checkpoint("encoder"), tmp_path / "bundle"],
        ["export", "hf", tmp_path / "bundle", tmp_path / "hf"],
        ["import", "hf", tmp_path / "hf", tmp_path / "again"],
    ):
        assert main([str(argument) for argument in command]) == 0
    folders = [tmp_path / name for name in ("bundle", "again")]
    first, again = (load_file(folder / "model.safetensors") for folder in folders)
    assert first.keys() == again.keys()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert load(folders[0]).language_ids == load(folders[1]).language_ids


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize("folds", [False, True])
def test_xlms_own_tokenizer_is_exported_as_xlms(
    build: Build, tmp_path: Path, plugins: Plugins, folds: bool
) -> None:
    component = plugins.get("tokenizer", "fastbpe")
    options = component.options_from({"lowercase": folds, "remove_accents": folds})
    (tmp_path / "learned").mkdir()
    learned = component.load().train(export.SAMPLE * 3, 200, options, tmp_path / "learned", 1)
    mark_tokenizer(component, learned, tmp_path / "learned")
    bundle = build(tmp_path / "learned", languages=("en",))
    found = export.Export.prepare(bundle, tmp_path / "hf").write()
    assert found.texts == []
    assert (tmp_path / "hf" / "vocab.json").is_file()
    shutil.rmtree(tmp_path / "hf" / export.OWN_TOKENIZER)
    assert main(["import", "hf", str(tmp_path / "hf"), str(tmp_path / "again")]) == 0
    again = load(tmp_path / "again")
    assert again.bundle.tokenizer.tokens() == learned.tokens()
    for text in export.SAMPLE:
        (row,) = learned.encode_batch([text]).framed(*learned.frame).rows
        assert again.encode(text).tolist() == row.tolist()


@pytest.mark.usefixtures("in_process")
def test_pairs_and_masks_are_tokenized_as_ours_are(build: Build, tmp_path: Path) -> None:
    for layout, model in (("xlm", {}), ("xlm-r", ROBERTA)):
        bundle = build(**model)
        export.Export.prepare(bundle, tmp_path / layout).write()
        tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / layout)
        roles = bundle.description.vocabulary.roles
        begin, end = bundle.description.vocabulary.frame
        first, second = (row.tolist() for row in bundle.tokenizer.encode_batch(["a b", "c"]).rows)
        between = [end] if begin == end else [end, end]
        pair = tokenizer("a b", "c")
        assert pair["input_ids"] == [begin, *first, *between, *second, end]
        assert "token_type_ids" not in pair
        masked = tokenizer(f"the {tokenizer.mask_token} of")["input_ids"]
        the, of = (row.tolist() for row in bundle.tokenizer.encode_batch(["the", "of"]).rows)
        assert masked == [begin, *the, roles["mask"], *of, end]
        assert tokenizer.pad_token_id == roles["pad"]
        shutil.rmtree(tmp_path / "bundle")
        shutil.rmtree(tmp_path / "source")


def test_a_run_fills_masks_in_transformers_as_it_does_here(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "hf"
    status = main(["export", "hf", str(run), str(out), "--language=en", "--license=mit"])
    reported = capsys.readouterr().err
    assert status == 0, reported
    assert "tlm restarted positions" in reported
    assert "loaded as XLMWithLMHeadModel" in reported
    assert "pooling is not part of it" in reported
    assert "sample texts whose token ids differ: 0" in reported
    pipeline = transformers.pipeline("fill-mask", model=str(out))
    special = set(pipeline.tokenizer.all_special_ids) | {*range(14)}
    for text in ("In the <mask> God created", "and <mask> said unto"):
        (ours,) = load(run).fill_mask(text, "en", top=5)
        given = text.replace("<mask>", pipeline.tokenizer.mask_token)
        found = pipeline(given, top_k=5 + len(special))
        best = [guess for guess in found if guess["token"] not in special][:5]
        tokens = [pipeline.tokenizer.convert_ids_to_tokens(guess["token"]) for guess in best]
        assert tokens == [filling.token for filling in ours]
        assert best[0]["sequence"] == ours[0].text
    assert_card((out / "README.md").read_text())


def assert_card(card: str) -> None:
    head, body = card.removeprefix("---\n").split("\n---\n")
    fields = {k: json.loads(v) for k, _, v in (line.partition(": ") for line in head.split("\n"))}
    assert fields["language"] == ["en"]
    assert fields["license"] == "mit"
    assert fields["metrics"] == ["perplexity"]
    assert "`data`, objectives `mlm`, `tlm:en-fr`, 12 updates." in body
    assert "- valid_mlm_ppl: " in body
    assert "/" not in body.partition("## Data")[2].partition("## Use")[0]


def test_the_card_of_a_model_with_several_languages_passes_one(
    build: Build, tmp_path: Path, in_process: None
) -> None:
    prepared = export.Export.prepare(build(), tmp_path / "hf")
    assert any("en = 0, fr = 1, de = 2" in note for note in prepared.notes)
    prepared.write()
    card = (tmp_path / "hf" / "README.md").read_text()
    assert "| fr | 1 |" in card
    assert 'inputs["langs"]' in card
    config = transformers.AutoConfig.from_pretrained(tmp_path / "hf")
    assert config.lang2id == {"en": 0, "fr": 1, "de": 2}


@pytest.mark.parametrize(
    ("model", "fact"),
    [
        ({"ffn_dim": 24}, "feed-forward layers of width 24"),
        ({"adaptive_cutoffs": (50, 100), "tied_output": False}, "adaptive softmax"),
        (ROBERTA | {"position_embeddings": "sinusoidal"}, "sinusoidal positions"),
        (ROBERTA | {"layout": "xlm"}, "begin with EOS"),
        (ROBERTA | {"languages": ("en", "fr"), "language_embeddings": True}, "with languages"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_model_without_a_class_is_refused_with_the_reason(
    build: Build, tmp_path: Path, model: dict[str, Any], fact: str
) -> None:
    with pytest.raises(BundleError, match="no class") as error:
        export.Export.prepare(build(**model), tmp_path / "hf")
    assert fact in error.value.problem
    assert "export safetensors" in error.value.remedy
    assert not (tmp_path / "hf").exists()


def test_decoders_and_layers_of_plugins_are_reported_together(
    build: Build, tmp_path: Path, plugins: Plugins
) -> None:
    bundle, pkm = build(), plugins.get("layer", "pkm")
    placed = PlacedLayer(Position("encoder", 1, False), pkm, pkm.options())
    described = replace(bundle.description, stacks=("encoder", "decoder"), layers=(placed,))
    with pytest.raises(BundleError) as error:
        export.Export.prepare(replace(bundle, description=described), tmp_path / "hf")
    for fact in ("decoder", f"pkm at {placed.position}"):
        assert fact in error.value.problem


def test_a_run_with_a_memory_is_refused_before_anything_is_written(
    tiny_run: Path, refused: Callable[..., str]
) -> None:
    refused(["export", "hf", tiny_run, "out"], "pkm at", "xlm export safetensors")


def test_an_existing_folder_is_refused(
    tiny_run: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    for form in ("hf", "safetensors"):
        refused(["export", form, tiny_run, "out"], "out already exists", "rm -r out")


def test_a_model_that_differs_from_ours_is_not_kept(
    build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = Differences("XLMWithLMHeadModel", 0.5, 1e-6, None)
    monkeypatch.setattr(export, "compare_in_new_process", lambda *_: found)
    prepared = export.Export.prepare(build(), tmp_path / "new" / "hf")
    with pytest.raises(RunError, match=r"0\.5"):
        prepared.write()
    assert list((tmp_path / "new").iterdir()) == []


@pytest.mark.usefixtures("in_process")
def test_a_difference_is_seen(
    build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = export.weights_of(bundle := build())
    name = "transformer.layer_norm2.1.bias"
    changed = weights | {name: weights[name] + 0.25}
    monkeypatch.setattr(export, "weights_of", lambda _: changed)
    with pytest.raises(RunError, match=r"hidden states differ by 0\.25"):
        export.Export.prepare(bundle, tmp_path / "hf").write()


def test_without_transformers_the_extra_is_named(
    build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "find_spec", lambda _: None)
    with pytest.raises(PluginError) as error:
        export.Export.prepare(build(), tmp_path / "hf")
    assert "xlm-plugins[hf]" in error.value.remedy


def test_an_unknown_language_is_reported(build: Build, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="does not know it") as error:
        export.Export.prepare(build(), tmp_path / "hf", language="zz")
    assert "en, fr, de" in error.value.expected


def test_plain_weights_come_with_a_description(tiny_run: Path, tmp_path: Path) -> None:
    assert main(["export", "safetensors", str(tiny_run), str(tmp_path / "out")]) == 0
    found, bundle = load_file(tmp_path / "out" / "model.safetensors"), load(tiny_run).bundle
    described = json.loads((tmp_path / "out" / "description.json").read_text())
    assert described["tokens"] == bundle.tokenizer.tokens()
    assert described["layers"][0]["component"] == "xlm-pkm/pkm"
    assert described["tensors"].keys() == found.keys()
    state = bundle.model.state_dict()
    for name, tensor in found.items():
        assert described["tensors"][name]["shape"] == list(tensor.shape)
        torch.testing.assert_close(tensor, state[name], rtol=0, atol=0)
