"""Running a job: what is refused and when, which folder is used, and where a run resumes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers.gradient_worker import ADAM, STEPS, Case, NoEvaluation

from xlm_plugins import DataError, OptionError, RunError
from xlm_plugins.config.settings import Values
from xlm_plugins.config.training import RunOptions
from xlm_plugins.contracts.batch import Step
from xlm_plugins.core.plugins import Plugins
from xlm_plugins.core.saved_tokenizers import save_tokenizer
from xlm_plugins.model.model import Model
from xlm_plugins.runs.metrics_file import read_metrics
from xlm_plugins.testing.words import WordTokenizer
from xlm_plugins.training import run_job as running
from xlm_plugins.training.best_models import Validation
from xlm_plugins.training.distributed import agreement
from xlm_plugins.training.engines.engine import Engine
from xlm_plugins.training.job import Job, Outcome
from xlm_plugins.training.preflight import Rehearsal
from xlm_plugins.training.progress import Report
from xlm_plugins.training.run_job import _resumed_path, run_job
from xlm_plugins.training.trainer import Trainer, TrainerState, TrainingPlan

STEPS_OF_A_JOB = [
    "build", "notes", "initialise", "describe_update", "rehearsals", "training_plan", "config",
    "prepare_folder",
]  # fmt: skip


class MadeUp(Job):
    """A job of three updates on made-up batches; notes which of its steps are called.

    :param failing: the step that raises an error.
    """

    command = "xlm made-up"

    def __init__(self, options: RunOptions, tokenizer: Path, failing: str = "") -> None:
        self.case = Case("mlm")
        self.tokenizer = tokenizer
        self.failing = failing
        self.called: list[str] = []
        super().__init__(options, ADAM, self.case.description, "data", "made-up", {})

    def call(self, step: str) -> None:
        self.called += [step] * (step not in self.called)
        if step == self.failing:
            raise DataError(f"{step} does not work")

    def check_resumed(self, checkpoint: Path, run: Path) -> None:
        self.call("check_resumed")

    def build(self) -> Model:
        self.call("build")
        return self.case.model()

    def notes(self, model: Model) -> list[str]:
        self.call("notes")
        return []

    def initialise(self, model: Model, report: Report) -> None:
        self.call("initialise")

    def passes(self, n_updates: int) -> list[str]:
        self.call("passes")
        return []

    def describe_update(self, index: int) -> str:
        self.call("describe_update")
        return f"update {index}"

    def rehearsals(self, n_parts: int) -> list[Rehearsal]:
        self.call("rehearsals")
        return [Rehearsal(self.case.objectives["mlm"], Step.parse(STEPS["mlm"]), self.case[0][0])]

    def training_plan(self, engine: Engine) -> TrainingPlan:
        self.call("training_plan")
        return TrainingPlan(
            self.description, self.tokenizer, self.case.objectives, self.case.update, self.case,
            NoEvaluation(), Validation(()), evaluates_untrained=False,
        )  # fmt: skip

    def config(self) -> str:
        self.call("config")
        return "[made-up]\n"

    def completed(self, config: Values) -> str:
        self.call("completed")
        return "[made-up]\n"

    def prepare_folder(self) -> None:
        self.call("prepare_folder")


@pytest.fixture(scope="module")
def plugins() -> Plugins:
    return Plugins.discover()


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory, plugins: Plugins) -> Path:
    folder = tmp_path_factory.mktemp("made-up") / "tokenizer"
    save_tokenizer(plugins.get("tokenizer", "sentencepiece"), WordTokenizer("abc"), folder)
    return folder


@pytest.fixture(autouse=True)
def no_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "plot_runs", lambda runs, out: None)


@pytest.fixture
def job(tokenizer: Path, tmp_path: Path) -> Callable[..., MadeUp]:
    """``job(failing="notes", steps=4)``: into ``tmp_path / "run"`` unless it is resumed."""

    def job(failing: str = "", **options: Any) -> MadeUp:
        usual = {"steps": 3, "evaluate_every": 0, "save_every": 1, "log_every": 1, "threads": 1}
        out = {} if "resume" in options else {"out": str(tmp_path / "run")}
        return MadeUp(RunOptions(**{**usual, **out, **options}), tokenizer, failing)

    return job


@pytest.fixture
def run(plugins: Plugins) -> Callable[[MadeUp], Outcome]:
    return lambda job: run_job(job.options, lambda report: job, plugins)


Jobs = Callable[..., MadeUp]
Run = Callable[[MadeUp], Outcome]


def lines(run: Path) -> list[dict[str, Any]]:
    clock = ("time", "tokens_per_second")
    found = read_metrics(run / "metrics.jsonl")
    return [{name: v for name, v in line.items() if name not in clock} for line in found]


def fail_in_update(monkeypatch: pytest.MonkeyPatch, index: int, error: Exception) -> None:
    update = Trainer._update

    def failing(self: Trainer, drawn: Any, batches: Any) -> None:
        if drawn.index == index:
            raise error
        update(self, drawn, batches)

    monkeypatch.setattr(Trainer, "_update", failing)


def test_the_steps_of_a_job_come_in_order(job: Jobs, run: Run, tmp_path: Path) -> None:
    made_up = job()
    assert run(made_up) == Outcome("done", tmp_path / "run", 3)
    assert made_up.called == STEPS_OF_A_JOB
    assert (tmp_path / "run" / "config.toml").read_text() == "[made-up]\n"
    assert [line["step"] for line in lines(tmp_path / "run")] == [1, 2, 3]


@pytest.mark.parametrize("step", STEPS_OF_A_JOB[: STEPS_OF_A_JOB.index("prepare_folder")])
def test_a_job_that_refuses_leaves_no_folder(
    job: Jobs, run: Run, tmp_path: Path, step: str
) -> None:
    made_up = job(failing=step)
    with pytest.raises(DataError, match=f"{step} does not work"):
        run(made_up)
    assert made_up.called[-1] == step
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_decided_is_refused(plugins: Plugins, tmp_path: Path) -> None:
    def decide(report: Report) -> Job:
        raise DataError("no such data")

    with pytest.raises(DataError, match="no such data"):
        run_job(RunOptions(out=str(tmp_path / "run")), decide, plugins)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("index", "error", "is_removed"),
    [
        (0, DataError("a shard is gone"), True),
        (0, MemoryError(), True),
        (0, KeyError("a bug"), False),  # left for whoever looks for it
        (1, DataError("a shard is gone"), False),
    ],
)
def test_a_new_folder_is_removed_if_nothing_was_trained(
    job: Jobs,
    run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    index: int,
    error: Exception,
    is_removed: bool,
) -> None:
    fail_in_update(monkeypatch, index, error)
    with pytest.raises((DataError, RunError, KeyError)):
        run(job())
    assert (tmp_path / "run").exists() is not is_removed


def test_a_resumed_folder_is_never_removed(
    job: Jobs, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(job())
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    fail_in_update(monkeypatch, 0, DataError("a shard is gone"))
    with pytest.raises(DataError):
        run(job(resume=str(tmp_path / "run")))
    assert (tmp_path / "run" / "config.toml").is_file()


@pytest.mark.parametrize("when", ["rehearsal", "training"])
def test_out_of_memory_says_what_the_run_needs(
    job: Jobs, run: Run, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    def fail(*given: Any) -> str:
        raise MemoryError

    if when == "rehearsal":
        monkeypatch.setattr(running, "rehearse", fail)
    else:
        fail_in_update(monkeypatch, 1, MemoryError())
    with pytest.raises(RunError, match="ran out of memory") as raised:
        run(job())
    assert raised.value.expected.startswith("memory per rank, about: ")


def test_a_run_resumes_from_its_newest_checkpoint(job: Jobs, run: Run, tmp_path: Path) -> None:
    folder = run(job()).path
    whole = lines(folder)
    shutil.rmtree(folder / "checkpoints" / "step-3")
    resumed = job(resume=str(folder))
    assert run(resumed) == Outcome("done", folder, 3)
    assert resumed.called == [
        "check_resumed", "build", "notes", "describe_update", "rehearsals", "training_plan",
        "prepare_folder", "config", "completed",
    ]  # fmt: skip
    assert lines(folder) == whole  # the last line was cut, and written again


def test_a_damaged_checkpoint_is_skipped(
    job: Jobs, run: Run, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = run(job()).path
    whole = lines(folder)
    (folder / "checkpoints" / "step-3" / "state.json").write_text("{")
    run(job(resume=str(folder)))
    told = capfd.readouterr().err
    assert "skipping the damaged checkpoint step-3: " in told
    assert f"resuming from {folder / 'checkpoints' / 'step-2'} after 2 steps" in told
    assert lines(folder) == whole


def test_a_run_without_a_checkpoint_starts_from_its_beginning(
    job: Jobs, run: Run, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = run(job()).path
    whole = lines(folder)
    shutil.rmtree(folder / "checkpoints")
    resumed = job(resume=str(folder))
    run(resumed)
    assert "has no checkpoint yet" in capfd.readouterr().err
    assert "initialise" in resumed.called
    assert lines(folder) == whole


def test_data_that_the_job_refuses_is_not_resumed(job: Jobs, run: Run, tmp_path: Path) -> None:
    folder = run(job()).path
    with pytest.raises(DataError, match="check_resumed does not work"):
        run(job(failing="check_resumed", resume=str(folder), steps=9))
    assert TrainerState.read(folder / "checkpoints" / "step-3").update == 3


def test_another_model_is_not_resumed(job: Jobs, run: Run, tmp_path: Path) -> None:
    folder = run(job()).path
    other = job(resume=str(folder))
    other.description = replace(other.description, languages={"en": 0})
    with pytest.raises(RunError, match="the run's languages are not those requested") as raised:
        run(other)
    assert f"xlm made-up --resume {folder}" in raised.value.remedy


def test_what_is_no_run_is_not_resumed(job: Jobs, run: Run, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="holds no run"):
        run(job(resume=str(tmp_path / "nowhere")))


def test_which_run_is_resumed(tmp_path: Path) -> None:
    out = str(tmp_path / "run")
    assert _resumed_path(RunOptions(out=out)) is None
    assert _resumed_path(RunOptions(out=out, resume="elsewhere")) == Path("elsewhere")
    assert _resumed_path(RunOptions(out=out, resume="auto")) is None
    with pytest.raises(OptionError, match="does not say which run"):
        _resumed_path(RunOptions(resume="auto"))
    Path(out).mkdir()
    assert _resumed_path(RunOptions(out=out, resume="auto")) is None
    Path(out, "config.toml").touch()
    assert _resumed_path(RunOptions(out=out, resume="auto")) == Path(out)


def test_a_run_without_a_name_gets_the_number_that_is_free_on_all_ranks(
    job: Jobs, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("runs", "made-up-1").mkdir(parents=True)
    assert run(job(out=None, steps=1)).path == Path("runs", "made-up-2")
    greatest = Engine.max_over_ranks

    def over_ranks(self: Engine, value: float) -> float:
        return 7.0 if value == 3.0 else greatest(self, value)

    monkeypatch.setattr(Engine, "max_over_ranks", over_ranks)
    assert run(job(out=None, steps=1)).path == Path("runs", "made-up-7")


def test_ranks_compare_the_next_updates_before_anything_is_written(
    job: Jobs, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = run(job()).path
    compared: list[tuple[Any, ...]] = []

    def facts(*given: Any) -> dict[str, str]:
        compared.append(given)
        raise RunError("rank 1 would do something else")

    monkeypatch.setattr(agreement, "facts", facts)
    resumed = job(resume=str(folder), steps=400)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    with pytest.raises(RunError, match="something else"):
        run(resumed)
    ((options, optimizer, description, data, update, updates, _),) = compared
    assert (options, optimizer, data, update) == (resumed.options, ADAM, "data", 3)
    assert json.dumps(description) == json.dumps(resumed.description.to_json())
    assert updates == [f"update {index}" for index in range(3, 103)]
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    with pytest.raises(RunError, match="something else"):
        run(job(out=str(tmp_path / "new")))
    assert compared[1][5] == ["update 0", "update 1", "update 2"]
    assert not (tmp_path / "new").exists()


def test_the_rehearsal_precedes_the_folder_and_changes_nothing(
    job: Jobs, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rehearse, seen = running.rehearse, []

    def rehearsed(*given: Any) -> str:
        seen.append((tmp_path / "run").exists())
        return rehearse(*given)

    with monkeypatch.context() as patch:
        patch.setattr(running, "rehearse", rehearsed)
        run(job())
    assert seen == [False]
    monkeypatch.setattr(running, "rehearse", lambda *given: "")
    run(job(out=str(tmp_path / "without")))
    assert lines(tmp_path / "run") == lines(tmp_path / "without")


def test_a_plot_that_fails_is_reported_and_fails_no_run(
    job: Jobs,
    run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    def fail(runs: list[Path], out: Path) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(running, "plot_runs", fail)
    assert run(job()).reason == "done"
    assert f"to draw them later: xlm plot {tmp_path / 'run'}" in capfd.readouterr().err
