"""From settings, a model and a task's files to what is fine-tuned: the model and its data."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from xlm_plugins.config.finetune_settings import FinetuneSettings
from xlm_plugins.contracts.task import Task, TaskData
from xlm_plugins.contracts.tokenizer import Tokenizer
from xlm_plugins.core.errors import BundleError, OptionError
from xlm_plugins.core.plugins import Plugins
from xlm_plugins.core.saved_tokenizers import load_tokenizer
from xlm_plugins.data.batches.examples import ExampleBatches, Examples, encode_task
from xlm_plugins.model.bundle import read_description
from xlm_plugins.model.classifier import Classifier, ClassifierDescription
from xlm_plugins.model.description import ModelDescription
from xlm_plugins.runs.find import find_bundle
from xlm_plugins.runs.layout import TOKENIZER_NAME


@dataclass(frozen=True)
class FinetuningPlan:
    """A task and a model that fit each other: the same for every seed.

    :param settings: of the command; those of a seed's run differ in seed and folder.
    :param base: the bundle to start from.
    :param description: of the model to train: the encoder of ``base``, and a head.
    :param examples: the encoded rows of each part of ``data``.
    """

    settings: FinetuneSettings
    base: Path
    task: Task
    data: TaskData
    description: ModelDescription
    tokenizer: Tokenizer
    examples: list[Examples]

    @cached_property
    def training(self) -> Examples:
        """All training rows."""
        parts = zip(self.data.parts, self.examples, strict=True)
        return Examples.cat([examples for part, examples in parts if part.split == "train"])

    @property
    def best_by(self) -> tuple[str, ...]:
        """The metric that selects the best model, on validation data in the training languages.

        Zero-shot transfer has no labels in other languages, not even to select a model by.
        """
        trained = {part.language for part in self.data.of("train")}
        labelled = [part for part in self.data.of("valid") if part.labels is not None]
        own = [part for part in labelled if part.language in trained]
        if not labelled:
            return ()
        # If all validation data is in training languages, the mean over its parts selects.
        alone = own and (len(own) == 1 or len(own) < len(labelled))
        title = f"{own[0].title}_" if alone else ""
        return (f"valid_{title}{self.task.name}_{self.task.metrics[0]}",)

    def classifier(self, settings: FinetuneSettings) -> Classifier:
        """The head, and its loss.

        :raises OptionError: class weights are requested for a regression.
        """
        assert self.description.classifier is not None, "a fine-tuned model has one"
        balanced = settings.finetune.class_weights == "balanced"
        weights = self._class_weights() if balanced else None
        return Classifier(self.description.classifier, weights, settings.optimizer.head_lr)

    def resolve(self, settings: FinetuneSettings) -> FinetuneSettings:
        """Settings with epochs and layers turned into numbers of updates and parameter names.

        :raises OptionError: no such range of layers.
        """
        options, optimizer = settings.finetune, settings.optimizer
        per_epoch = ExampleBatches(self.training, options.batch_sentences, options.seed).per_epoch
        steps = options.steps or max(math.ceil(options.epochs * per_epoch), 1)
        return replace(
            settings,
            finetune=replace(
                options,
                steps=steps,
                evaluate_every=options.evaluate_every or per_epoch,
                save_every=options.save_every or per_epoch,
                train_only=options.train_only or self._trained_layers(options.layers),
            ),
            optimizer=replace(optimizer, warmup=min(optimizer.warmup, steps // 10)),
        )

    def _class_weights(self) -> list[float]:
        """Each class's weight: all classes together weigh the same, and the mean weight is 1."""
        n_classes = len(self.data.classes)
        if not n_classes:
            raise OptionError(
                "--class-weights balanced: a regression has no classes",
                expected="--class-weights none",
            )
        counts = np.bincount(self.training.targets, minlength=n_classes)
        weights = counts.sum() / (n_classes * np.maximum(counts, 1))
        return [float(weight) for weight in weights]

    def _trained_layers(self, text: str) -> tuple[str, ...]:
        """Patterns for the parameters of a range of layers; none if all are trained.

        As XLM's ``--finetune_layers``: 0 is the embeddings, i is layer i, and ``_1`` the last.
        """
        n_layers = self.description.options.n_layers
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
                f"--layers {text} is not a range of the model's layers",
                expected=f"FIRST:LAST from 0 (the embeddings) to {n_layers}, or _1 for the last",
            )
        if (begin, end) == (0, n_layers):
            return ()
        patterns = [f"encoder.layers.{layer - 1}.*" for layer in range(max(begin, 1), end + 1)]
        patterns += ["encoder.embeddings.*"] if begin == 0 else []
        return (*patterns, f"heads.{self.task.name}.*")


def make_plan(settings: FinetuneSettings, plugins: Plugins) -> FinetuningPlan:
    """Read the task's files and the model's description, and check that they fit.

    :raises XLMError: something does not fit; nothing has been written then.
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
    examples = encode_task(data, tokenizer, description.known_languages, options.max_length)
    return FinetuningPlan(settings, base, task, data, description, tokenizer, examples)


def _description(
    base: Path, settings: FinetuneSettings, task: Task, data: TaskData, plugins: Plugins
) -> ModelDescription:
    """The model that is fine-tuned: the encoder of ``base``, and a head.

    :raises BundleError: ``base`` has no encoder.
    :raises OptionError: it has too few positions for the longest rows.
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
