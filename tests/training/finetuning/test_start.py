"""What fine-tuning starts from, which parameters are trained, and remarks on the results."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from xlm_plugins.cli.main import main
from xlm_plugins.config.settings import Settings
from xlm_plugins.core.plugins import Plugins
from xlm_plugins.runs.find import find_bundle
from xlm_plugins.training.pretraining.job import train

Command = Callable[..., list[str]]


def results(run: Path) -> Any:
    return json.loads((run / "results.json").read_text())


def weights(reference: Path | str) -> dict[str, torch.Tensor]:
    return load_file(find_bundle(str(reference)) / "model.safetensors")


def test_a_good_model_has_no_remarks_and_a_bad_one_has(
    toy_command: Command,
    toy_files: Path,
    tiny_run: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    english = {"valid": f"{toy_files}/valid.en.tsv", "test": f"{toy_files}/test.en.tsv"}
    assert main(toy_command(tiny_run, tmp_path / "good", **english)) == 0
    assert "always predicting" not in capfd.readouterr().err
    frozen = ("--layers=_1:_1", "--lr=1e-9", "--head-lr=1e-9")
    table = (toy_files / "train.en.tsv").read_text().splitlines()[1:]
    texts = [row.split("\t")[1] for row in table]
    any_label = random.Random(5)  # no rule in them: whatever the head says is right by chance
    rows = "".join(f"{any_label.choice(('good', 'bad', 'bad'))}\t{text}\n" for text in texts)
    (tmp_path / "any.en.tsv").write_text(f"label\ttext\n{rows}")
    chance = {"valid": f"{toy_files}/valid.en.tsv", "test": str(tmp_path / "any.en.tsv")}
    assert main(toy_command(tiny_run, tmp_path / "frozen", *frozen, **chance)) == 0
    told = capfd.readouterr().err
    assert "\ntest en: " in told
    assert "where always predicting 'bad' gives 6" in told
    assert "perhaps too much of the encoder is frozen: --layers _1:_1" in told
    high = ("--lr=3", "--head-lr=3", "--warmup=0", "--clip=0")
    assert main(toy_command(tiny_run, tmp_path / "high", *high, **english)) == 0
    told = capfd.readouterr().err
    assert "100 % of the predictions are one class" in told
    assert told.count("perhaps the learning rate is too high: --lr 3 and --head-lr 3") == 1


@pytest.mark.parametrize(
    ("layers", "moved"),
    [("0:_1", {"embeddings", "0", "1", "head"}), ("1:_2", {"0", "head"}),
     ("0:1", {"embeddings", "0", "head"}), ("_1", {"1", "head"})],
)  # fmt: skip
def test_layers_freezes_the_others(
    toy_command: Command, tiny_run: Path, tmp_path: Path, layers: str, moved: set[str]
) -> None:
    out = tmp_path / "run"
    assert main(toy_command(tiny_run, out, f"--layers={layers}", "--steps=3")) == 0
    before, after = weights(tiny_run), weights(out)
    changed = set()
    for name, weight in after.items():
        part = name.split(".")[1:3] if name.startswith("encoder") else ["head"]
        is_buffer = "running_" in name or "num_batches" in name  # of the memory's BatchNorm
        if not is_buffer and (name not in before or not torch.equal(before[name], weight)):
            changed.add(part[1] if part[0] == "layers" else part[0])
    assert changed == moved


def test_the_head_can_have_its_own_learning_rate(
    toy_command: Command, tiny_run: Path, tmp_path: Path
) -> None:
    outs = [tmp_path / name for name in ("same", "higher")]
    for out, rate in zip(outs, ("1e-3", "1e-1"), strict=True):
        flags = ("--steps=1", f"--head-lr={rate}", "--lr=1e-3", "--schedule=constant")
        assert main(toy_command(tiny_run, out, *flags)) == 0
    same, higher = map(weights, outs)
    differing = {name for name in same if not torch.equal(same[name], higher[name])}
    assert differing == {"heads.classify.head.linear.weight", "heads.classify.head.linear.bias"}


def test_a_model_with_memory_and_adapters(
    toy_command: Command,
    tiny_settings: Callable[..., Settings],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    few = {"steps": 2, "evaluate_every": 0, "save_every": 0}
    settings = tiny_settings(layer=["pkm", "adapter"], out=str(tmp_path / "base"), **few)
    base = train(settings, Plugins.discover()).path
    out = tmp_path / "run"
    assert main(toy_command(base, out)) == 0
    assert "frozen" in capfd.readouterr().err  # the adapters ask for it
    before, after = weights(base), weights(out)
    moved = {n for n, w in after.items() if n not in before or not torch.equal(before[n], w)}
    assert any(".after." in name for name in moved)
    assert any(name.startswith("heads.") for name in moved)
    assert not any(".embeddings." in name or ".attention." in name for name in moved)
    assert {key for key in results(out) if "pkm" in key} == set()


def test_a_finetuned_model_can_be_finetuned_again(
    toy_command: Command,
    toy_files: Path,
    toy_run: Path,
    tiny_data: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    head = "heads.classify.head.linear.weight"
    still = ("--steps=1", "--lr=1e-9", "--head-lr=1e-9", "--dropout=0")
    assert main(toy_command(toy_run, tmp_path / "again", *still)) == 0
    expected = weights(toy_run)[head]  # of the same classes: goes on from there
    torch.testing.assert_close(weights(tmp_path / "again")[head], expected, rtol=0, atol=1e-6)
    assert results(tmp_path / "again")["test_en_classify_acc"] > 95
    renamed = tmp_path / "train.en.tsv"
    renamed.write_text((toy_files / "train.en.tsv").read_text().replace("good\t", "worse\t"))
    alone = dict.fromkeys(("train", "valid", "test"), str(renamed))
    assert main(toy_command(toy_run, tmp_path / "other", *still, **alone)) == 0
    assert (weights(tmp_path / "other")[head] - expected).abs().max() > 1e-3
    capfd.readouterr()
    more = ["train", "--objective=mlm", f"--data={tiny_data}", f"--init={toy_run}", "--steps=1"]
    shape = ("--dim=16", "--n-layers=2", "--n-heads=2", "--evaluate-every=0", "--threads=1")
    assert main([*more, *shape, f"--out={tmp_path / 'train'}"]) == 0
    told = capfd.readouterr().err
    assert "tensors copied" in told
    assert "left out" in told
