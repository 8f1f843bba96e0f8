"""Settings of a run: TOML and flags merged, and what is refused."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from xlm_plugins import Component, MaskingOptions, OptionError, PluginError
from xlm_plugins.config.settings import Settings, UnresolvedSettings, read_toml, resolve, to_toml
from xlm_plugins.core.plugins import Plugins, new_manager
from xlm_plugins.core.registry import NoOptions, Registry, with_origin


def component(name: str, kind: str, options: type = MaskingOptions) -> Component:
    return with_origin(Component(name, "x:Y", options), kind, f"xlm-{kind}-{name}", "1")


@pytest.fixture
def plugins() -> Plugins:
    components = [
        component("tlm", "objective"),
        component("mlm", "objective"),
        component("pkm", "layer"),
        component("both", "objective"),
        component("both", "layer"),
        component("train", "objective"),
        component("bare", "objective", NoOptions),
    ]
    return Plugins(new_manager(), Registry(components))


def test_all_that_is_missing_is_told_at_once_with_one_command(plugins: Plugins) -> None:
    none = Plugins(new_manager())
    flags = {"train": {"objective": ("tlm",), "layer": ("pkm:2",)}}
    with pytest.raises(PluginError) as error:
        UnresolvedSettings.read({}, flags, none)
    assert error.value.problem == (
        "no installed plugin provides the objective 'tlm', the layer 'pkm' and "
        "the tokenizer 'sentencepiece'"
    )
    assert error.value.remedy.startswith("pip install xlm-tlm xlm-pkm xlm-sentencepiece\n")
    assert "pip install 'xlm-plugins[all]'" in error.value.remedy
    with pytest.raises(PluginError, match=r"'tlm' and the layer 'pkm'\n"):
        UnresolvedSettings.read({"train": {"data": "my-data"}}, flags, none)
    with pytest.raises(PluginError, match="no installed plugin provides the objective 'mine'"):
        UnresolvedSettings.read({}, {"train": {"objective": ("mine",), "layer": ("yours",)}}, none)
    UnresolvedSettings.read({}, flags, plugins)  # one alone is told where it is looked up


TLM: dict[str, Any] = {"train": {"objective": ["tlm"]}}


def test_flags_override_toml_and_toml_overrides_defaults(plugins: Plugins) -> None:
    config = TLM | {"optimizer": {"lr": 0.1, "warmup": 3}, "tlm": {"mask-prob": 0.3}}
    flags = {"optimizer": {"lr": 0.2}, "tlm": {"keep_share": 0.2}}
    settings = resolve(config, flags, plugins)
    assert (settings.optimizer.lr, settings.optimizer.warmup) == (0.2, 3)
    assert settings.optimizer.beta1 == 0.9
    assert settings.components == {"tlm": MaskingOptions(mask_prob=0.3, keep_share=0.2)}


def test_dashes_and_underscores_are_equivalent(plugins: Plugins) -> None:
    config = TLM | {"train": {"objective": "tlm", "batch-tokens": 64}}
    assert resolve(config, {"train": {"batch_tokens": 32}}, plugins).train.batch_tokens == 32
    assert resolve(config, {}, plugins).train.batch_tokens == 64


def test_the_written_file_repeats_the_run(plugins: Plugins, tmp_path: Path) -> None:
    flags = {
        "train": {
            "objective": ("tlm:en-fr@0:1,10:0.5", "xlm-objective-mlm/mlm"),
            "layer": ("pkm:1,2+",),
            "minutes": 0.5,
            "validation_metrics": ("_valid_mlm_ppl,valid_en_mlm_acc",),
        },
        "model": {"language_embeddings": False, "ffn_dim": 100},
        "xlm-objective-mlm/mlm": {"mask_prob": 0.2},
    }
    settings = resolve({}, flags, plugins)
    path = tmp_path / "config.toml"
    path.write_text(to_toml(settings), encoding="utf-8")
    assert settings.train.validation_metrics == ("_valid_mlm_ppl", "valid_en_mlm_acc")
    assert resolve(read_toml(path), {}, plugins) == settings


def test_out_and_resume_are_not_written(plugins: Plugins) -> None:
    flags = {"train": {"objective": ("tlm",), "out": "a", "resume": "auto", "data": "d"}}
    settings = resolve({}, flags, plugins)
    assert (settings.train.out, settings.train.resume) == ("a", "auto")
    written = tomllib.loads(to_toml(settings))["train"]
    assert not {"out", "resume"} & set(written)
    assert written["data"] == "d"


def test_a_component_without_options_has_a_section_too(plugins: Plugins) -> None:
    settings = resolve({"train": {"objective": ["bare"]}}, {}, plugins)
    assert settings.components == {"bare": NoOptions()}
    assert tomllib.loads(to_toml(settings))["bare"] == {}


def test_defaults_need_no_plugins() -> None:
    assert Settings().train.steps == 2000


def test_minutes_alone_end_a_run(plugins: Plugins, tmp_path: Path) -> None:
    settings = resolve(TLM, {"train": {"minutes": 20.0}}, plugins)
    assert (settings.train.steps, settings.train.minutes) == (None, 20.0)
    path = tmp_path / "config.toml"
    path.write_text(to_toml(settings), encoding="utf-8")
    assert resolve(read_toml(path), {}, plugins) == settings
    assert resolve(read_toml(path), {"train": {"steps": 50}}, plugins).train.steps == 50


@pytest.mark.parametrize(
    ("train", "warmup", "recorded"),
    [
        ({}, None, 200),
        ({"steps": 100}, None, 10),
        ({"steps": 10**6}, None, 200),
        ({"minutes": 5.0}, None, None),
        ({"steps": 100}, 300, 300),
    ],
)
def test_the_warmup_of_a_short_run_is_short_unless_given(
    plugins: Plugins, train: dict[str, Any], warmup: int | None, recorded: int | None
) -> None:
    optimizer = {} if warmup is None else {"warmup": warmup}
    settings = resolve(TLM, {"train": train, "optimizer": optimizer}, plugins)
    assert settings.optimizer.warmup == recorded
    written = tomllib.loads(to_toml(settings))
    assert written["optimizer"].get("warmup") == recorded  # so that a longer run keeps it


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({}, "no objective is selected"),
        (TLM | {"pkm": {"mask-prob": 0.1}}, "--layer pkm"),
        (TLM | {"nobody": {}}, "unknown section [nobody]"),
        (TLM | {"tlm": {"mask-prop": 0.1}}, "did you mean 'mask-prob'"),
        (TLM | {"tlm": {"mask-prob": 2.0}}, "at most 1.0"),
        (TLM | {"model": {"lr": 1.0}}, "model has no option 'lr'"),
        ({"objective": "tlm"}, "outside any section"),
        ({"train": {"objective": ["tlm:"]}}, "cannot be read"),
    ],
)
def test_bad_settings(plugins: Plugins, config: dict[str, Any], said: str) -> None:
    with pytest.raises(OptionError) as error:
        resolve(config, {}, plugins)
    assert said in str(error.value)


def test_everything_that_is_wrong_is_told_at_once(plugins: Plugins) -> None:
    config = {
        "train": {"objective": ["mlm"], "stepps": 3, "steps": "many"},
        "model": {"dim": -5},
        "mlm": {"mask-prob": 3},
        "optimiser": {"lr": 1},
    }
    flags = {"optimizer": {"lr": -1.0}}
    for told_by in (
        lambda: resolve(config, flags, plugins),
        lambda: UnresolvedSettings.read(config, {}, plugins).resolve(flags, plugins),
    ):
        with pytest.raises(OptionError) as error:
            told_by()
        assert [line for line in str(error.value).splitlines() if not line.startswith("  ")] == [
            "6 options cannot be used:",
            "unknown section [optimiser]",
            "model.dim = -5",
            "optimizer.lr = -1.0",
            "train has no option 'stepps'",
            "train.steps = 'many'",
            "mlm.mask-prob = 3.0",
        ]
        assert "\n  expected: at least 1\n" in str(error.value)
        assert "\n  hint: did you mean 'steps'?\n" in str(error.value)


def test_a_plugin_named_as_a_core_section_needs_its_full_name(plugins: Plugins) -> None:
    with pytest.raises(PluginError, match="xlm-objective-train/train"):
        resolve({"train": {"objective": ["train"]}}, {}, plugins)
    full = {"train": {"objective": ["xlm-objective-train/train"]}}
    assert list(resolve(full, {}, plugins).components) == ["xlm-objective-train/train"]


def test_an_objective_and_a_layer_of_the_same_name_need_a_full_name(plugins: Plugins) -> None:
    with pytest.raises(PluginError, match="--layer xlm-layer-both/both"):
        resolve({"train": {"objective": ["both"], "layer": ["both"]}}, {}, plugins)
    full = {"train": {"objective": ["both"], "layer": ["xlm-layer-both/both"]}}
    assert set(resolve(full, {}, plugins).components) == {"both", "xlm-layer-both/both"}


def test_an_objective_selected_twice_has_one_section(plugins: Plugins) -> None:
    config = {"train": {"objective": ["tlm:en-fr", "tlm:fr-en@0.5"]}}
    assert list(resolve(config, {}, plugins).components) == ["tlm"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"[train]\nsteps = \n", "line 2"),
        (b"[train]\nout = '\xff'\n", "line 2: not UTF-8"),
        (None, "No such file"),
    ],
)
def test_errors_name_the_file_and_the_line(
    tmp_path: Path, content: bytes | None, said: str
) -> None:
    path = tmp_path / "run.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(OptionError) as error:
        read_toml(path)
    assert str(path) in error.value.problem
    assert said in error.value.problem
