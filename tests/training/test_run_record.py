"""What plugins are told about a run, when, and that none of them can harm it."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from xlm_plugins.config.settings import Settings
from xlm_plugins.core.errors import PluginError
from xlm_plugins.core.plugins import Plugins
from xlm_plugins.runs.folder import RunFolder
from xlm_plugins.testing.runs import metrics_of
from xlm_plugins.training.pretraining.job import train
from xlm_plugins.training.progress import Report
from xlm_plugins.training.run_record import RunRecord

RECORDER = """
from xlm_plugins import hookimpl
from xlm_plugins.runs.whole_folders import verify

runs, steps, told = set(), [], []

@hookimpl
def xlm_step_end(run, step, metrics):
    runs.add(run)
    steps.append((step, dict(metrics)))
    told.append(step)

@hookimpl
def xlm_checkpoint_saved(run, path):
    verify(path)
    runs.add(run)
    told.append(path.relative_to(run).as_posix())
"""

FAILING = """
import torch
from xlm_plugins import hookimpl

told = []

@hookimpl
def xlm_checkpoint_saved(path):
    told.append(path.name)

@hookimpl
def xlm_step_end(step):
    told.append(step)
    torch.rand(step + 1)
    if step == 2:
        raise ValueError("disk is full")
"""

Install = Callable[..., Path]
MakeSettings = Callable[..., Settings]


@pytest.fixture
def recorder(install: Install) -> Any:
    """A plugin that records the calls of its hooks, as a module."""
    install("xlm-recorder", RECORDER)
    return importlib.import_module("xlm_recorder")


def as_told(line: dict[str, Any]) -> dict[str, float]:
    """The numbers in a line of metrics.jsonl under the names that plugins get."""
    if line["kind"] == "evaluation":
        return {name: value for name, value in line.items() if name.startswith("valid_")}
    label = f"train_{line['languages']}_{line['objective']}"
    common = ("learning_rate", "gradient_norm", "tokens", "skipped")
    told = {name: line[name] for name in common}
    return {f"{label}_loss": line["loss"], f"{label}_acc": line["accuracy"], **told}


def test_plugins_hear_of_everything_in_order(
    recorder: Any, tiny_settings: MakeSettings, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    often = {"steps": 5, "evaluate_every": 2, "save_every": 2, "log_every": 3}
    train(tiny_settings(out=str(out), **often), Plugins.discover())
    assert recorder.runs == {out}
    best = "best/valid_mlm_ppl"
    assert recorder.told == [
        *(0, 1),
        *(best, "checkpoints/step-2", 2, 3),
        *(best, "checkpoints/step-4", 4, 5),
        *(best, 5, "checkpoints/step-5"),  # measured and saved because the run ends
    ]
    arrived = [(step, metrics) for step, metrics in recorder.steps if metrics]
    assert [step for step, _ in arrived] == [0, 2, 3, 4, 5, 5]
    assert all(metrics.pop("tokens_per_second", 1) > 0 for _, metrics in arrived)
    kinds = ("evaluation", "evaluation", "train", "evaluation", "train", "evaluation")
    for (step, metrics), kind in zip(arrived, kinds, strict=True):
        lines = [x for x in metrics_of(out) if (x["step"], x["kind"]) == (step, kind)]
        assert metrics == {name: v for line in lines for name, v in as_told(line).items()}


def test_a_resumed_run_reports_only_its_own_updates(
    recorder: Any, tiny_settings: MakeSettings, tmp_path: Path
) -> None:
    out = str(tmp_path / "run")
    plugins = Plugins.discover()
    train(tiny_settings(out=out, steps=3), plugins)
    recorder.told.clear()
    train(tiny_settings(resume=out, steps=5), plugins)
    assert [step for step in recorder.told if isinstance(step, int)] == [4, 5, 5]


def test_a_plugin_that_fails_harms_nothing(
    recorder: Any,
    install: Install,
    tiny_settings: MakeSettings,
    tiny_run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It fails at step 2, and draws random numbers before, which do not affect the run's."""
    install("xlm-failing", FAILING)
    plugins = Plugins.discover()
    outcome = train(tiny_settings(out=str(tmp_path / "run")), plugins)
    assert outcome.reason == "done"
    assert metrics_of(outcome.path) == metrics_of(tiny_run)
    assert importlib.import_module("xlm_failing").told == [0, "step-1", 1, "step-2", 2]
    assert [at for at in recorder.told if isinstance(at, int)] == [*range(13), 12]
    (line,) = (x for x in capsys.readouterr().err.splitlines() if "a plugin failed" in x)
    assert "xlm-failing 1.0: in xlm_step_end: ValueError: disk is full" in line


@pytest.mark.parametrize("error", ["ValueError('no')", "SystemExit(3)", "KeyError('step')"])
def test_a_plugin_that_fails_is_not_called_again(
    error: str, recorder: Any, install: Install, tmp_path: Path
) -> None:
    raising = f"from xlm_plugins import hookimpl\n@hookimpl\ndef xlm_step_end(): raise {error}\n"
    install("xlm-raising", raising)
    plugins = Plugins.discover()
    told = plugins.call("xlm_step_end", run=tmp_path, step=1, metrics={"tokens": 5.0})
    assert [line.partition("(")[0].split(":")[0] for line in told] == ["xlm-raising 1.0"]
    assert f"in xlm_step_end: {error.partition('(')[0]}: " in told[0]
    (state,) = plugins.broken()
    assert (state.distribution, state.cause) == ("xlm-raising", told[0].partition(": ")[2])
    assert plugins.call("xlm_step_end", run=tmp_path, step=2, metrics={}) == []
    assert recorder.steps == [(1, {"tokens": 5.0}), (2, {})]


def test_a_plugin_that_fails_ends_a_strict_run(
    install: Install, tiny_settings: MakeSettings, tmp_path: Path
) -> None:
    install("xlm-failing", FAILING)
    plugins = Plugins.discover()
    plugins.strict = True
    with pytest.raises(PluginError, match=r"xlm-failing 1\.0 failed: .*disk is full"):
        train(tiny_settings(out=str(tmp_path / "run")), plugins)
    saved = [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()]
    assert sorted(saved) == ["step-1", "step-2"]


def test_other_ranks_call_no_plugin(recorder: Any, tmp_path: Path) -> None:
    record = RunRecord(RunFolder(tmp_path), Plugins.discover(), Report(Console(quiet=True)))
    record.evaluation(1, {"valid_mlm_ppl": 2.0})
    record.best(["valid_mlm_ppl"], lambda folder: None, ["valid_mlm_ppl"])
    record.checkpoint(1, lambda folder: None, keep=1)
    record.step_end(1)
    assert recorder.told == []
    assert list(tmp_path.iterdir()) == [tmp_path / "site-packages"]
