"""Adapters: what they compute, that only they and the head are trained, and how they are saved."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional
from xlm_adapter import AdapterOptions, xlm_layers
from xlm_adapter.layer import Adapter

from xlm_plugins import OptionError
from xlm_plugins.cli.main import main
from xlm_plugins.testing import check_layer

SMALL = ("--dim=16", "--n-layers=2", "--n-heads=2", "--batch-tokens=256", "--window=16")
SHORT = ("--steps=4", "--save-every=2", "--keep=2", "--log-every=2", "--threads=1", "--lr=1e-2")
ADAPTERS = ("--layer=adapter", "--adapter.width=4")
TRAINED = {
    f"encoder.layers.{index}.after.{part}.{kind}"
    for index in (0, 1)
    for part in ("down", "up")
    for kind in ("weight", "bias")
} | {"encoder.output.bias"}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of two invented languages."""
    folder = tmp_path_factory.mktemp("adapter")
    source = folder / "text"
    source.mkdir()
    rng = random.Random(0)
    for language, letters in (("xa", "bdklmn"), ("xb", "prstvz")):
        syllables = [consonant + vowel for consonant in letters for vowel in "aeiou"]
        words = ["".join(rng.choices(syllables, k=3)) for _ in range(60)]
        for split, n_lines in (("train", 300), ("valid", 30)):
            lines = [" ".join(rng.choices(words, k=8)) for _ in range(n_lines)]
            (source / f"{split}.{language}.txt").write_text("\n".join(lines) + "\n")
    command = ["prepare", str(source), str(folder / "data"), "--vocab-size=320", "--workers=1"]
    assert main(command) == 0
    return folder / "data"


Train = Callable[..., Path]


@pytest.fixture(scope="module")
def train(data: Path) -> Train:
    def train(name: str, *arguments: str) -> Path:
        out = data.with_name(name)
        command = ["train", "--objective=mlm", *SMALL, *SHORT, f"--data={data}", f"--out={out}"]
        assert main([*command, *arguments]) == 0
        return out

    return train


@pytest.fixture(scope="module")
def base(train: Train) -> Path:
    """A run without adapters."""
    return train("base")


@pytest.fixture(scope="module")
def run(train: Train, base: Path) -> Path:
    """Adapters trained on the base.  Do not modify it."""
    return train("run", *ADAPTERS, "--init", f"{base}@last")


@pytest.fixture(scope="module")
def saved(run: Path) -> Path:
    """The saved adapters of the run.  Do not modify them."""
    out = run.with_name("saved")
    assert main(["adapter", "save", f"{run}@last", str(out)]) == 0
    return out


def weights(bundle: Path) -> dict[str, Tensor]:
    return load_file(bundle / "model.safetensors")


def evaluations(run: Path) -> list[dict[str, Any]]:
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [
        {name: number for name, number in line.items() if name.startswith("valid_")}
        for line in lines
        if line["kind"] == "evaluation"
    ]


@pytest.mark.parametrize(
    ("name", "activation"), [("gelu", functional.gelu), ("relu", functional.relu)]
)
def test_it_computes_what_the_paper_says(name: str, activation: Callable[[Tensor], Tensor]) -> None:
    torch.manual_seed(0)
    layer, x = Adapter(AdapterOptions(width=3, activation=name), 8), torch.randn(5, 8)
    torch.nn.init.normal_(layer.up.weight)
    narrow = activation(x @ layer.down.weight.T + layer.down.bias)
    assert narrow.shape == (5, 3)
    torch.testing.assert_close(layer(x), narrow @ layer.up.weight.T + layer.up.bias)


def test_it_keeps_the_contract() -> None:
    check_layer("adapter", width=4)


def test_it_goes_after_every_layer() -> None:
    assert Adapter.default_position(3) == "0+,1+,2+"


def test_impossible_options_are_refused() -> None:
    (component,) = xlm_layers()
    with pytest.raises(OptionError, match=r"adapter\.width"):
        component.options_from({"width": 0})
    with pytest.raises(OptionError, match=r"adapter\.activation"):
        component.options_from({"activation": "tanh"})


def test_a_trained_model_is_unchanged_at_first(base: Path, run: Path) -> None:
    """Exactly: the evaluation before the first update of the run is that of the base."""
    before, *_, after = evaluations(run)
    assert before == evaluations(base)[-1]
    assert after != before


def test_only_adapters_and_head_are_trained(base: Path, run: Path) -> None:
    theirs, own = (weights(folder / "checkpoints" / "step-4") for folder in (base, run))
    assert own.keys() - theirs.keys() == TRAINED - {"encoder.output.bias"}
    changed = {name for name in theirs if not torch.equal(own[name], theirs[name])}
    assert changed == {"encoder.output.bias"}
    assert all(own[name].abs().sum() > 0 for name in TRAINED)


def test_a_checkpoint_has_no_moments_of_frozen_parameters(run: Path) -> None:
    moments = load_file(run / "checkpoints" / "step-4" / "optimizer.safetensors")
    assert {name.rpartition(".")[0] for name in moments} == TRAINED
    assert all(moment.abs().sum() > 0 for moment in moments.values())


def test_the_saved_folder_holds_only_what_was_trained(run: Path, saved: Path) -> None:
    own, tensors = weights(run / "checkpoints" / "step-4"), load_file(saved / "adapter.safetensors")
    assert tensors.keys() == TRAINED
    assert all(torch.equal(tensor, own[name]) for name, tensor in tensors.items())
    names = {"adapter.json", "adapter.safetensors", "model.json", "plugins.json"}
    assert {path.name for path in saved.iterdir()} == names


def test_base_and_adapters_combine_to_the_run(
    base: Path,
    run: Path,
    saved: Path,
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "deep" / "whole"
    assert main(["adapter", "apply", f"{base}@last", str(saved), str(out)]) == 0
    assert capsys.readouterr().out == f"{out}\n"
    bundle = run / "checkpoints" / "step-4"
    own = weights(bundle)
    assert all(torch.equal(tensor, own.pop(name)) for name, tensor in weights(out).items())
    assert own == {}
    measured = []
    for model in (bundle, out):
        command = ["evaluate", str(model), "--data", str(data), "--split", "valid", "--json"]
        assert main(command) == 0
        measured.append(json.loads(capsys.readouterr().out))
    assert measured[0] == measured[1]
    assert measured[0]["valid_xa_mlm_ppl"] > 1


@pytest.mark.slow
def test_running_statistics_of_the_base_may_change(train: Train, tmp_path: Path) -> None:
    """BatchNorm's running statistics are not parameters: training changes them, frozen or not."""
    memory = ("--layer=pkm:0", "--pkm.n-keys=8", "--pkm.knn=4", "--pkm.k-dim=8")
    base = train("memory", *memory)
    run = train("memory-run", *memory, *ADAPTERS, "--init", f"{base}@last")
    saved, out = tmp_path / "saved", tmp_path / "whole"
    assert main(["adapter", "save", f"{run}@last", str(saved)]) == 0
    assert main(["adapter", "apply", f"{base}@last", str(saved), str(out)]) == 0
    own = weights(run / "checkpoints" / "step-4")
    moved = "encoder.layers.0.feed_forward.query_norm.running_mean"
    assert not torch.equal(own[moved], weights(base / "checkpoints" / "step-4")[moved])
    assert all(torch.equal(tensor, own.pop(name)) for name, tensor in weights(out).items())
    assert own == {}


def refusal(capsys: pytest.CaptureFixture[str], *command: str | Path) -> str:
    """The error of a command that must fail."""
    capsys.readouterr()
    assert main(["adapter", *map(str, command)]) == 2
    return capsys.readouterr().err


def test_a_base_with_other_weights_is_refused(
    base: Path, saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = refusal(capsys, "apply", f"{base}@step-2", saved, tmp_path / "whole")
    assert f"{base}@step-2 is not the base of {saved}: encoder.embeddings" in told
    assert "more differ" in told
    assert "--init" in told
    assert list(tmp_path.iterdir()) == []


def test_a_base_with_another_tokenizer_is_refused(
    base: Path, saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = shutil.copytree(saved, tmp_path / "other")
    record = json.loads((other / "adapter.json").read_text())
    (other / "adapter.json").write_text(json.dumps({**record, "tokenizer": "0123"}))
    told = refusal(capsys, "apply", f"{base}@last", other, tmp_path / "whole")
    assert f"has the tokenizer {record['tokenizer']}\n  expected: 0123" in told


def test_a_model_without_adapters_has_none_to_save(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = refusal(capsys, "save", base, tmp_path / "saved")
    assert "has no adapters\n  expected: a model trained with --layer adapter" in told
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten(
    base: Path, run: Path, saved: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert f"{base} already exists" in refusal(capsys, "save", run, base)
    assert f"{run} already exists" in refusal(capsys, "apply", f"{base}@last", saved, run)


@pytest.mark.parametrize("name", ["adapter.safetensors", "adapter.json", "model.json"])
def test_damaged_adapters_are_refused_and_leave_nothing(
    name: str, base: Path, saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damaged = shutil.copytree(saved, tmp_path / "damaged")
    (damaged / name).write_bytes((saved / name).read_bytes()[:50])
    assert "damaged" in refusal(capsys, "apply", f"{base}@last", damaged, tmp_path / "whole")
    assert list(tmp_path.iterdir()) == [damaged]


def test_a_folder_of_something_else_is_refused(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = refusal(capsys, "apply", base, base / "checkpoints" / "step-4", tmp_path / "whole")
    assert "has no adapters" in told
    assert "xlm adapter save" in told
