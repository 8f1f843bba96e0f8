"""Fine-tuning, as a job: an encoder and a new head on the labelled texts of a task.

Runs of several seeds are runs of their own, in one folder::

    OUT/config.toml, OUT/results.json, OUT/seed-1/, OUT/seed-2/ ...
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from xlm_plugins.config.finetune_settings import FinetuneSettings, to_toml
from xlm_plugins.contracts.batch import Step
from xlm_plugins.contracts.task import Task, TaskData
from xlm_plugins.contracts.tokenizer import Tokenizer
from xlm_plugins.core.errors import BundleError, OptionError, RunError
from xlm_plugins.core.files import write_text
from xlm_plugins.core.plugins import Plugins
from xlm_plugins.core.saved_tokenizers import load_tokenizer
from xlm_plugins.data.batches.examples import ExampleBatches, Examples, encode_task, fingerprint
from xlm_plugins.data.batches.schedule import Update
from xlm_plugins.model.bundle import read_description
from xlm_plugins.model.classifier import Classifier, ClassifierDescription
from xlm_plugins.model.description import ModelDescription
from xlm_plugins.model.model import Model
from xlm_plugins.runs.find import find_bundle
from xlm_plugins.runs.layout import CONFIG_NAME, TOKENIZER_NAME
from xlm_plugins.training.engines.engine import Engine
from xlm_plugins.training.finetuning.evaluation import TaskEvaluation
from xlm_plugins.training.job import Job, size
from xlm_plugins.training.preflight import Rehearsal
from xlm_plugins.training.progress import Report
from xlm_plugins.training.trainer import Course, TrainerState
from xlm_plugins.training.warm_start.copy_weights import initialise


@dataclass(frozen=True)
class Downstream:
    """A task and a model, opened and fitted to each other: the same for every seed.

    :param base: the bundle that is started from.
    :param examples: the encoded rows of each part of ``data``.
    """

    settings: FinetuneSettings
    plugins: Plugins
    base: Path
    task: Task
    data: TaskData
    description: ModelDescription
    tokenizer: Tokenizer
    examples: list[Examples]

    @classmethod
    def open(cls, settings: FinetuneSettings, plugins: Plugins) -> Downstream:
        """Read the task's files and the model's description.

        :raises XLMError: whatever does not fit, by name, before anything is written.
        """
        options = settings.finetune
        if options.from_ is None:
            raise OptionError(
                "there is no model to fine-tune", expected="--from RUN, a run or a bundle"
            )
        task: Task = settings.component.load()(settings.task)
        data = task.read()
        base = find_bundle(options.from_)
        description = _description(base, settings, task, data, plugins)
        tokenizer = load_tokenizer(plugins, base / TOKENIZER_NAME)
        known = description.known_languages
        examples = encode_task(data, tokenizer, known, options.max_length)
        return cls(settings, plugins, base, task, data, description, tokenizer, examples)

    @cached_property
    def training(self) -> Examples:
        """All rows that are trained on."""
        both = zip(self.data.parts, self.examples, strict=True)
        return Examples.cat([examples for part, examples in both if part.split == "train"])

    @property
    def best_by(self) -> tuple[str, ...]:
        """The metric that chooses the model: of what is validated in languages trained on.

        Zero-shot transfer has no labels in the other languages, not even to choose a model by.
        """
        trained = {part.language for part in self.data.of("train")}
        labelled = [part for part in self.data.of("valid") if part.labels is not None]
        own = [part for part in labelled if part.language in trained]
        if not labelled:
            return ()
        # Where nothing else is validated, the mean over all parts is that over one's own.
        alone = own and (len(own) == 1 or len(own) < len(labelled))
        title = f"{own[0].title}_" if alone else ""
        return (f"valid_{title}{self.task.name}_{self.task.metrics[0]}",)

    def job(self, settings: FinetuneSettings, whole: Path | None = None) -> Finetuning:
        """The run of one seed.

        :param settings: those of the whole, but for the seed and the folder.
        :param whole: the folder of all seeds' runs, where there are several.
        """
        options, optimizer = settings.finetune, settings.optimizer
        per_epoch = ExampleBatches(self.training, options.batch_sentences, options.seed).per_epoch
        steps = options.steps or max(math.ceil(options.epochs * per_epoch), 1)
        resolved = replace(
            options,
            steps=steps,
            evaluate_every=options.evaluate_every or per_epoch,
            save_every=options.save_every or per_epoch,
            train_only=options.train_only or _layers(self, options.layers),
        )
        gentle = replace(optimizer, warmup=min(optimizer.warmup, steps // 10))
        return Finetuning(
            settings, replace(settings, finetune=resolved, optimizer=gentle), self, whole
        )


class Finetuning(Job):
    """One run of a task.

    :param given: the settings as the user gave them.
    :param resolved: the same, with the numbers of updates that the data leads to.
    :param whole: the folder of all seeds' runs, where there are several.
    """

    command = "xlm finetune"

    def __init__(
        self,
        given: FinetuneSettings,
        resolved: FinetuneSettings,
        downstream: Downstream,
        whole: Path | None,
    ) -> None:
        self.given = given
        self.downstream = downstream
        self._whole = whole
        self._classifier = Classifier(
            _classifier(downstream.description),
            _class_weights(downstream) if given.finetune.class_weights == "balanced" else None,
            given.optimizer.head_lr,
        )
        super().__init__(
            resolved.finetune,
            resolved.optimizer,
            downstream.description,
            fingerprint(downstream.data, downstream.examples),
            given.component.name,
        )

    def config(self) -> str:
        return to_toml(self.given)

    def begin(self) -> None:
        """Write the settings of the whole, with which all seeds' runs go on."""
        if self._whole is not None and not (self._whole / CONFIG_NAME).exists():
            write_text(self._whole / CONFIG_NAME, to_toml(self.downstream.settings))

    def build(self) -> Model:
        return self.description.build_model({self._classifier.name: self._classifier})

    def initialise(self, model: Model, report: Report) -> None:
        down = self.downstream
        theirs = read_description(down.base, down.plugins).classifier
        # A head of the same task goes on from there, but not one of other classes.
        other = theirs is not None and theirs.classes != self._classifier.description.classes
        copied = initialise(
            model, self.description, down.tokenizer, down.base, down.plugins,
            "encoder" if other else "",
        )  # fmt: skip
        for line in copied.lines():
            report.note(line)

    def notes(self, model: Model) -> list[str]:
        """What is trained on what, and what was cut."""
        down = self.downstream
        parts = [f"{part.split} {part.title} {part.n_rows:,}" for part in down.data.parts]
        n_cut = sum(examples.n_cut for examples in down.examples)
        longest = self.given.finetune.max_length
        n_together = min(self.given.finetune.batch_sentences, down.training.n_rows)
        found = [
            f"task: {down.task.name}; rows: {', '.join(parts)}",
            f"parameters: {size(model):,}; {self.options.steps:,} updates of {n_together} rows",
        ]
        return found + ([f"{n_cut:,} rows were cut to {longest} tokens"] if n_cut else [])

    @property
    def _step(self) -> Step:
        languages = {part.language for part in self.downstream.data.of("train")}
        return Step((languages.pop() if len(languages) == 1 else "all",))

    def check_resumed(self, checkpoint: Path, run: Path) -> None:
        if TrainerState.read(checkpoint).data != self.data:
            raise RunError(
                f"the task's files are not those that {run} was trained on",
                remedy="give it the same files, or start a new run with another --out",
            )

    def rehearsals(self, n_parts: int) -> list[Rehearsal]:
        rows = self.downstream.training
        size = min(self.given.finetune.batch_sentences, rows.n_rows)
        longest = np.argsort(rows.tokens.lengths, kind="stable")[-max(1, size // n_parts) :]
        return [Rehearsal(self._classifier, self._step, rows.batch(longest))]

    def drawn(self, index: int) -> str:
        return str(self._step)

    def course(self, engine: Engine) -> Course:
        down, options = self.downstream, self.options
        batches = ExampleBatches(
            down.training, self.given.finetune.batch_sentences, options.seed,
            engine.rank, engine.world_size, options.accumulation,
        )  # fmt: skip
        step = self._step

        def update(index: int) -> Update:
            return Update(index, index, self._classifier.name, step, index, 1.0)

        return Course(
            self.description,
            down.base / TOKENIZER_NAME,
            {self._classifier.name: self._classifier},
            update,
            batches,
            TaskEvaluation(down.task, down.data, down.examples, self._classifier),
            down.best_by,
            measures_untrained=False,
        )


def _description(
    base: Path, settings: FinetuneSettings, task: Task, data: TaskData, plugins: Plugins
) -> ModelDescription:
    """The model that is fine-tuned: the other's encoder, and a head.

    :raises BundleError: the other model has no encoder.
    :raises OptionError: it has no positions for a row of that length.
    """
    theirs, options = read_description(base, plugins), settings.finetune
    if "encoder" not in theirs.stacks:
        raise BundleError(
            f"{base} has no encoder to fine-tune, only a {' and a '.join(theirs.stacks)}",
            expected="a model that was trained with an objective such as mlm",
        )
    if options.max_length > theirs.options.max_positions:
        raise OptionError(
            f"--max-length {options.max_length}: the model has {theirs.options.max_positions} "
            "positions",
            expected=f"at most {theirs.options.max_positions}",
        )
    n_texts = len(data.parts[0].texts)
    return replace(
        theirs,
        options=replace(theirs.options, dropout=options.dropout),
        stacks=("encoder",),
        layers=tuple(placed for placed in theirs.layers if placed.position.stack == "encoder"),
        objectives=(),
        classifier=ClassifierDescription(
            task.name, data.classes, n_texts, options.pool, options.max_length
        ),
    )


def _classifier(description: ModelDescription) -> ClassifierDescription:
    assert description.classifier is not None, "a fine-tuned model has one"
    return description.classifier


def _class_weights(downstream: Downstream) -> list[float]:
    """Each class's weight, so that all classes together weigh alike and the mean weight is 1.

    :raises OptionError: a regression has no classes.
    """
    n_classes = len(downstream.data.classes)
    if not n_classes:
        raise OptionError(
            "--class-weights balanced: a regression has no classes", expected="--class-weights none"
        )
    counts = np.bincount(downstream.training.targets, minlength=n_classes)
    weights = counts.sum() / (n_classes * np.maximum(counts, 1))
    return [float(weight) for weight in weights]


def _layers(downstream: Downstream, text: str) -> tuple[str, ...]:
    """The parameters of a range of layers, as patterns; empty where all are trained.

    (XLM's ``--finetune_layers``: 0 are the embeddings, layer i is i, and ``_1`` the last)

    :raises OptionError: no such range.
    """
    n_layers = downstream.description.options.n_layers
    first, _, last = text.partition(":")
    try:
        begin, end = (
            n_layers + 1 - int(part[1:]) if part.startswith("_") else int(part)
            for part in (first, last or first)
        )
    except ValueError:
        begin, end = 1, 0
    if not 0 <= begin <= end <= n_layers:
        raise OptionError(
            f"--layers {text} is no range of the model's layers",
            expected=f"FIRST:LAST of 0 (the embeddings) to {n_layers}, or _1 for the last",
        )
    if (begin, end) == (0, n_layers):
        return ()
    patterns = [f"encoder.layers.{layer - 1}.*" for layer in range(max(begin, 1), end + 1)]
    patterns += ["encoder.embeddings.*"] if begin == 0 else []
    return (*patterns, f"heads.{downstream.task.name}.*")
