"""The training loop: draw a step, make its batches, update, and now and then log, measure, save."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from xlm_plugins.core.batch import Batch
from xlm_plugins.core.contracts import Tokenizer
from xlm_plugins.core.errors import DivergenceError
from xlm_plugins.core.registry import Component
from xlm_plugins.data.loader import TrainingBatches, load
from xlm_plugins.data.schedule import Update
from xlm_plugins.model.bundle import write_description, write_weights
from xlm_plugins.training.checkpoint import prune, save_training_state, write_folder
from xlm_plugins.training.engine import Engine
from xlm_plugins.training.evaluation import EvaluationPlan
from xlm_plugins.training.metrics import MetricsFile, Tallies
from xlm_plugins.training.progress import Report
from xlm_plugins.training.run import RunFolder
from xlm_plugins.training.schedules import LearningRate
from xlm_plugins.training.settings import Settings
from xlm_plugins.training.setup import Plan
from xlm_plugins.training.signals import StopRequest
from xlm_plugins.training.validation import Validation

TRAINER_NAME = "trainer.json"
MAX_SKIPPED_IN_A_ROW = 20


@dataclass
class TrainerState:
    """What a resume needs besides weights and moments: a few numbers.

    :param update: updates done.
    :param elapsed: seconds of training so far, over all starts.
    :param n_tokens: input tokens seen, by all ranks.
    :param n_skipped: updates skipped for a non-finite gradient.
    :param metrics_position: length of metrics.jsonl, in bytes.
    :param tallies: sums of the log line that is still open.
    :param validation: best values so far.
    :param data: fingerprint of the data set.
    """

    update: int = 0
    elapsed: float = 0.0
    n_tokens: int = 0
    n_skipped: int = 0
    metrics_position: int = 0
    tallies: dict[str, Any] = field(default_factory=lambda: {"steps": [], "tokens": 0})
    validation: dict[str, Any] = field(default_factory=dict)
    data: str = ""


@dataclass
class Trainer:
    """One run in progress; `run` trains to its end, or to a reason to stop before.

    The collaborators come ready-made from `xlm_plugins.training.start`.
    """

    settings: Settings
    plan: Plan
    engine: Engine
    batches: TrainingBatches
    run_folder: RunFolder | None
    evaluation: EvaluationPlan
    validation: Validation
    metrics: MetricsFile
    report: Report
    learning_rate: LearningRate
    tokenizer: Tokenizer
    tokenizer_component: Component
    stop: StopRequest
    state: TrainerState

    def __post_init__(self) -> None:
        self._tallies = Tallies(self.engine.device)
        self._tallies.restore(self.state.tallies, self.engine.rank)
        self._began = time.monotonic() - self.state.elapsed
        self._logged_at = time.monotonic()
        self._skipped_in_a_row = 0
        self._gradient_norm = self._rate = 0.0
        self._saved_at = self._evaluated_at = self.state.update

    def run(self) -> str:
        """Train until the end.

        :returns: why it ended: ``done``, ``minutes``, ``criterion`` or the name of a signal.
        :raises DivergenceError: too many updates in a row had a non-finite gradient.
        """
        options = self.settings.train
        if self.state.update == 0 and options.evaluate_every:
            self._evaluate()
        reason = self._reason_to_stop()
        if not reason:
            self._logged_at = time.monotonic()
            for micro_batches in load(
                self.batches, self.state.update, options.steps, options.workers
            ):
                self._update(self.plan.schedule.update(self.state.update), micro_batches)
                self._after_update()
                reason = self._reason_to_stop()
                if reason:
                    break
        self._finish(reason or "done")
        return reason or "done"

    def _update(self, update: Update, micro_batches: list[Batch]) -> None:
        """One update of the weights: the gradient of the mean loss over the global batch."""
        objective = self.plan.objectives[update.objective]
        micro_batches = [self.engine.prepare(objective, batch) for batch in micro_batches]
        n_targets = sum(batch.n_targets for batch in micro_batches)
        n_global = int(self.engine.sum(torch.tensor(n_targets)))
        scale = update.weight / max(n_global, 1)
        tally = self._tallies.of(update.objective, str(update.step))
        for index, batch in enumerate(micro_batches):
            torch.manual_seed(self._dropout_seed(update.index, index))
            tally.add(self.engine.forward_backward(objective, batch, scale))
            self._tallies.n_tokens += batch.n_tokens
        tally.n_updates += 1
        self._rate = self.learning_rate.at(update.index, self._progress())
        stepped = self.engine.step(self._rate)
        self._gradient_norm = stepped.gradient_norm
        self._count_skipped(stepped.skipped, update, micro_batches)
        self.state.update += 1

    def _dropout_seed(self, update: int, micro_batch: int) -> int:
        key = (self.settings.train.seed, update, micro_batch, self.engine.rank)
        return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> 1)

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
        options = self.settings.train
        share = self.state.update / options.steps
        if options.minutes is not None:
            share = max(share, self.engine.agree(self._elapsed()) / (60 * options.minutes))
        return min(share, 1.0)

    def _updates_left(self) -> int:
        return self.settings.train.steps - self.state.update

    def _elapsed(self) -> float:
        return time.monotonic() - self._began

    def _after_update(self) -> None:
        options, update = self.settings.train, self.state.update
        last = update == options.steps
        if update % options.log_every == 0 or last:
            self._log()
        if options.evaluate_every and update % options.evaluate_every == 0 and not last:
            self._evaluate()
        if options.save_every and update % options.save_every == 0 and not last:
            self._save()

    def _reason_to_stop(self) -> str:
        """Why training must end before its last update; empty while it need not.

        All ranks decide alike: signals and clocks of any rank count for all.
        """
        options = self.settings.train
        if self.validation.exhausted:
            return "criterion"
        if options.minutes is not None and self._progress() >= 1 and self._updates_left():
            return "minutes"
        number = int(self.engine.agree(float(self.stop.signal)))
        return self.stop.name(number) if number else ""

    def _log(self) -> None:
        """Write one line per objective and step, and show it."""
        now = time.monotonic()
        records, n_tokens = self._tallies.drain(self.engine)
        speed = n_tokens / max(now - self._logged_at, 1e-9)
        self._logged_at = now
        self.state.n_tokens += n_tokens
        for record in records:
            self.metrics.write(
                "train",
                self.state.update,
                {
                    **record,
                    "learning_rate": self._rate,
                    "gradient_norm": self._gradient_norm,
                    "tokens": self.state.n_tokens,
                    "skipped": self.state.n_skipped,
                    "tokens_per_second": round(speed, 1),
                },
            )
        self.report.training(self.state.update, records, self._rate, speed, self._seconds_left())

    def _seconds_left(self) -> float:
        elapsed, options = self._elapsed(), self.settings.train
        by_updates = elapsed * (options.steps / max(self.state.update, 1) - 1)
        limit = options.minutes
        return by_updates if limit is None else min(by_updates, 60 * limit - elapsed)

    def _evaluate(self) -> None:
        """Measure the validation data; keep the model where it is the best so far."""
        began = time.monotonic()
        self._evaluated_at = self.state.update
        metrics = self.evaluation.evaluate(self.engine, "valid")
        if metrics:
            self.metrics.write("evaluation", self.state.update, metrics)
            self.report.evaluation(self.state.update, metrics)
            improved = self.validation.take(metrics)
            if improved and self.state.update:
                self._keep_best(improved)
        self._logged_at += time.monotonic() - began  # speed counts training alone

    def _keep_best(self, names: list[str]) -> None:
        weights = self.engine.weights()  # collective: all ranks take part
        if self.run_folder is None:
            return
        best = self.run_folder.path / "best"
        best.mkdir(exist_ok=True)
        for name in names:
            write_folder(best / name, lambda folder: self._write_bundle(folder, weights))
        record = json.dumps(self.validation.names, indent=1)
        (best / "metrics.json").write_text(record + "\n", encoding="utf-8")

    def _write_bundle(self, folder: Path, weights: dict[str, torch.Tensor]) -> None:
        description = self.plan.description
        write_description(folder, description, self.tokenizer_component, self.tokenizer)
        write_weights(folder, weights)

    def _save(self) -> None:
        """Write a checkpoint: a bundle and all that going on needs."""
        self.state.elapsed = self._elapsed()
        self.state.metrics_position = self.metrics.position()
        self.state.tallies = self._tallies.to_json(self.engine)
        self.state.validation = self.validation.to_json()
        training = self.engine.state()
        self._saved_at = self.state.update
        if self.run_folder is None:
            return

        def fill(folder: Path) -> None:
            description = self.plan.description
            write_description(folder, description, self.tokenizer_component, self.tokenizer)
            save_training_state(folder, training)
            tree = json.dumps(asdict(self.state), indent=1)
            (folder / TRAINER_NAME).write_text(tree + "\n", encoding="utf-8")

        checkpoints = self.run_folder.checkpoints
        checkpoints.mkdir(exist_ok=True)
        write_folder(checkpoints / f"step-{self.state.update}", fill)
        prune(checkpoints, self.settings.train.keep)

    def _finish(self, reason: str) -> None:
        """Measure and save at the end; after a signal only save, there may be little time."""
        if reason in ("done", "minutes", "criterion"):
            if self._tallies.by_step:
                self._log()
            if self._evaluated_at != self.state.update:
                self._evaluate()
        if self._saved_at != self.state.update or reason == "done":
            self._save()
