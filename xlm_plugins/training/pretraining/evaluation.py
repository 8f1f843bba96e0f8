"""Evaluation: perplexity and accuracy per objective and step, and the layers' own metrics.

Names (docs/semantics.md, 7.1): ``valid_en_mlm_ppl``, ``valid_en-fr_tlm_acc``, the mean over an
objective's languages ``valid_mlm_ppl``, and ``valid_enc.2_pkm_usage`` for a layer.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from xlm_plugins.config.model import GenerationOptions
from xlm_plugins.config.settings import read_toml
from xlm_plugins.config.training import OptimizerOptions, TrainOptions
from xlm_plugins.contracts.batch import Batch, Step
from xlm_plugins.contracts.layer import Layer
from xlm_plugins.contracts.objective import Objective
from xlm_plugins.core.errors import BundleError, DataError
from xlm_plugins.core.options import build
from xlm_plugins.core.plugins import Plugins
from xlm_plugins.core.selection import Position
from xlm_plugins.data.batches.evaluation_batches import EvaluationBatches, evaluation_batches
from xlm_plugins.data.batches.keyed_rng import keyed_rng
from xlm_plugins.data.batches.planning import BatchSizes
from xlm_plugins.data.dataset.manifest import Manifest
from xlm_plugins.data.dataset.shards import check_shards
from xlm_plugins.model.bundle import Bundle
from xlm_plugins.model.model import Model
from xlm_plugins.runs.find import find_bundle
from xlm_plugins.runs.layout import CONFIG_NAME, split_reference
from xlm_plugins.training.distributed.process_group import World
from xlm_plugins.training.engines.engine import Engine
from xlm_plugins.training.engines.torch_engine import TorchEngine
from xlm_plugins.training.pretraining.plan import check_tokenizer, open_data
from xlm_plugins.training.pretraining.translations import TranslationEvaluation
from xlm_plugins.training.progress import OnProgress, no_progress, parts_of

MEASURES = ("ppl", "acc")
"""Metrics of every objective: perplexity, and accuracy in percent."""


@dataclass(frozen=True)
class PretrainingEvaluation:
    """Evaluates a model on a data set: each objective on each of its steps.

    :param folder: of the data set.
    :param steps: by objective name; steps without text in a split are skipped.
    :param translations: translates held-out text as well.
    """

    folder: Path
    manifest: Manifest
    objectives: Mapping[str, Objective]
    steps: Mapping[str, Sequence[Step]]
    sizes: BatchSizes
    translations: TranslationEvaluation | None = None

    def names(self, model: Model, split: str) -> list[str]:
        """The metrics that `evaluate` will return, known before anything is measured.

        Layers name their metrics only when they have measured them: ``valid_enc.2_pkm_*``.
        """
        found = []
        for name, objective in self.objectives.items():
            labels = []
            for step in self.steps[name]:
                first, _ = next(iter(self._batches(split, objective, step, 0, 1)), ({}, False))
                labels += [_label(split, str(step), name, key) for key in first]
            labels += [_label(split, name)] if labels else []
            found += [f"{label}_{measure}" for label in labels for measure in MEASURES]
        if self.translations is not None:
            found += self.translations.names(split)
        layers = model.layers_by_position.items()
        return found + [_label(split, str(place), layer.name, "*") for place, layer in layers]

    def evaluate(
        self,
        engine: Engine,
        split: str,
        keep: Path | None = None,
        on_progress: OnProgress = no_progress,
    ) -> dict[str, float]:
        """All metrics of a split, equal on all ranks.

        :param keep: a folder for what is translated.
        :param on_progress: called with the current activity and the share that is done.
        """
        parts = parts_of(on_progress, self._n_parts(split))
        layers = engine.model.layers_by_position
        counters = LayerCounters(layers)
        metrics: dict[str, float] = {}
        for name, objective in self.objectives.items():
            of_steps = [
                self._step(engine, split, name, objective, s, counters, next(parts))
                for s in self.steps[name]
            ]
            for measured in of_steps:
                metrics |= measured
            metrics |= _means(of_steps, _label(split, name), name)
        for position, layer in layers.items():
            # Every rank has the same counters in the same order, so the sums line up.
            sums = {key: engine.sum(value) for key, value in counters.sums[position].items()}
            for key, number in layer.metrics(sums).items():
                metrics[_label(split, str(position), layer.name, key)] = number
        if self.translations is not None:
            metrics |= self.translations.evaluate(engine, split, keep, parts)
        return metrics

    def _step(
        self,
        engine: Engine,
        split: str,
        name: str,
        objective: Objective,
        step: Step,
        counters: LayerCounters,
        on_progress: OnProgress,
    ) -> dict[str, float]:
        sums: dict[str, Tensor] = {}
        mine = self._batches(split, objective, step, engine.rank, engine.world_size)
        on_progress(f"{name}:{step}", 0.0)
        for index, (batches, counts) in enumerate(mine):
            # Objectives complete a batch with the same random numbers at every evaluation.
            number = index * engine.world_size + engine.rank
            engine.seed(int(keyed_rng("prepare", split, str(step), number).integers(2**63)))
            for key, batch in batches.items():
                complete = engine.prepare(objective, batch, step)
                output = torch.stack([p.double() for p in engine.evaluate(objective, complete)])
                sums.setdefault(key, torch.zeros_like(output))
                if counts:
                    sums[key] += output
                    counters.add()
                else:
                    counters.forget()
            on_progress(f"{name}:{step}", (index + 1) / len(mine))
        metrics = {}
        for key, local in sums.items():
            loss, n_targets, n_correct = engine.sum(local).tolist()
            if n_targets:
                label = _label(split, str(step), name, key)
                metrics[f"{label}_ppl"] = _perplexity(loss / n_targets)
                metrics[f"{label}_acc"] = 100 * n_correct / n_targets
        return metrics

    def _n_parts(self, split: str) -> int:
        """What is measured one after the other: each step, and each translation."""
        n_translations = len(self.translations.labels(split)) if self.translations else 0
        return sum(len(steps) for steps in self.steps.values()) + n_translations

    def _batches(
        self, split: str, objective: Objective, step: Step, rank: int, world_size: int
    ) -> EvaluationBatches | list[tuple[dict[str, Batch], bool]]:
        return evaluation_batches(
            self.folder, self.manifest, split, objective, step, self.sizes, rank, world_size
        )


class LayerCounters:
    """Sums the layers' counters over batches, except repeated ones, which only keep ranks in step.

    ``sums`` holds the counters by position, then by name; every layer has an entry from the start,
    so that ranks can add them up.
    """

    def __init__(self, layers: Mapping[Position, Layer]) -> None:
        self._layers = layers
        self.forget()
        self.sums = {place: layer.statistics() for place, layer in layers.items()}

    def add(self) -> None:
        """Add what was counted since the last call of either method."""
        for place, layer in self._layers.items():
            counted, sums = layer.statistics(), self.sums[place]
            self.sums[place] = {key: sums[key] + counted[key] for key in sums}
        self.forget()

    def forget(self) -> None:
        """Discard what was counted since the last call of either method."""
        for layer in self._layers.values():
            layer.reset_statistics()


def _label(*parts: str) -> str:
    return "_".join(part for part in parts if part)


def _means(of_steps: list[dict[str, float]], label: str, name: str) -> dict[str, float]:
    """The means over steps of the objective's perplexity and accuracy."""
    means = {}
    for measure in MEASURES:
        ending = f"_{name}_{measure}"
        values = [v for metrics in of_steps for k, v in metrics.items() if k.endswith(ending)]
        if values:
            means[f"{label}_{measure}"] = sum(values) / len(values)
    return means


def _perplexity(mean_loss: float) -> float:
    """exp(mean loss); infinite if a float cannot hold it."""
    return math.inf if mean_loss > 700 else math.exp(mean_loss)


def evaluate_run(
    reference: str,
    data: str | Path | None,
    split: str,
    plugins: Plugins,
    *,
    generation: GenerationOptions | None = None,
    n_sentences: int | None = None,
    keep: Path | None = None,
    on_progress: OnProgress = no_progress,
) -> dict[str, float]:
    """Evaluate a run's model on a split, with the batch sizes that the run was trained with.

    :param reference: RUN, ``RUN@last``, ``RUN@step-N`` or a bundle.
    :param data: the data set, a folder or its URL; the run's own where None.
    :param generation: how to translate; greedily where None.
    :param n_sentences: of each translation, at most; all where None.
    :param keep: a folder for what is translated.
    :param on_progress: called with the current activity and the share that is done.
    :raises DataError: the data was made with another tokenizer, or has no such split.
    :raises BundleError: the model was fine-tuned on a task.
    """
    bundle = _with_objectives(find_bundle(reference), plugins)
    options = _train_options(split_reference(reference)[0])
    folder, manifest = open_data(str(data) if data else options.data, plugins)
    check_tokenizer(manifest, folder, bundle.tokenizer.fingerprint, str(bundle.path))
    check_shards(folder, manifest, include_training=False)
    steps = _steps(bundle, manifest, split)
    longest = bundle.description.options.max_positions
    max_length, window = min(options.max_length, longest - 2), min(options.window, longest)
    most = sys.maxsize if n_sentences is None else n_sentences
    evaluation = PretrainingEvaluation(
        folder,
        manifest,
        bundle.objectives,
        steps,
        BatchSizes(options.batch_tokens, options.lanes, max_length, window),
        TranslationEvaluation(
            bundle, folder, manifest, steps, generation or GenerationOptions(), most
        ),
    )
    engine = TorchEngine(bundle.model, OptimizerOptions(), TrainOptions(), World())
    with engine.evaluating():
        metrics = evaluation.evaluate(engine, split, keep, on_progress)
    if not metrics:
        raise _nothing_to_measure(folder, manifest, split, steps)
    return metrics


def _steps(bundle: Bundle, manifest: Manifest, split: str) -> dict[str, Sequence[Step]]:
    """The steps that a model was trained on, by objective.

    Imported models do not record them: then all steps that the split has text for, in languages
    that the model knows.
    """
    description = bundle.description
    found: dict[str, Sequence[Step]] = {}
    for chosen in description.objectives:
        name = chosen.component.name
        objective = bundle.objectives[name]
        if description.known_languages is None:  # any language will do
            objective.languages = dict.fromkeys(manifest.languages, 0) | objective.languages
        offered = objective.steps(manifest.monolingual(split), manifest.pairs(split))
        known = [step for step in offered if objective.languages.keys() >= {*step.languages}]
        found[name] = [Step.parse(text) for text in chosen.steps] or known
    return found


def _nothing_to_measure(
    folder: Path, manifest: Manifest, split: str, steps: Mapping[str, Sequence[Step]]
) -> DataError:
    splits = sorted({stream.split for stream in manifest.streams})
    named = (":".join([name, ",".join(map(str, found))]) for name, found in steps.items())
    trained = " and ".join(name.removesuffix(":") for name in named)
    have = ", ".join(stream.name for stream in manifest.streams if stream.split == split)
    return DataError(
        f"{folder} has no text in {split!r} to measure {trained} on"
        + (f", but {have}" * bool(have)),
        expected=f"--split with one of {', '.join(splits)}, and such text in it",
        remedy=("--split valid, or " if "valid" in splits and split != "valid" else "")
        + "add such text to the source and prepare the data again",
    )


def _with_objectives(path: Path, plugins: Plugins) -> Bundle:
    """Load a model that has perplexities."""
    bundle = Bundle.load(path, plugins)
    if bundle.classifier is not None:
        raise BundleError(
            f"{path} was fine-tuned on the task {bundle.classifier.name}, which has no perplexity",
            expected="a model that `xlm train` wrote",
            remedy="the task's metrics are in the run's results.json",
        )
    return bundle


def _train_options(run: Path) -> TrainOptions:
    """The run's options; the defaults for a bundle without a run."""
    config = run / CONFIG_NAME
    if not config.is_file():
        return TrainOptions()
    return build(TrainOptions, read_toml(config).get("train", {}), "train")
