"""A model on disk: saving and loading, and errors about what does not fit."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from xlm_plugins.core.errors import BundleError, PluginError, XLMError
from xlm_plugins.core.plugins import Plugins, new_manager
from xlm_plugins.core.registry import KINDS, Registry
from xlm_plugins.model.bundle import Bundle
from xlm_plugins.model.weights import load_weights
from xlm_plugins.runs.find import find_bundle


@pytest.fixture(scope="module")
def plugins() -> Plugins:
    return Plugins.discover()


@pytest.fixture(scope="module")
def bundle(tiny_run: Path, plugins: Plugins) -> Bundle:
    return Bundle.load(find_bundle(str(tiny_run)), plugins)


@pytest.fixture
def folder(bundle: Bundle, tmp_path: Path) -> Path:
    """A copy on disk, for a test to damage."""
    return Path(shutil.copytree(bundle.path, tmp_path / "bundle"))


def test_a_bundle_is_ready_for_use(bundle: Bundle) -> None:
    assert not any(module.training for module in bundle.model.modules())
    assert bundle.description.languages == {"en": 0, "fr": 1}
    assert list(bundle.objectives) == ["mlm", "tlm"]
    (text,) = bundle.tokenizer.decode_batch(
        bundle.tokenizer.encode_batch(["In the beginning"]).rows
    )
    assert text == "In the beginning"


def test_a_bundle_saved_again_is_the_same(bundle: Bundle, plugins: Plugins, tmp_path: Path) -> None:
    again_path = tmp_path / "new" / "bundle"
    bundle.save(again_path)
    again = Bundle.load(again_path, plugins)
    assert again.description == bundle.description
    assert again.tokenizer.fingerprint == bundle.tokenizer.fingerprint
    weights, expected = again.model.state_dict(), bundle.model.state_dict()
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[name], expected[name]) for name in expected)
    names = ("model.json", "plugins.json", "tokenizer/component.json")
    for name in names:
        assert (again_path / name).read_bytes() == (bundle.path / name).read_bytes()


def test_a_tied_tensor_is_written_once(bundle: Bundle) -> None:
    written = load_file(bundle.path / "model.safetensors")
    assert bundle.model.encoder.output.weight is bundle.model.encoder.embeddings.tokens.weight
    assert "encoder.embeddings.tokens.weight" in written
    assert "encoder.output.weight" not in written
    assert {tensor.dtype for tensor in written.values() if tensor.is_floating_point()} == {
        torch.float32
    }


def test_a_folder_that_is_no_bundle(tmp_path: Path, plugins: Plugins) -> None:
    with pytest.raises(BundleError, match=r"neither a run nor a model bundle"):
        Bundle.load(tmp_path, plugins)


def test_another_format_is_refused(folder: Path, plugins: Plugins) -> None:
    tree = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps({**tree, "format": 99}))
    with pytest.raises(BundleError, match=r"bundle format 99\n.*format 1"):
        Bundle.load(folder, plugins)


@pytest.mark.parametrize("name", ["model.json", "plugins.json", "model.safetensors"])
@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(b'{"a')])
def test_a_damaged_file_is_reported(
    folder: Path, plugins: Plugins, name: str, damage: Callable[[Path], object]
) -> None:
    damage(folder / name)
    with pytest.raises(BundleError, match=str(folder)):
        Bundle.load(folder, plugins)


@pytest.mark.parametrize("key", ["model", "vocabulary", "languages", "stacks", "layers"])
def test_an_incomplete_description_is_reported(folder: Path, plugins: Plugins, key: str) -> None:
    tree = json.loads((folder / "model.json").read_text())
    del tree[key]
    (folder / "model.json").write_text(json.dumps(tree))
    with pytest.raises(XLMError, match=str(folder)):
        Bundle.load(folder, plugins)


@pytest.mark.parametrize(("kind", "name"), [("layer", "pkm"), ("objective", "tlm")])
def test_a_missing_plugin_is_named_with_its_version(
    folder: Path, plugins: Plugins, kind: str, name: str
) -> None:
    found = [c for each in KINDS for c in plugins.registry.of(each)]
    without = Registry([c for c in found if c.name != name])
    with pytest.raises(PluginError, match=rf"the {kind} '{name}' of xlm-{name} 0.1.0") as caught:
        Bundle.load(folder, Plugins(new_manager(), without))
    assert f"pip install 'xlm-{name}==0.1.0'" in str(caught.value)


def test_weights_that_do_not_fit_are_named(bundle: Bundle, folder: Path, plugins: Plugins) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["encoder.extra"] = torch.zeros(1)
    del weights["encoder.output.bias"]
    weights["encoder.embeddings.norm.weight"] = torch.zeros(3)
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(BundleError) as caught:
        Bundle.load(folder, plugins)
    told = str(caught.value)
    assert "encoder.output.bias is missing" in told
    assert "encoder.extra is not in the model" in told
    assert "encoder.embeddings.norm.weight is (3,), the model's is (16,)" in told


def test_weights_that_do_not_fit_leave_the_model_as_it_was(bundle: Bundle) -> None:
    model = bundle.description.build_model(bundle.objectives)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    weights = load_file(bundle.path / "model.safetensors")
    del weights["encoder.output.bias"]
    with pytest.raises(BundleError, match="here"):
        load_weights(model, weights, "here")
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
