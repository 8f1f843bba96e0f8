"""Settings inherited through ``--init``: the model's shape, its layers and their options."""

from __future__ import annotations

import json
import shutil
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from xlm_plugins import BundleError, OptionError
from xlm_plugins.cli.main import main
from xlm_plugins.config.inherited import absolute_init, split_init
from xlm_plugins.config.model import ModelOptions
from xlm_plugins.config.settings import Settings, UnresolvedSettings
from xlm_plugins.core.plugins import Plugins
from xlm_plugins.core.selection import StackName, parse_positions
from xlm_plugins.data.dataset.manifest import Manifest
from xlm_plugins.model.bundle import write_description
from xlm_plugins.model.description import ChosenObjective, ModelDescription, PlacedLayer
from xlm_plugins.model.weights import named_weights, save_tensors
from xlm_plugins.runs.layout import WEIGHTS_NAME
from xlm_plugins.training.job import Outcome
from xlm_plugins.training.pretraining import job

SHORT = ("--steps=2", "--batch-tokens=256", "--window=32", "--threads=1", "--evaluate-every=0")
SHAPE = {"dim": 16, "n_layers": 2, "n_heads": 2}
ODD = {
    **SHAPE,
    "ffn_dim": 24,
    "max_positions": 300,
    "dropout": 0.2,
    "activation": "relu",
    "position_embeddings": "sinusoidal",
    "layer_norm_eps": 1e-3,
    "tied_output": False,
    "output_dense": True,
}
MEMORY = {"n-keys": 8, "knn": 4, "heads": 2, "k-dim": 8}

Save = Callable[..., Path]


@pytest.fixture
def save(tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Save:
    """Write a bundle like an import, with the tokenizer and the languages of `tiny_data`.

    ``save("name", options, stacks=..., layers="1,dec.0+")``; each has different weights.
    """
    monkeypatch.chdir(tmp_path)
    plugins = Plugins.discover()
    manifest = Manifest.load(tiny_data)
    mlm, pkm = plugins.get("objective", "mlm"), plugins.get("layer", "pkm")

    def save(
        name: str,
        options: Mapping[str, Any] = SHAPE,
        stacks: tuple[StackName, ...] = ("encoder",),
        layers: str = "",
        memory: Mapping[str, Any] = MEMORY,
        languages: Mapping[str, int] | None = None,
    ) -> Path:
        places = parse_positions(layers) if layers else ()
        description = ModelDescription(
            ModelOptions(**options),
            manifest.vocabulary(),
            languages or {code: i for i, code in enumerate(manifest.languages)},
            stacks,
            tuple(PlacedLayer(at, pkm, pkm.options_from(dict(memory))) for at in places),
            (ChosenObjective(mlm, mlm.options(), ("en", "fr")),),
        )
        torch.manual_seed(len(name))
        model = description.build_model(description.build_objectives())
        (tmp_path / name).mkdir()
        write_description(tmp_path / name, description, tiny_data / "tokenizer")
        save_tensors(tmp_path / name / WEIGHTS_NAME, named_weights(model))
        return tmp_path / name

    return save


def written(run: str) -> dict[str, Any]:
    return tomllib.loads(Path(run, "config.toml").read_text(encoding="utf-8"))


def evaluations(run: str) -> list[dict[str, Any]]:
    lines = map(json.loads, Path(run, "metrics.jsonl").read_text().splitlines())
    return [line for line in lines if line["kind"] == "evaluation"]


def test_an_imported_model_is_inherited_whole(
    save: Save, tiny_data: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A shape without any default is inherited, and step 0 measures the imported model."""
    bundle = save("odd", ODD, layers="1")
    command = ["train", "--objective", "mlm", "--data", str(tiny_data), *SHORT]
    # Batches, and so masks, like those of `xlm evaluate` with a bundle.
    measured = ("--window=256", "--batch-tokens=4096", "--evaluate-every=2")
    assert main([*command, *measured, "--init", "odd", "--out", "run"]) == 0
    told = capfd.readouterr().err
    assert "layers: pkm at enc.1" in told
    assert not any(said in told for said in ("as initialised", "left out", "not as", "rows found"))
    config = written("run")
    assert config["model"] == {
        key.replace("_", "-"): value for key, value in ODD.items()
    } | {"attention-dropout": 0.0, "language-embeddings": True, "adaptive-cutoffs": [],
         "adaptive-div-value": 4.0}  # fmt: skip
    assert config["train"]["layer"] == ["pkm:enc.1"]
    assert MEMORY.items() <= config["pkm"].items()
    assert config["train"]["init"] == [str(bundle)]
    evaluate = ["evaluate", "odd", "--data", str(tiny_data), "--split", "valid", "--json"]
    assert main([*evaluate, "--threads", "1"]) == 0
    own = json.loads(capfd.readouterr().out)
    first = evaluations("run")[0]
    assert first["step"] == 0
    assert len(own) > 4
    for name, value in own.items():
        assert first[name] == pytest.approx(value, rel=1e-6), name


def test_a_run_is_resumed_and_repeated_without_the_model_of_init(
    save: Save, tiny_data: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    bundle = save("odd", ODD, layers="1")
    command = ["train", "--objective", "mlm", "--data", str(tiny_data), *SHORT, "--init", "odd"]
    assert main([*command, "--out", "run"]) == 0
    bundle.rename("gone")
    assert main(["train", "--resume", "run", "--steps", "3"]) == 0
    again = [*command, "--out", "run", "--resume", "auto"]
    assert main([*again, "--steps", "4"]) == 0
    assert evaluations("run")[-1]["step"] == 4
    capfd.readouterr()
    assert main([*again, "--layer", ""]) == 2
    assert "the run's layers are not those requested now" in capfd.readouterr().err
    # Another model in its place does not change resolved settings.
    save("odd", {**SHAPE, "n_layers": 1})
    capfd.readouterr()
    assert main(["train", "--config", "run/config.toml", "--out", "repeated"]) == 0
    assert written("repeated") == written("run")  # the settings in force, of 4 steps
    assert "differing from its training: n-layers 2 (1)" in capfd.readouterr().err


def test_the_users_settings_win_and_the_report_lists_differences(
    save: Save, tiny_data: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    save("odd", ODD, layers="0,1+", languages={"en": 0, "de": 1, "fr": 2})
    Path("said.toml").write_text('[model]\nactivation = "gelu"\nffn_dim = 20\n')
    command = ["train", "--objective", "mlm", "--data", str(tiny_data), *SHORT, "--init", "odd"]
    command += ["--config", "said.toml", "--out", "run", "--n-heads", "4", "--layer", "pkm:1+"]
    assert main([*command, "--pkm.knn", "2"]) == 0
    told = capfd.readouterr().err
    differing = "n-heads 4 (2), ffn-dim 20 (24), activation gelu (relu)"
    assert f"differing from its training: {differing}\n" in told
    assert "new, as initialised: encoder.layers.0.feed_forward.expand.weight" in told
    assert "languages left out, which the data lacks: de\n" in told
    assert "left out: encoder.layers.0.feed_forward." in told
    config = written("run")
    assert [config["model"][key] for key in ("n-heads", "ffn-dim", "activation", "dropout")] == [
        4, 20, "gelu", 0.2,
    ]  # fmt: skip
    assert config["train"]["layer"] == ["pkm:1+"]
    assert config["pkm"]["knn"] == 2
    assert config["pkm"]["n-keys"] == 8  # not set for the layer


def test_an_empty_layer_inherits_none(save: Save, tiny_data: Path) -> None:
    save("one", layers="1")
    command = ["train", "--objective", "mlm", "--data", str(tiny_data), *SHORT, "--init", "one"]
    assert main([*command, "--layer", "", "--out", "run", "--adaptive-cutoffs", ""]) == 0
    config = written("run")
    assert config["train"]["layer"] == []
    assert "pkm" not in config
    assert main(["train", "--config", "run/config.toml", "--out", "again"]) == 0
    assert written("again") == config


def test_another_tokenizer_is_reported_with_a_hint(
    save: Save, other_data: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    save("one")
    command = ["train", "--objective", "mlm", "--data", str(other_data), *SHORT, "--init", "one"]
    assert main([*command, "--out", "run"]) == 0
    told = capfd.readouterr().err
    assert "the data has another tokenizer, so rows are matched by spelling" in told
    assert "`xlm prepare --tokenizer-from one`" in told


MT: dict[str, Any] = {"objective": ["mt"]}


def unresolved(train: Mapping[str, Any], **config: Any) -> UnresolvedSettings:
    return UnresolvedSettings.read(config, {"train": train}, Plugins.discover())


def resolved(train: Mapping[str, Any], dropout: float | None = None, **config: Any) -> Settings:
    """The settings with these flags over this TOML tree."""
    flags: dict[str, Any] = {"train": {"objective": ["mlm"], **train}}
    if dropout is not None:
        flags["model"] = {"dropout": dropout}
    plugins = Plugins.discover()
    return UnresolvedSettings.read(config, flags, plugins).resolve(flags, plugins)


@pytest.mark.parametrize(
    ("init", "objective", "expected"),
    [
        (["both"], "mt", ["pkm:enc.1,dec.0+"]),
        (["both"], "mlm", ["pkm:enc.1"]),
        (["one"], "mt", ["pkm:enc.0,enc.1+,dec.0,dec.1+"]),  # the decoder from the encoder
        (["encoder=one"], "mt", ["pkm:enc.0,enc.1+"]),
        (["encoder=one", "decoder=both"], "mt", ["pkm:enc.0,enc.1+,dec.0+"]),
        (["one", "decoder=both"], "mt", ["pkm:enc.0,enc.1+,dec.0+"]),
        (["decoder=plain"], "mt", []),
    ],
)
def test_layers_are_inherited_with_the_weights_of_their_stack(
    save: Save, init: list[str], objective: str, expected: list[str]
) -> None:
    save("both", stacks=("encoder", "decoder"), layers="1,dec.0+")
    save("one", layers="0,1+")
    save("plain")
    found = unresolved({"objective": [objective], "init": init})
    assert found.config["train"]["layer"] == expected
    assert list(found.components) == [objective, *(["pkm"] if expected else [])]


def test_layers_with_different_options_must_be_given(save: Save) -> None:
    save("one", layers="0")
    save("two", layers="1", memory={**MEMORY, "knn": 2})
    train = MT | {"init": ["encoder=one", "decoder=two"]}
    with pytest.raises(OptionError, match=r"layers xlm-pkm/pkm of --init have different options"):
        unresolved(train)
    assert unresolved(train | {"layer": ["pkm:0"]}).config["pkm"] == {}  # neither model's


def test_models_of_two_stacks_agree_or_the_user_decides(save: Save) -> None:
    save("one")
    save("two", {**SHAPE, "n_layers": 1, "dropout": 0.3, "ffn_dim": 64})
    train = {"init": ["encoder=one", "decoder=two"]}
    with pytest.raises(OptionError) as error:
        resolved(train)
    assert str(error.value) == (
        "--init encoder=one has n-layers = 2, dropout = 0.1, and --init decoder=two has "
        "n-layers = 1, dropout = 0.3\nexpected: models of the same shape\n"
        "hint: set them for the new model: --n-layers, --dropout"
    )
    model = resolved(train, 0.5, model={"n_layers": 2}).model
    assert (model.n_layers, model.dropout, model.dim, model.ffn_dim) == (2, 0.5, 16, 64)


def test_nothing_is_read_without_a_model_to_start_from() -> None:
    for train in ({}, {"init": ["nowhere"], "resume": "run"}):
        found = unresolved(train, model={"dim": 8})
        assert found.config == {"model": {"dim": 8}, "train": {"layer": []}}
        assert found.inits == ()


def test_the_settings_file_and_the_model_are_read_once(
    save: Save, monkeypatch: pytest.MonkeyPatch
) -> None:
    save("one", layers="1")
    Path("run.toml").write_text('[train]\nobjective = ["mlm"]\ninit = ["one"]\n')
    reads: list[str] = []
    read_text = Path.read_text

    def counted(path: Path, *arguments: Any, **options: Any) -> str:
        reads.append(path.name)
        return read_text(path, *arguments, **options)

    def train(settings: Settings, plugins: Plugins) -> Outcome:
        assert settings.train.layer == ("pkm:enc.1",)
        return Outcome("steps", Path("run"), 2)

    monkeypatch.setattr(Path, "read_text", counted)
    monkeypatch.setattr(job, "train", train)
    assert main(["train", "--config", "run.toml"]) == 0
    assert (reads.count("run.toml"), reads.count("model.json")) == (1, 1)


def test_a_damaged_checkpoint_is_skipped_and_a_damaged_model_is_an_error(
    tiny_run: Path, save: Save
) -> None:
    shutil.copytree(tiny_run, "run")
    for bundle in Path("run").glob("*/*/model.json"):
        if bundle.parent.name != "step-10":
            bundle.write_text("{")
    assert resolved({"init": ["run"]}).model.dim == 16
    for content, problem in (
        ('{"format": 7}', "one has bundle format 7"),
        ('{"format": 1}', "one is a damaged bundle: KeyError"),
        ("{", "one/model.json cannot be read: JSONDecodeError"),
    ):
        shutil.rmtree("one", ignore_errors=True)
        (save("one") / "model.json").write_text(content)
        with pytest.raises(BundleError, match=problem):
            unresolved({"init": ["one"]})
    with pytest.raises(BundleError, match="no run or bundle at nowhere"):
        unresolved({"init": ["encoder=nowhere@last"]})


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("runs/a", ("", "runs/a")),
        ("encoder=runs/a@last", ("encoder", "runs/a@last")),
        ("run=3", ("", "run=3")),
        ("decoder=", ("", "decoder=")),
    ],
)
def test_init_is_split_into_stack_and_run(text: str, read: tuple[str, str]) -> None:
    assert split_init(text) == read


@pytest.mark.parametrize("text", ["runs/a", "encoder=runs/a@step-3", "run=3", "decoder=a@last"])
def test_init_can_be_made_absolute(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    stack, reference = split_init(text)
    assert split_init(absolute_init(text)) == (stack, f"{tmp_path}/{reference}")
    assert absolute_init(absolute_init(text)) == absolute_init(text)
