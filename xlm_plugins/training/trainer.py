"""The training loop: update, and every so often log, evaluate and save.

What is trained on, and how it is evaluated, is the job's: see `TrainingPlan`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
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
from xlm_plugins.runs.layout import TRAINER_NAME, WEIGHTS_NAME
from xlm_plugins.training.best_models import Validation
from xlm_plugins.training.distributed.signals import StopAsked, StopRequest
from xlm_plugins.training.distributed.watchdog import Watchdog
from xlm_plugins.training.engines.engine import Engine
from xlm_plugins.training.engines.training_state import save_training_state
from xlm_plugins.training.optim.learning_rate import LearningRate
from xlm_plugins.training.progress import OnProgress, no_progress
from xlm_plugins.training.run_record import RunRecord
from xlm_plugins.training.tallies import Tallies

MAX_SKIPPED_IN_A_ROW = 20


@dataclass
class TrainerState:
    """What resuming needs besides weights and moments: a few numbers.

    :param data: fingerprint of the data.
    :param update: updates made.
    :param evaluated: updates made at the last evaluation; -1 before the first one.
    :param elapsed: seconds of training, from all sessions of the run.
    :param n_tokens: input tokens seen, by all ranks.
    :param n_skipped: updates skipped because of a non-finite gradient.
    :param metrics_position: length of metrics.jsonl, in bytes.
    :param tallies: sums since the last log line.
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
    """Evaluates a model on a split."""

    def names(self, model: Model, split: str) -> list[str]:
        """The names of the metrics that `evaluate` will return, or shell patterns of them."""

    def evaluate(
        self,
        engine: Engine,
        split: str,
        keep: Path | None = None,
        on_progress: OnProgress = no_progress,
    ) -> dict[str, float]:
        """All metrics of a split, equal on all ranks.

        :param keep: folder for generated text, if any.
        :param on_progress: called with the current activity and the share that is done.
        """


@dataclass(frozen=True)
class TrainingPlan:
    """What a run trains on, and how it is evaluated.

    :param description: of the model, as checkpoints record it.
    :param tokenizer: the folder of its saved tokenizer.
    :param trainables: what computes losses, by name.
    :param update: maps the number of an update to what it trains on.
    :param batches: maps the number of an update to this rank's micro-batches.
    :param validation: the metrics that select the best models and may end the run.
    :param evaluates_untrained: whether an evaluation before the first update makes sense.
    :param may_leave_out: whether text that cannot be read is left out, and counted.
    :param left_out: for metrics.jsonl, what is left out of each stream from the start.
    """

    description: ModelDescription
    tokenizer: Path
    trainables: Mapping[str, Trainable]
    update: Callable[[int], Update]
    batches: Dataset[list[Batch]]
    evaluation: Evaluation
    validation: Validation
    evaluates_untrained: bool
    may_leave_out: bool = False
    left_out: Sequence[Mapping[str, Any]] = ()


class Trainer:
    """Trains one run, on one rank.

    :param engine: holds the model.
    :param state: where to start; changed as training proceeds.
    :param record: where metrics and checkpoints go.
    :param stop: knows of signals that end the run early.
    :param watchdog: is told of every activity, so that it can name one that hangs.
    """

    def __init__(
        self,
        options: RunOptions,
        optimizer: OptimizerOptions,
        plan: TrainingPlan,
        engine: Engine,
        state: TrainerState,
        record: RunRecord,
        stop: StopRequest,
        watchdog: Watchdog,
    ) -> None:
        self.options = options
        self.plan = plan
        self.engine = engine
        self.state = state
        self.record = record
        self._stop = stop
        self._watchdog = watchdog
        self._validation = plan.validation
        self._validation.restore(state.validation)
        self._learning_rate = LearningRate(optimizer)
        self._tallies = Tallies(engine.device)
        self._tallies.restore(state.tallies, engine.rank)
        self._left_out = set(state.left_out)
        self._skipped_in_a_row = 0
        self._gradient_norm = self._rate = 0.0
        self._is_saved = state.update > 0
        self._logged_at = time.monotonic()
        self._began = self._logged_at - state.elapsed

    def run(self) -> str:
        """Train until the end.

        :returns: why it ended: ``done``, ``minutes``, ``criterion`` or the name of a signal.
        :raises DivergenceError: too many updates in a row had a non-finite gradient.
        """
        self._catch_up()
        return self._finish(self._reason_to_stop() or self._train())

    def _catch_up(self) -> None:
        """Evaluate the untrained model, or make up for an evaluation that a signal interrupted."""
        options, update = self.options, self.state.update
        if not self.state.metrics_position:
            for values in self.plan.left_out:
                self.record.folder.metrics.write("left_out", update, values)
        if not options.evaluate_every or update % options.evaluate_every:
            return
        if update == 0 and self.state.evaluated < 0 and self.plan.evaluates_untrained:
            self.record.note("evaluating the untrained model on the validation data")
            self._evaluate()
            self.record.step_end(update)
        elif 0 < update < options.most_steps and self.state.evaluated < update:
            self._evaluate()

    def _train(self) -> str:
        """Update until the last update or a reason to stop, which is returned."""
        options = self.options
        self._logged_at = time.monotonic()
        self._watchdog.report("reading the first batch")
        batches, first = self.plan.batches, self.state.update
        for loaded in load_batches(batches, first, options.most_steps, options.workers):
            self._left_out |= loaded.left_out
            self._update(self.plan.update(self.state.update), loaded.batches)
            self._after_update()
            if reason := self._reason_to_stop():
                return reason
        return "done"

    def _update(self, update: Update, micro_batches: list[Batch]) -> None:
        """Update the weights with the gradient of the mean loss over the global batch."""
        activity = f"update {update.index} ({update.objective}:{update.step})"
        self._watchdog.report(activity, is_phase=False)
        self._is_saved = False
        trainable = self.plan.trainables[update.objective]
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
        """Seed torch by the update, so that a resumed run draws the same numbers."""
        key = (self.options.seed, purpose, update.index, micro_batch, self.engine.rank)
        self.engine.seed(int(keyed_rng(*key).integers(2**63)))

    def _count_skipped(self, skipped: bool, update: Update, batches: list[Batch]) -> None:
        self._skipped_in_a_row = self._skipped_in_a_row + 1 if skipped else 0
        self.state.n_skipped += skipped
        if self._skipped_in_a_row >= MAX_SKIPPED_IN_A_ROW:
            samples = torch.cat([batch.sample_ids for batch in batches])[:10].tolist()
            raise DivergenceError(
                f"the gradient was not finite in {MAX_SKIPPED_IN_A_ROW} updates in a row, most "
                f"recently update {update.index} ({update.objective}:{update.step}, samples "
                f"{samples})",
                remedy="lower --lr, raise --warmup, or train in bf16 or fp32; "
                "the last checkpoint is intact",
            )

    def _progress(self) -> float:
        """Share of the run that is done, by updates or by time, whichever is greater."""
        share = self.state.update / self.options.most_steps
        if self.options.minutes is not None:
            elapsed = self.engine.max_over_ranks(self._elapsed())
            share = max(share, elapsed / (60 * self.options.minutes))
        return min(share, 1.0)

    def _elapsed(self) -> float:
        """Seconds of training, from all sessions of the run."""
        return time.monotonic() - self._began

    def _after_update(self) -> None:
        options, update = self.options, self.state.update
        last = update == options.most_steps
        if update % options.log_every == 0 or last:
            self._log()
        if options.evaluate_every and update % options.evaluate_every == 0 and not last:
            self._evaluate()
        if options.save_every and update % options.save_every == 0 and not last:
            self._save()
        self.record.step_end(update)

    def _reason_to_stop(self) -> str:
        """Why training must end before its last update; empty if it need not.

        All ranks decide alike: a signal or clock of any rank counts for all.
        """
        if self._validation.exhausted:
            return "criterion"
        number = int(self.engine.max_over_ranks(float(self._stop.signal)))
        if number:
            return Signals(number).name
        if self.state.update < self.options.most_steps and self._progress() >= 1:
            return "minutes"
        return ""

    def _log(self) -> None:
        """Record the training since the last log line, per objective and languages."""
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
        if self.plan.may_leave_out:
            self._gather_left_out()
            common["blocks_left_out"] = len(self.state.left_out)
        share = self._progress()
        left = self._elapsed() * (1 / share - 1)
        self.record.training(self.state.update, records, common, self._place(share), share, left)

    def _place(self, share: float) -> str:
        """Where the run is on its way to what will end it: the last update, or the last minute."""
        update, options = self.state.update, self.options
        if options.minutes is None or update / options.most_steps >= share:
            return f"step {update:,}/{options.most_steps:,}"
        return f"step {update:,}  minute {share * options.minutes:.1f}/{options.minutes:g}"

    def _gather_left_out(self) -> None:
        """Collect the blocks that any rank had to leave out; collective."""
        everywhere = {key for keys in self.engine.gather(sorted(self._left_out)) for key in keys}
        if len(everywhere) > len(self.state.left_out):
            self.record.warn(
                f"{len(everywhere)} blocks of training text could not be read and were left out "
                "(--skip-bad-shards)"
            )
        self.state.left_out = sorted(everywhere)

    def _evaluate(self) -> None:
        """Evaluate on the validation data, and save the model if it is the best so far."""
        began = time.monotonic()
        self._watchdog.report(f"the evaluation after update {self.state.update}")
        self._is_saved = False
        keep = self.record.folder.hypotheses / f"step-{self.state.update}"
        try:
            with self.engine.evaluating():
                metrics = self.plan.evaluation.evaluate(
                    self.engine, "valid", keep, self.record.evaluating
                )
        except StopAsked:  # time may be short; resuming makes up for it
            return
        self.state.evaluated = self.state.update
        if metrics:
            self.record.evaluation(self.state.update, metrics)
            improved = self._validation.take(metrics)
            if improved and self.state.update:
                self._save_best(improved)
        self._logged_at += time.monotonic() - began  # speed is that of training alone

    def _save_best(self, improved: list[str]) -> None:
        weights = self.engine.weights()  # collective: all ranks take part

        def fill(folder: Path) -> None:
            self._write_description(folder)
            save_tensors(folder / WEIGHTS_NAME, weights)

        self.record.best(improved, fill, self._validation.names)

    def _save(self) -> None:
        """Save a checkpoint: a bundle, and what resuming needs besides."""
        self._watchdog.report(f"saving after update {self.state.update}")
        self.state.elapsed = self._elapsed()
        if self.plan.may_leave_out:
            self._gather_left_out()
        self.state.metrics_position = self.record.folder.metrics.position()
        self.state.tallies = self._tallies.to_json(self.engine)
        self.state.validation = self._validation.to_json()
        training = self.engine.state()  # collective, as are the sums above

        def fill(folder: Path) -> None:
            self._write_description(folder)
            save_training_state(folder, training)
            write_json(folder / TRAINER_NAME, asdict(self.state))

        self.record.checkpoint(self.state.update, fill, self.options.keep)
        self._is_saved = True

    def _write_description(self, folder: Path) -> None:
        write_description(folder, self.plan.description, self.plan.tokenizer)

    def _finish(self, reason: str) -> str:
        """Evaluate and save at the end; after a signal only save, since time may be short.

        :returns: why the run ended, which may be a signal received meanwhile.
        """
        if reason in ("done", "minutes", "criterion"):
            if self._tallies.by_step:
                self._log()
            if self.state.evaluated != self.state.update:
                self._evaluate()
                self.record.step_end(self.state.update)
        if not self._is_saved:
            self._save()
        if self.state.evaluated == self.state.update:
            return reason
        return self._reason_to_stop() or reason
