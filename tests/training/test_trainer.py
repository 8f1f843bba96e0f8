"""The training loop: what is recorded when, what skipped updates lead to, what resuming repeats."""

from __future__ import annotations

import copy
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from helpers.engine_worker import ADAM, Broken, Classes, Words, batch, engine_of, objective
from torch.utils.data import Dataset

from xlm_plugins import BundleError, DivergenceError
from xlm_plugins.config.training import RunOptions
from xlm_plugins.contracts.batch import Batch, Step
from xlm_plugins.data.batches.schedule import Update
from xlm_plugins.training.best_models import Validation
from xlm_plugins.training.distributed.process_group import World
from xlm_plugins.training.distributed.signals import StopAsked, StopRequest
from xlm_plugins.training.distributed.watchdog import Watchdog
from xlm_plugins.training.engines.engine import Engine
from xlm_plugins.training.engines.training_state import TrainingState
from xlm_plugins.training.trainer import MAX_SKIPPED_IN_A_ROW, Trainer, TrainerState, TrainingPlan

METRIC = "valid_ppl"
Event = tuple[str, int]
Checkpoint = tuple[dict[str, Any], TrainingState]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tensors are tiny: a second thread only waits."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class NotFinite(Broken):
    """A loss that is not finite, under a name of its own."""

    name = "not-finite"


class Batches(Dataset[list[Batch]]):
    """Two micro-batches per update."""

    def __getitem__(self, index: int) -> list[Batch]:
        return [batch(index, part, 2) for part in range(2)]


class Values:
    """An evaluation that returns one value after the other; at None a signal interrupts it."""

    def __init__(self, values: Sequence[float | None], stop: StopRequest) -> None:
        self.values = list(values)
        self.stop = stop

    def names(self, model: Any, split: str) -> list[str]:
        return [METRIC]

    def evaluate(
        self, engine: Engine, split: str, keep: Path | None = None, on_progress: Any = None
    ) -> dict[str, float]:
        value = self.values.pop(0)
        if value is None:
            self.stop.signal = signal.SIGTERM
            raise StopAsked
        return {METRIC: value}


class Recorder:
    """Takes the place of a `RunRecord`: events in order, log lines, and checkpoints in memory.

    :param after: called after every event.
    """

    def __init__(self, after: Callable[[Event], object]) -> None:
        metrics = SimpleNamespace(position=lambda: 0)
        self.folder = SimpleNamespace(hypotheses=Path("hypotheses"), metrics=metrics)
        self.events: list[Event] = []
        self.lines: list[dict[str, Any]] = []
        self.notes: list[str] = []
        self.places: list[str] = []
        self.after = after

    def add(self, event: str, update: int) -> None:
        self.events.append((event, update))
        self.after((event, update))

    def note(self, text: str) -> None:
        self.notes.append(text)

    warn = note

    def training(self, update: int, records: Any, common: Any, place: str, *_: float) -> None:
        self.places.append(place)
        kept = {name: value for name, value in common.items() if name != "tokens_per_second"}
        self.lines += [{"step": update, **record, **kept} for record in records]
        for line in self.lines:
            line["gradient_norm"] = str(line["gradient_norm"])  # NaN equals nothing
        self.add("log", update)

    def evaluating(self, activity: str, share: float) -> None:
        """Not an event: only the terminal shows it."""

    def evaluation(self, update: int, metrics: Mapping[str, float]) -> None:
        self.add("evaluation", update)

    def best(self, improved: Sequence[str], fill: Any, metrics: Sequence[str]) -> None:
        assert improved == list(metrics) == [METRIC]
        self.add("best", self.events[-1][1])

    def checkpoint(self, update: int, fill: Any, keep: int) -> None:
        self.add("checkpoint", update)

    def step_end(self, update: int) -> None:
        self.add("step end", update)


class Run:
    """A trainer of a tiny model, and what it records.

    :param kinds: the objectives, which take turns.
    :param values: what evaluations return.
    :param start: a checkpoint to resume from.
    :param after: called after every event, with the run.
    :param options: of the run: six updates, evaluated and saved only at the end by default.
    """

    def __init__(
        self,
        *kinds: type[Words],
        values: Sequence[float | None] = (9.0,) * 20,
        start: Checkpoint | None = None,
        after: Callable[[Run, Event], object] = lambda run, event: None,
        may_leave_out: bool = False,
        **options: Any,
    ) -> None:
        kinds = kinds or (Words,)
        given = RunOptions(**{"steps": 6, "evaluate_every": 0, "save_every": 0, **options})
        state, training = start or (asdict(TrainerState("data")), None)
        self.stop = StopRequest()
        self.plan = TrainingPlan(
            None, Path(), {kind.name: objective(kind) for kind in kinds},
            lambda n: Update(n, n, kinds[n % len(kinds)].name, Step(("en",)), n, 1.0),
            Batches(), Values(values, self.stop), Validation.of(given, (f"_{METRIC}",), [METRIC]),
            evaluates_untrained=True, may_leave_out=may_leave_out,
        )  # fmt: skip
        self.record = Recorder(lambda event: after(self, event))
        self.trainer = Trainer(
            given, ADAM, self.plan, engine_of(World(), training), TrainerState(**state),
            self.record, self.stop, Watchdog(World(), 10.0),
        )  # fmt: skip

    def __call__(self) -> Run:
        self.reason = self.trainer.run()
        return self

    @property
    def checkpoint(self) -> Checkpoint:
        return copy.deepcopy((asdict(self.trainer.state), self.trainer.engine.state()))

    @property
    def saved(self) -> list[Event]:
        return [event for event in self.record.events if event[0] != "step end"]


def stopping_after(*moment: Any) -> Callable[[Run, Event], None]:
    """A signal right after an event."""

    def after(run: Run, event: Event) -> None:
        if event == moment:
            run.stop.signal = signal.SIGTERM

    return after


def test_logs_come_before_evaluations_and_evaluations_before_checkpoints() -> None:
    run = Run(log_every=2, evaluate_every=3, save_every=3, values=(9.0, 8.0, 7.0))()
    assert run.reason == "done"
    assert run.record.events == [
        ("evaluation", 0), ("step end", 0),  # of the untrained model, which is not kept
        ("step end", 1),
        ("log", 2), ("step end", 2),
        ("evaluation", 3), ("best", 3), ("checkpoint", 3), ("step end", 3),
        ("log", 4), ("step end", 4),
        ("step end", 5),
        ("log", 6), ("step end", 6),
        ("evaluation", 6), ("best", 6), ("step end", 6), ("checkpoint", 6),
    ]  # fmt: skip
    assert run.record.notes == ["evaluating the untrained model on the validation data"]


def test_everything_comes_once_at_the_end_whatever_the_intervals() -> None:
    run = Run(log_every=100)()
    assert run.saved == [("log", 6), ("evaluation", 6), ("best", 6), ("checkpoint", 6)]


def test_only_better_models_are_kept() -> None:
    run = Run(log_every=100, evaluate_every=2, values=(9.0, 8.0, 8.5, 7.0))()
    assert [update for event, update in run.saved if event == "best"] == [2, 6]


def test_a_log_line_covers_all_updates_since_the_last_one() -> None:
    run = Run(Words, Classes, log_every=4)()
    assert [(line["step"], line["objective"], line["updates"]) for line in run.record.lines] == [
        (4, "words", 2), (4, "classes", 2), (6, "words", 1), (6, "classes", 1),
    ]  # fmt: skip
    assert [line["tokens"] for line in run.record.lines] == [96, 96, 144, 144]
    losses = [line["loss"] for line in Run(log_every=1)().record.lines]
    (line,) = Run(log_every=6)().record.lines
    assert line["loss"] == pytest.approx(sum(losses) / 6)


def test_skipped_updates_are_counted() -> None:
    run = Run(Words, NotFinite, log_every=1)()
    assert run.reason == "done"
    assert [line["skipped"] for line in run.record.lines] == [0, 1, 1, 2, 2, 3]
    assert run.trainer.state.update == 6
    assert run.trainer.engine.state().n_updates == 3


def test_only_skipped_updates_in_a_row_end_a_run() -> None:
    n = MAX_SKIPPED_IN_A_ROW
    spared = Run(*[NotFinite] * (n - 1), Words, steps=2 * n)()
    assert spared.trainer.state.n_skipped == 2 * n - 2
    ended = Run(Words, *[NotFinite] * n, steps=2 * n)
    with pytest.raises(DivergenceError) as raised:
        ended()
    ids = batch(n, 0, 2).sample_ids.tolist() + batch(n, 1, 2).sample_ids.tolist()
    assert f"update {n} (not-finite:en, samples {ids[:10]})" in raised.value.problem
    assert ended.trainer.state.n_skipped == n
    assert ended.saved == [("log", 10), ("log", 20)]


def test_a_signal_ends_a_run_after_the_update_and_saves_without_evaluating() -> None:
    run = Run(log_every=3, after=stopping_after("log", 3))()
    assert run.reason == "SIGTERM"
    assert run.saved == [("log", 3), ("checkpoint", 3)]


def test_a_signal_during_the_last_evaluation_counts() -> None:
    run = Run(log_every=6, values=(None,))()
    assert run.reason == "SIGTERM"
    assert run.saved == [("log", 6), ("checkpoint", 6)]
    assert run.trainer.state.evaluated == -1


def test_an_interrupted_evaluation_is_made_up_for_before_training() -> None:
    options = {"log_every": 6, "evaluate_every": 3}
    cut = Run(values=(9.0, None), **options)()
    assert cut.reason == "SIGTERM"
    assert cut.saved == [("evaluation", 0), ("checkpoint", 3)]
    resumed = Run(values=(8.0, 7.0), start=cut.checkpoint, **options)()
    assert resumed.saved[:3] == [("evaluation", 3), ("best", 3), ("log", 6)]


@pytest.mark.parametrize("update", [3, 4, 5])
def test_a_resumed_run_repeats_the_uninterrupted_one_bitwise(update: int) -> None:
    """Log lines in whose midst the run is cut, and what is the best model so far."""
    options = {"log_every": 2, "evaluate_every": 2, "steps": 8}
    values = (9.0, 7.0, 8.0, 7.5, 6.0)
    whole = Run(Words, Classes, NotFinite, values=values, **options)()
    cut = Run(
        Words, Classes, NotFinite, values=values,
        after=stopping_after("step end", update), **options,
    )()  # fmt: skip
    left = cut.plan.evaluation.values
    resumed = Run(Words, Classes, NotFinite, values=left, start=cut.checkpoint, **options)()
    assert cut.record.lines + resumed.record.lines == whole.record.lines
    without_cut = [event for event in cut.saved if event != ("checkpoint", update)]
    assert without_cut + resumed.saved == whole.saved


def test_a_finished_run_that_is_resumed_saves_nothing_again() -> None:
    finished = Run()()
    again = Run(start=finished.checkpoint)()
    assert (again.reason, again.saved) == ("done", [])


def test_a_finished_run_may_be_trained_longer() -> None:
    finished = Run()()
    longer = Run(start=finished.checkpoint, steps=8, log_every=100)()
    assert longer.saved == [("log", 8), ("evaluation", 8), ("checkpoint", 8)]


def test_the_stopping_criterion_ends_a_run() -> None:
    values = (9.0, 8.0, 8.5, 8.5, 1.0)
    run = Run(evaluate_every=1, stopping_criterion=f"_{METRIC},2", values=values, log_every=100)()
    assert run.reason == "criterion"
    assert run.saved[-3:] == [("evaluation", 3), ("log", 3), ("checkpoint", 3)]


def test_the_clock_ends_a_run_and_counts_earlier_sessions() -> None:
    by_steps = Run(minutes=60.0)()
    assert by_steps.reason == "done"
    assert by_steps.record.places[-1] == "step 6/6"
    state, training = Run(minutes=60.0, after=stopping_after("step end", 2))().checkpoint
    state["elapsed"] += 3600
    resumed = Run(minutes=60.0, start=(state, training))()
    assert (resumed.reason, resumed.trainer.state.update) == ("minutes", 2)
    assert resumed.saved == [("log", 2), ("evaluation", 2), ("best", 2), ("checkpoint", 2)]
    assert resumed.record.places == ["step 2  minute 60.0/60"]


def test_what_was_left_out_is_counted_in_log_lines_and_reported_once() -> None:
    def after(run: Run, event: Event) -> None:
        if event == ("step end", 2):
            run.trainer._left_out |= {"train.en/0", "train.en/1"}

    run = Run(may_leave_out=True, log_every=2, after=after)()
    assert [line["blocks_left_out"] for line in run.record.lines] == [0, 2, 2]
    (note,) = run.record.notes
    assert note.startswith("2 blocks of training text could not be read")
    assert run.trainer.state.left_out == ["train.en/0", "train.en/1"]
    assert "blocks_left_out" not in Run()().record.lines[0]


@pytest.mark.parametrize("text", [None, "{", "[]", '{"data": "x", "unknown": 1}'])
def test_a_state_that_cannot_be_read_is_named(text: str | None, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "trainer.json").write_text(text)
    with pytest.raises(BundleError, match=r"trainer\.json"):
        TrainerState.read(tmp_path)
