"""The training loop: draw a step, make its batches, update, and now and then log, measure, save.

What is drawn, and how it is measured, is the `Course`: `pretraining` and `finetuning` make one.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from signal import Signals
from typing import Any, Protocol

import torch
from torch.utils.data import Dataset

from xlm_plugins.config.training import OptimizerOptions, RunOptions
from xlm_plugins.contracts.batch import Batch
from xlm_plugins.contracts.objective import Trainable
from xlm_plugins.core.errors import BundleError, DivergenceError
from xlm_plugins.core.files import write_json
from xlm_plugins.data.batches.keyed_rng import keyed_rng
from xlm_plugins.data.batches.loader import load_batches
from xlm_plugins.data.batches.schedule import Update
from xlm_plugins.model.bundle import write_description
from xlm_plugins.model.description import ModelDescription
from xlm_plugins.model.model import Model
from xlm_plugins.model.weights import save_tensors
from xlm_plugins.runs.folder import RunFolder
from xlm_plugins.runs.layout import WEIGHTS_NAME
from xlm_plugins.runs.metrics_file import MetricsFile
from xlm_plugins.training.best_models import Validation
from xlm_plugins.training.distributed.signals import StopAsked, StopRequest
from xlm_plugins.training.distributed.watchdog import Watchdog
from xlm_plugins.training.engines.engine import Engine
from xlm_plugins.training.engines.training_state import save_training_state
from xlm_plugins.training.optim.learning_rate import LearningRate
from xlm_plugins.training.progress import Report
from xlm_plugins.training.run_hooks import RunHooks
from xlm_plugins.training.tallies import Tallies

TRAINER_NAME = "trainer.json"
MAX_SKIPPED_IN_A_ROW = 20


@dataclass
class TrainerState:
    """What a resume needs besides weights and moments: a few numbers.

    :param data: fingerprint of the data set.
    :param update: updates done.
    :param evaluated: updates done at the last evaluation; -1 before the first one.
    :param elapsed: seconds of training so far, over all starts.
    :param n_tokens: input tokens seen, by all ranks.
    :param n_skipped: updates skipped for a non-finite gradient.
    :param metrics_position: length of metrics.jsonl, in bytes.
    :param tallies: sums of the log line that is still open.
    :param validation: best values so far.
    :param left_out: keys of the blocks of text that could not be read and were left out.
    """

    data: str
    update: int = 0
    evaluated: int = -1
    elapsed: float = 0.0
    n_tokens: int = 0
    n_skipped: int = 0
    metrics_position: int = 0
    tallies: dict[str, Any] = field(default_factory=lambda: {"steps": [], "tokens": 0})
    validation: dict[str, Any] = field(default_factory=lambda: {"best": {}, "n_without": 0})
    left_out: list[str] = field(default_factory=list)

    @classmethod
    def read(cls, checkpoint: Path) -> TrainerState:
        """The state in a checkpoint folder.

        :raises BundleError: it is missing or unreadable.
        """
        path = checkpoint / TRAINER_NAME
        try:
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise BundleError(f"{path} cannot be read: {error}") from error


class Evaluation(Protocol):
    """How a model is measured on a split."""

    def names(self, model: Model, split: str) -> list[str]:
        """The names of what `evaluate` will give, or shell patterns of them."""

    def evaluate(self, engine: Engine, split: str, keep: Path | None = None) -> dict[str, float]:
        """All metrics of a split, equal on all ranks; ``keep`` is a folder for what is written."""


@dataclass(frozen=True)
class Course:
    """What a run goes through, and what it is measured by.

    :param description: of the model, as checkpoints record it.
    :param tokenizer: the folder of its saved tokenizer.
    :param trainables: what losses come from, by name.
    :param update: number of an update -> what it trains on.
    :param batches: number of an update -> this rank's micro-batches.
    :param best_by: what the best model is chosen by where the options name nothing.
    :param measures_untrained: whether there is anything to measure before the first update.
    :param may_leave_out: whether text that cannot be read is left out, which is then counted.
    """

    description: ModelDescription
    tokenizer: Path
    trainables: Mapping[str, Trainable]
    update: Callable[[int], Update]
    batches: Dataset[list[Batch]]
    evaluation: Evaluation
    best_by: tuple[str, ...]
    measures_untrained: bool
    may_leave_out: bool = False


class Trainer:
    """One run: all that can be refused is refused when it is made, and `run` trains.

    :param engine: holds the model; every rank has one.
    :param report: shows the progress.
    :param state: where to go on; a fresh one starts.
    :raises XLMError: a validation metric cannot be measured.
    """

    def __init__(
        self,
        options: RunOptions,
        optimizer: OptimizerOptions,
        course: Course,
        engine: Engine,
        report: Report,
        state: TrainerState,
    ) -> None:
        self.options = options
        self.course = course
        self.engine = engine
        self.report = report
        self.state = state
        self._validation = Validation(
            options.validation_metrics or course.best_by, options.stopping_criterion
        )
        self._validation.check(course.evaluation.names(engine.model, "valid"))
        self._validation.restore(state.validation)
        self._learning_rate = LearningRate(optimizer)
        self._tallies = Tallies(engine.device)
        self._tallies.restore(state.tallies, engine.rank)
        self._left_out = set(state.left_out)
        self._skipped_in_a_row = 0
        self._gradient_norm = self._rate = 0.0
        self._is_saved = state.update > 0

    def run(self, folder: RunFolder, stop: StopRequest, hooks: RunHooks, watch: Watchdog) -> str:
        """Train until the end.

        :param folder: where the run is written.
        :param stop: notes the signals that end the run early.
        :param hooks: tells plugins what happens.
        :param watch: is told what goes on.
        :returns: why it ended: ``done``, ``minutes``, ``criterion`` or the name of a signal.
        :raises DivergenceError: too many updates in a row had a non-finite gradient.
        """
        self._folder = folder
        self._stop = stop
        self._hooks = hooks
        self._watch = watch
        self._metrics = MetricsFile(folder.metrics, writing=folder.writing)
        self._metrics.cut(self.state.metrics_position)
        self._began = time.monotonic() - self.state.elapsed
        self._logged_at = time.monotonic()
        try:
            self.engine.asked_to_stop = stop.asked
            self._catch_up()
            return self._finish(self._reason_to_stop() or self._train())
        finally:
            self.engine.asked_to_stop = None
            self._metrics.close()

    def _catch_up(self) -> None:
        """Measure the model before it is trained, or where a signal came in between."""
        options, update = self.options, self.state.update
        if not options.evaluate_every or update % options.evaluate_every:
            return
        if update == 0 and self.state.evaluated < 0 and self.course.measures_untrained:
            self.report.note("measuring the model on the validation text before it is trained")
            self._evaluate()
            self._hooks.step_end(update)
        elif 0 < update < options.steps and self.state.evaluated < update:
            self._evaluate()

    def _train(self) -> str:
        """Update until the last update or a reason to stop, which is returned."""
        options = self.options
        self._logged_at = time.monotonic()
        batches, begin = self.course.batches, self.state.update
        self._watch.at("reading the first batch")
        for loaded in load_batches(batches, begin, options.steps, options.workers):
            self._left_out |= loaded.left_out
            self._update(self.course.update(self.state.update), loaded.batches)
            self._after_update()
            if reason := self._reason_to_stop():
                return reason
        return "done"

    def _update(self, update: Update, micro_batches: list[Batch]) -> None:
        """One update of the weights: the gradient of the mean loss over the global batch."""
        self._watch.at(f"update {update.index} ({update.objective}:{update.step})")
        self._is_saved = False
        trainable = self.course.trainables[update.objective]
        for index, batch in enumerate(micro_batches):
            self._seed("prepare", update, index)
            micro_batches[index] = self.engine.prepare(trainable, batch, update.step)
        n_targets = sum(batch.n_targets for batch in micro_batches)
        n_global = int(self.engine.sum(torch.tensor(n_targets)))
        scale = update.weight / max(n_global, 1)
        tally = self._tallies.of(update.objective, str(update.step))
        for index, batch in enumerate(micro_batches):
            self._seed("dropout", update, index)
            tally.add(self.engine.forward_backward(trainable, batch, scale))
            self._tallies.n_tokens += batch.n_tokens
        tally.n_updates += 1
        self._rate = self._learning_rate.at(update.index, self._progress())
        stepped = self.engine.step(self._rate)
        self._gradient_norm = stepped.gradient_norm
        self._count_skipped(stepped.skipped, update, micro_batches)
        self.state.update += 1

    def _seed(self, purpose: str, update: Update, micro_batch: int) -> None:
        """Make what torch draws next a function of the update, so that a resume draws it again."""
        key = (self.options.seed, purpose, update.index, micro_batch, self.engine.rank)
        torch.manual_seed(int(keyed_rng(*key).integers(2**63)))

    def _count_skipped(self, skipped: bool, update: Update, batches: list[Batch]) -> None:
        self._skipped_in_a_row = self._skipped_in_a_row + 1 if skipped else 0
        self.state.n_skipped += skipped
        if self._skipped_in_a_row >= MAX_SKIPPED_IN_A_ROW:
            samples = torch.cat([batch.sample_ids for batch in batches])[:10].tolist()
            raise DivergenceError(
                f"the gradient was not finite in {MAX_SKIPPED_IN_A_ROW} updates in a row, the last "
                f"in update {update.index} ({update.objective}:{update.step}, samples {samples})",
                remedy="lower --lr, raise --warmup, or train in bf16 or fp32; "
                "the last checkpoint is whole",
            )

    def _progress(self) -> float:
        """Share of the run that is done, by updates or by time, whichever is further."""
        share = self.state.update / self.options.steps
        if self.options.minutes is not None:
            share = max(share, self.engine.agree(self._elapsed()) / (60 * self.options.minutes))
        return min(share, 1.0)

    def _elapsed(self) -> float:
        """Seconds of training, over all starts."""
        return time.monotonic() - self._began

    def _after_update(self) -> None:
        options, update = self.options, self.state.update
        last = update == options.steps
        if update % options.log_every == 0 or last:
            self._log()
        if options.evaluate_every and update % options.evaluate_every == 0 and not last:
            self._evaluate()
        if options.save_every and update % options.save_every == 0 and not last:
            self._save()
        self._hooks.step_end(update)

    def _reason_to_stop(self) -> str:
        """Why training must end before its last update; empty while it need not.

        All ranks decide alike: signals and clocks of any rank count for all.
        """
        if self._validation.exhausted:
            return "criterion"
        number = int(self.engine.agree(float(self._stop.signal)))
        if number:
            return Signals(number).name
        if self.state.update < self.options.steps and self._progress() >= 1:
            return "minutes"
        return ""

    def _log(self) -> None:
        """Write one line per objective and step, and show it."""
        now = time.monotonic()
        records, n_tokens = self._tallies.drain(self.engine)
        speed = n_tokens / max(now - self._logged_at, 1e-9)
        self._logged_at = now
        self.state.n_tokens += n_tokens
        common = {
            "learning_rate": self._rate,
            "gradient_norm": self._gradient_norm,
            "tokens": self.state.n_tokens,
            "skipped": self.state.n_skipped,
            "tokens_per_second": round(speed, 1),
        }
        if self.course.may_leave_out:
            self._gather_left_out()
            common["blocks_left_out"] = len(self.state.left_out)
        for record in records:
            self._metrics.write("train", self.state.update, {**record, **common})
        self._hooks.logged(records, **common)
        share = self._progress()
        left = self._elapsed() * (1 / share - 1)
        self.report.training(self.state.update, records, self._rate, speed, share, left)

    def _gather_left_out(self) -> None:
        """Take in what any rank had to leave out; collective."""
        everywhere = {key for keys in self.engine.gather(sorted(self._left_out)) for key in keys}
        if len(everywhere) > len(self.state.left_out):
            self.report.note(
                f"{len(everywhere)} blocks of training text could not be read and were left out "
                "(--skip-bad-shards)"
            )
        self.state.left_out = sorted(everywhere)

    def _evaluate(self) -> None:
        """Measure the validation data; keep the model where it is the best so far."""
        began = time.monotonic()
        self._watch.at(f"the evaluation after update {self.state.update}")
        self._is_saved = False
        keep = self._folder.hypotheses / f"step-{self.state.update}"
        try:
            metrics = self.course.evaluation.evaluate(self.engine, "valid", keep)
        except StopAsked:  # there may be little time; a resume makes up for it
            return
        self.state.evaluated = self.state.update
        if metrics:
            self._metrics.write("evaluation", self.state.update, metrics)
            self.report.evaluation(self.state.update, metrics)
            self._hooks.evaluated(metrics)
            improved = self._validation.take(metrics)
            if improved and self.state.update:
                self._keep_best(improved)
        self._logged_at += time.monotonic() - began  # speed counts training alone

    def _keep_best(self, names: list[str]) -> None:
        weights = self.engine.weights()  # collective: all ranks take part

        def fill(folder: Path) -> None:
            self._describe(folder)
            save_tensors(folder / WEIGHTS_NAME, weights)

        if self._folder.writing:
            for path in self._folder.save_best(names, fill, self._validation.names):
                self._hooks.checkpoint_saved(path)

    def _save(self) -> None:
        """Write a checkpoint: a bundle and all that going on needs."""
        self._watch.at(f"saving after update {self.state.update}")
        self.state.elapsed = self._elapsed()
        if self.course.may_leave_out:
            self._gather_left_out()
        self.state.metrics_position = self._metrics.position()
        self.state.tallies = self._tallies.to_json(self.engine)
        self.state.validation = self._validation.to_json()
        training = self.engine.state()  # collective, as the sums above

        def fill(folder: Path) -> None:
            self._describe(folder)
            save_training_state(folder, training)
            write_json(folder / TRAINER_NAME, asdict(self.state))

        if self._folder.writing:
            path = self._folder.save_checkpoint(self.state.update, fill, self.options.keep)
            self._hooks.checkpoint_saved(path)
        self._is_saved = True

    def _describe(self, folder: Path) -> None:
        write_description(folder, self.course.description, self.course.tokenizer)

    def _finish(self, reason: str) -> str:
        """Measure and save at the end; after a signal only save, there may be little time.

        :returns: why the run ended, which may be a signal that came meanwhile.
        """
        if reason in ("done", "minutes", "criterion"):
            if self._tallies.by_step:
                self._log()
            if self.state.evaluated != self.state.update:
                self._evaluate()
                self._hooks.step_end(self.state.update)
        if not self._is_saved:
            self._save()
        if self.state.evaluated == self.state.update:
            return reason
        return self._reason_to_stop() or reason
