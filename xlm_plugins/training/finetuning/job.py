"""Fine-tuning as a job: an encoder and a new head on the labelled texts of a task."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from xlm_plugins.config.finetune_settings import FinetuneSettings, resolve_finetune, to_toml
from xlm_plugins.config.settings import Values
from xlm_plugins.contracts.batch import Step
from xlm_plugins.core.errors import RunError
from xlm_plugins.core.files import write_text
from xlm_plugins.core.plugins import Plugins
from xlm_plugins.data.batches.examples import ExampleBatches, fingerprint
from xlm_plugins.data.batches.schedule import Update
from xlm_plugins.model.bundle import read_description
from xlm_plugins.model.model import Model
from xlm_plugins.runs.layout import CONFIG_NAME, TOKENIZER_NAME
from xlm_plugins.training.best_models import Validation
from xlm_plugins.training.engines.engine import Engine
from xlm_plugins.training.finetuning.evaluation import TaskEvaluation
from xlm_plugins.training.finetuning.plan import FinetuningPlan
from xlm_plugins.training.job import Job, n_parameters
from xlm_plugins.training.preflight import Rehearsal
from xlm_plugins.training.progress import Report
from xlm_plugins.training.trainer import TrainerState, TrainingPlan
from xlm_plugins.training.warm_start.copy_weights import initialise


class Finetuning(Job):
    """One run of a task.

    :param settings: of this run.
    :param sweep: the folder of all seeds' runs, if there are several.
    """

    command = "xlm finetune"

    def __init__(
        self,
        settings: FinetuneSettings,
        plan: FinetuningPlan,
        plugins: Plugins,
        sweep: Path | None = None,
    ) -> None:
        self.settings = settings
        self.plan = plan
        self.plugins = plugins
        self._sweep = sweep
        resolved = plan.resolve(settings)
        self._classifier = plan.classifier(settings)
        super().__init__(
            resolved.finetune,
            resolved.optimizer,
            plan.description,
            fingerprint(plan.data, plan.examples),
            settings.component.name,
            settings.settings_from,
        )

    def check_resumed(self, checkpoint: Path, run: Path) -> None:
        if TrainerState.read(checkpoint).data != self.data:
            raise RunError(
                f"the task's files are not those that {run} was trained on",
                remedy="give it the same files, or start a new run with another --out",
            )

    def build(self) -> Model:
        return self.description.build_model({self._classifier.name: self._classifier})

    def notes(self, model: Model) -> list[str]:
        """The data, the size of the model, and how many rows were cut."""
        plan, options = self.plan, self.settings.finetune
        parts = [f"{part.split} {part.title} {part.n_rows:,}" for part in plan.data.parts]
        n_cut = sum(examples.n_cut for examples in plan.examples)
        n_together = min(options.batch_sentences, plan.training.n_rows)
        found = [
            f"task: {plan.task.name}; rows: {', '.join(parts)}",
            f"parameters: {n_parameters(model):,}; {self.options.most_steps:,} updates of "
            f"{n_together} rows",
        ]
        return found + ([f"{n_cut:,} rows were cut to {options.max_length} tokens"] * (n_cut > 0))

    def initialise(self, model: Model, report: Report) -> None:
        plan = self.plan
        theirs = read_description(plan.base, self.plugins).classifier
        # A head for the same classes is taken over, one for other classes is not.
        other = theirs is not None and theirs.classes != self._classifier.description.classes
        copied = initialise(
            model, self.description, plan.tokenizer, plan.base, self.plugins,
            "encoder" if other else "",
        )  # fmt: skip
        for line in copied.lines():
            report.note(line)

    def describe_update(self, index: int) -> str:
        return str(self._step)

    def passes(self, n_updates: int) -> list[str]:
        rows, size = self.plan.training, self.settings.finetune.batch_sentences
        per_epoch = ExampleBatches(rows, size, self.options.seed).per_epoch
        return [f"passes over the rows: {n_updates / per_epoch:,.1f}"]

    def rehearsals(self, n_parts: int) -> list[Rehearsal]:
        rows = self.plan.training
        n_rows = min(self.settings.finetune.batch_sentences, rows.n_rows)
        longest = np.argsort(rows.tokens.lengths, kind="stable")[-max(1, n_rows // n_parts) :]
        return [Rehearsal(self._classifier, self._step, rows.batch(longest))]

    def training_plan(self, engine: Engine) -> TrainingPlan:
        plan, options, step = self.plan, self.options, self._step
        batches = ExampleBatches(
            plan.training, self.settings.finetune.batch_sentences, options.seed,
            engine.rank, engine.world_size, options.accumulation,
        )  # fmt: skip
        evaluation = TaskEvaluation(plan.task, plan.data, plan.examples, self._classifier)

        def update(index: int) -> Update:
            return Update(index, index, self._classifier.name, step, index, 1.0)

        return TrainingPlan(
            self.description,
            plan.base / TOKENIZER_NAME,
            {self._classifier.name: self._classifier},
            update,
            batches,
            evaluation,
            Validation.of(options, plan.best_by, evaluation.names(engine.model, "valid")),
            evaluates_untrained=False,
        )

    def config(self) -> str:
        return to_toml(self.settings)

    def completed(self, config: Values) -> str:
        return to_toml(resolve_finetune(self.settings.selected, config, {}, self.plugins))

    def prepare_folder(self) -> None:
        """Write the settings of all seeds' runs, with which they are resumed together.

        Those of the last start; what each seed was trained with is in its own folder.
        """
        if self._sweep is not None:
            write_text(self._sweep / CONFIG_NAME, to_toml(self.plan.settings))

    @property
    def _step(self) -> Step:
        languages = {part.language for part in self.plan.data.of("train")}
        return Step((languages.pop() if len(languages) == 1 else "all",))
