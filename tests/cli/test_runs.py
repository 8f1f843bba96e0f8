"""`xlm runs`: what each run's folder says, and what two runs do differently."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from xlm_plugins.cli.main import main
from xlm_plugins.runs.folder import RunFolder


@pytest.fixture
def folder(tiny_run: Path, clm_run: Path, tmp_path: Path) -> Path:
    """Finished runs, one of another objective and one of a seed, and two damaged ones."""
    shutil.copytree(tiny_run, tmp_path / "whole")
    shutil.copytree(clm_run, tmp_path / "causal")
    shutil.copytree(tiny_run, tmp_path / "seeds" / "seed-1")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.toml").write_text("[train\n")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "config.toml").write_text("[train]\n")
    return tmp_path


def shown(folder: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, list[str]]:
    """The words of each run's line."""
    capsys.readouterr()
    assert main(["runs", str(folder)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["run", "status", "steps", "trains", "best"]
    return {words[0]: words[1:] for line in lines[1:] if (words := line.split())}


@pytest.mark.parametrize("width", ["80", "100"])
def test_every_run_is_listed(
    width: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", width)
    found = shown(folder, capsys)
    assert found["whole"][:4] == ["finished", "12/12", "mlm,", "tlm:en-fr"]
    name, value, at, step = found["whole"][-4:]
    assert (name, at) == ("valid_mlm_ppl", "at")
    assert float(value.replace(",", "")) > 1
    assert 0 < int(step) <= 12
    assert any(re.fullmatch(r"\d{4}-\d\d-\d\d", word) for word in found)  # below the status
    assert found["causal"][:3] == ["finished", "12/12", "clm"]
    assert found["seeds/seed-1"][0] == "finished"
    assert found["broken"][0] == found["empty"][0] == "damaged:"


def test_whether_a_run_goes_on(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = folder / "whole"
    config = run / "config.toml"
    config.write_text(config.read_text().replace("steps = 12", "steps = 1200"))
    assert shown(folder, capsys)["whole"][:2] == ["stopped", "12/1,200"]
    locked = RunFolder.reopen(run)
    assert shown(folder, capsys)["whole"][0] == "running"
    locked.close()
    shutil.rmtree(run / "checkpoints")
    assert shown(folder, capsys)["whole"][:3] == ["no", "checkpoint", "0/1,200"]


def test_a_damaged_checkpoint_hides_no_other_run(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "whole" / "checkpoints" / "step-12" / "trainer.json").write_text("{")
    found = shown(folder, capsys)
    assert found["whole"][0] == "damaged:"
    assert found["causal"][0] == "finished"


def test_a_run_that_its_criterion_ended(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = folder / "whole" / "config.toml"
    text = config.read_text().replace("steps = 12", "steps = 1200")
    state = folder / "whole" / "checkpoints" / "step-12" / "trainer.json"
    patience = json.loads(state.read_text())["validation"]["n_without"] + 1
    for n_without, status in ((patience - 1, "stopped"), (patience, "finished")):
        tree = json.loads(state.read_text())
        tree["validation"]["n_without"] = n_without
        state.write_text(json.dumps(tree))
        criterion = f'stopping-criterion = "_valid_mlm_ppl,{patience}"'
        config.write_text(text.replace("steps = 1200", f"steps = 1200\n{criterion}"))
        assert shown(folder, capsys)["whole"][0] == status


def test_a_run_that_time_ends(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = folder / "whole" / "config.toml"
    without_steps = config.read_text().replace("steps = 12\n", "minutes = {}\n")
    config.write_text(without_steps.format("1000.0"))
    assert shown(folder, capsys)["whole"][:2] == ["stopped", "12"]
    config.write_text(without_steps.format("0.0001"))
    assert shown(folder, capsys)["whole"][0] == "finished"


def test_what_two_runs_do_differently(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, other = str(folder / "whole"), str(folder / "causal")
    assert main(["runs", "--compare", one, other]) == 0
    out = capsys.readouterr().out
    assert "train.objective" in out
    assert out.splitlines()[0].split() == ["option", "whole", "causal"]  # not their long paths
    for name in ("best valid_mlm_ppl", "last valid_mlm_ppl", "last valid_clm_ppl"):
        (line,) = (line for line in out.splitlines() if line.startswith(name))
        assert re.search(r"\d\.\d\d", line)
    assert "train.seed" not in out  # it is the same
    assert "mlm.mask-prob" not in out  # only one trains on it
    assert main(["runs", "--compare", one, one]) == 0
    assert capsys.readouterr().out.startswith("all settings are the same\n")
    assert main(["runs", str(folder), "--compare", "whole", "causal"]) == 0  # by their names
    assert "train.objective" in capsys.readouterr().out


def test_long_paths_break_no_number(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    long = folder / ("a-very-long-name-of-a-folder" * 4)
    for parent in (long / "one", long / "two"):
        shutil.copytree(folder / "whole", parent / "run")
    assert main(["runs", "--compare", *(str(long / n / "run") for n in ("one", "two"))]) == 0
    (best,) = (line for line in capsys.readouterr().out.splitlines() if "best valid" in line)
    assert re.search(r"([\d,]+\.\d\d at \d+) +\1", best)


def test_where_there_is_no_run(refused: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("[train]\n")
    refused(["runs", tmp_path], f"{tmp_path} is a run itself", f"hint: xlm describe {tmp_path}")
    (tmp_path / "config.toml").unlink()
    refused(["runs"], "there is no run in runs", "hint: xlm runs DIR")
    refused(["runs", "--compare", tmp_path, tmp_path], f"{tmp_path} is no run")
