"""A missing plugin: errors name its distribution and version, and have a hint."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from xlm_plugins import Component, OptionError, PluginError
from xlm_plugins.cli.main import main
from xlm_plugins.config.settings import selected_components
from xlm_plugins.core.plugins import Plugins
from xlm_plugins.core.recorded_components import (
    recorded_plugins,
    resolve_options,
    resolve_recorded,
)
from xlm_plugins.core.registry import NoOptions, with_origin

VERSION = "1.5"
ENTRY = """
from xlm_plugins import Component, hookimpl

@hookimpl
def xlm_{kind}s():
    return [Component("my-{kind}", "xlm_my_{kind}.code:Mine")]
"""
CODE = {
    "layer": """
from torch import nn
from xlm_plugins import Layer

class Mine(Layer):
    def __init__(self, options, dim):
        super().__init__(options, dim)
        self.linear = nn.Linear(dim, dim)

    def forward(self, x):
        return self.linear(x)
""",
    "objective": """
from xlm_mlm import MLMOptions
from xlm_mlm.objective import MaskedLanguageModelling

class Mine(MaskedLanguageModelling):
    def __init__(self, options, vocabulary, languages):
        super().__init__(MLMOptions(), vocabulary, languages)
""",
    "tokenizer": """
from xlm_sentencepiece import SentencePieceOptions
from xlm_sentencepiece.tokenizer import SentencePieceTokenizer

class Mine(SentencePieceTokenizer):
    @classmethod
    def train(cls, texts, vocabulary_size, options, folder, workers):
        return super().train(texts, vocabulary_size, SentencePieceOptions(), folder, workers)
""",
}
SMALL = ("--dim=16", "--n-layers=1", "--n-heads=2", "--window=32", "--threads=1")


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """By kind: a folder with an installed distribution that provides a component of this kind."""
    folder = tmp_path_factory.mktemp("sites")
    for kind, code in CODE.items():
        package = folder / kind / f"xlm_my_{kind}"
        package.mkdir(parents=True)
        (package / "__init__.py").write_text(ENTRY.format(kind=kind))
        (package / "code.py").write_text(code)
        info = folder / kind / f"xlm_my_{kind}-{VERSION}.dist-info"
        info.mkdir()
        metadata = f"Metadata-Version: 2.1\nName: xlm-my-{kind}\nVersion: {VERSION}\n"
        (info / "METADATA").write_text(metadata)
        (info / "entry_points.txt").write_text(f"[xlm]\nmy-{kind} = xlm_my_{kind}\n")
    return {kind: folder / kind for kind in CODE}


@pytest.fixture(scope="module")
def run(sites: dict[str, Path], tiny_source: Path) -> Iterator[Path]:
    """A run of two steps and its data set, made with all three.  Do not modify it."""
    folder = sites["layer"].parent
    data, out = str(folder / "data"), str(folder / "run")
    with pytest.MonkeyPatch.context() as patch:
        for site in sites.values():
            patch.syspath_prepend(str(site))
        tokenizer = ("--tokenizer", "my-tokenizer", "--vocab-size", "400", "--workers", "1")
        assert main(["prepare", str(tiny_source), data, *tokenizer]) == 0
        chosen = ("--objective", "my-objective", "--layer", "my-layer", "--steps", "2")
        assert main(["train", *chosen, "--data", data, "--out", out, *SMALL]) == 0
    yield Path(out)
    for kind in CODE:
        sys.modules.pop(f"xlm_my_{kind}", None)


@pytest.fixture(params=CODE)
def gone(
    request: pytest.FixtureRequest, sites: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> str:
    """The kind whose distribution is missing; the other two are installed."""
    for kind, site in sites.items():
        if kind != request.param:
            monkeypatch.syspath_prepend(str(site))
    return str(request.param)


def test_bundles_record_what_they_were_made_with(run: Path) -> None:
    expected = {f"{kind}/my-{kind}": f"xlm-my-{kind} {VERSION}" for kind in CODE}
    found = list(run.glob("*/*/plugins.json"))
    assert {path.parent.parent.name for path in found} == {"best", "checkpoints"}
    assert all(json.loads(path.read_text()) == expected for path in found)
    assert recorded_plugins(run) == expected


@pytest.mark.parametrize(
    "command", [["evaluate", "{run}"], ["train", "--resume", "{run}", "--steps", "4"]]
)
def test_a_run_whose_plugin_is_missing_names_it(
    command: list[str], gone: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([text.format(run=run) for text in command]) == 2
    assert_named(gone, capsys.readouterr().err)


def assert_named(gone: str, told: str) -> None:
    assert f"was made with the {gone} 'my-{gone}' of xlm-my-{gone} {VERSION}: " in told
    # A model can name any distribution, and anyone can register one: no command that installs it.
    assert f"hint: install xlm-my-{gone} {VERSION} from a source that you trust" in told
    assert "pip install" not in told
    assert "Traceback" not in told


def test_init_needs_the_plugins_of_what_it_copies(
    gone: str, run: Path, tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Tokenizer and layers, but not the objectives that it was trained on."""
    new = tmp_path / "new"
    command = ["train", "--init", str(run), "--data", str(tiny_data), "--out", str(new)]
    command += ["--objective", "mlm", "--steps=1", "--window=32", "--threads=1"]
    if gone == "objective":
        assert main(command) == 0
        return
    assert main(command) == 2
    told = capsys.readouterr().err
    assert_named(gone, told)
    assert not new.exists()
    if gone == "layer":
        assert '--layer "" for none' in told
        assert main([*command, "--layer", ""]) == 0
        told = capsys.readouterr().err
        assert "left out: encoder.layers.0.feed_forward.linear.bias" in told


@pytest.mark.parametrize("gone", ["layer"], indirect=True)
def test_another_version_of_the_plugin_is_used(
    gone: str,
    run: Path,
    sites: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.syspath_prepend(str(sites[gone]))
    info = sites[gone] / f"xlm_my_{gone}-{VERSION}.dist-info"
    metadata = (info / "METADATA").read_text()
    other = tmp_path / f"xlm_my_{gone}-2.0.dist-info"
    other.mkdir()
    (other / "METADATA").write_text(metadata.replace(VERSION, "2.0"))
    (other / "entry_points.txt").write_bytes((info / "entry_points.txt").read_bytes())
    monkeypatch.syspath_prepend(str(tmp_path))
    assert Plugins.discover().get(gone, f"my-{gone}").version == "2.0"
    assert main(["evaluate", str(run), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("gone", ["layer"], indirect=True)
def test_the_hint_for_a_disabled_plugin_is_not_to_install_it(
    gone: str, run: Path, sites: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(sites[gone]))
    monkeypatch.setenv("XLM_DISABLE_PLUGINS", f"xlm-my-{gone}")
    origin = recorded_plugins(run)[f"{gone}/my-{gone}"]
    with pytest.raises(PluginError) as error:
        resolve_recorded(Plugins.discover(), gone, f"my-{gone}", origin, "the run")
    assert "is disabled" in error.value.problem
    assert error.value.remedy == "remove it from XLM_DISABLE_PLUGINS"


@pytest.mark.parametrize("gone", ["layer"], indirect=True)
def test_components_that_the_run_does_not_have_are_unknown(gone: str, run: Path) -> None:
    made_with = recorded_plugins(run)
    plugins = Plugins.discover()
    with pytest.raises(PluginError, match=rf"the run was made with the layer 'my-{gone}'"):
        selected_components(["mlm"], [f"my-{gone}"], plugins, made_with)
    with pytest.raises(PluginError, match=r"^no installed plugin provides the layer 'other'"):
        selected_components(["mlm"], ["other"], plugins, made_with)


def test_options_that_another_version_refuses_are_reported_with_both_versions() -> None:
    component = with_origin(Component("wide", "x:Y"), "layer", "xlm-wide", "2.0")
    assert resolve_options(component, {}, "xlm-wide 1.0", "the model") == NoOptions()
    with pytest.raises(PluginError) as error:
        resolve_options(component, {"k": 1}, "xlm-wide 1.0", "the model")
    assert error.value.problem == (
        "the model was made with xlm-wide 1.0, but xlm-wide 2.0 is installed: "
        "wide has no option 'k'"
    )
    assert error.value.remedy == "pip install 'xlm-wide==1.0'"
    with pytest.raises(OptionError, match="wide has no option 'k'"):
        resolve_options(component, {"k": 1}, "xlm-wide 2.0", "the model")


def test_a_run_without_a_bundle_records_nothing(tmp_path: Path) -> None:
    assert recorded_plugins(tmp_path) == {}
    damaged = tmp_path / "best" / "x" / "plugins.json"
    damaged.parent.mkdir(parents=True)
    for text in ("", "[1]", '{"a'):
        damaged.write_text(text)
        assert recorded_plugins(tmp_path) == {}
