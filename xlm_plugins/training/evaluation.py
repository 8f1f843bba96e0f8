"""Evaluation: perplexity and accuracy per objective and step, and the layers' own metrics.

Names are those of the field (SEMANTICS 7): ``valid_en_mlm_ppl``, ``valid_en-fr_tlm_acc``, the mean
over an objective's steps ``valid_mlm_ppl``, and ``valid_enc.2_pkm_usage`` for a layer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from xlm_plugins.core.batch import Step
from xlm_plugins.core.contracts import Objective
from xlm_plugins.core.errors import DataError
from xlm_plugins.core.options import build
from xlm_plugins.core.plugins import Plugins
from xlm_plugins.data.embedded import embedded_data_set
from xlm_plugins.data.loader import BatchSizes, evaluation_batches
from xlm_plugins.data.manifest import Manifest
from xlm_plugins.model.bundle import Bundle
from xlm_plugins.training.config import OptimizerOptions, TrainOptions
from xlm_plugins.training.engine import Engine, TorchEngine
from xlm_plugins.training.launch import World
from xlm_plugins.training.run import CONFIG_NAME, find_bundle
from xlm_plugins.training.settings import read_toml


@dataclass(frozen=True)
class EvaluationPlan:
    """What to measure: each objective with its steps, on one data set.

    :param steps: by objective name; steps without text in a split are left out there.
    """

    folder: Path
    manifest: Manifest
    objectives: Mapping[str, Objective]
    steps: Mapping[str, Sequence[Step]]
    sizes: BatchSizes

    def evaluate(self, engine: Engine, split: str) -> dict[str, float]:
        """All metrics of a split, equal on all ranks."""
        layers = engine.model.layers_by_position
        for layer in layers.values():
            layer.reset_statistics()
        metrics: dict[str, float] = {}
        for name, objective in self.objectives.items():
            of_steps = [self._step(engine, split, name, objective, s) for s in self.steps[name]]
            for measured in of_steps:
                metrics |= measured
            metrics |= _means(of_steps, split, name)
        for position, layer in layers.items():
            # Every rank has the same counters in the same order, so the sums line up.
            sums = {key: engine.sum(value) for key, value in layer.statistics().items()}
            for key, number in layer.metrics(sums).items():
                metrics[f"{split}_{position}_{layer.name}_{key}"] = number
        return metrics

    def _step(
        self, engine: Engine, split: str, name: str, objective: Objective, step: Step
    ) -> dict[str, float]:
        sums: dict[str, Tensor] = {}
        for batches, counts in evaluation_batches(
            self.folder, self.manifest, split, objective, step, self.sizes,
            engine.rank, engine.world_size,
        ):  # fmt: skip
            for key, batch in batches.items():
                output = torch.stack([p.double() for p in engine.evaluate(objective, batch)])
                sums.setdefault(key, torch.zeros_like(output))
                sums[key] += output if counts else 0
        metrics = {}
        for key, local in sums.items():
            loss, n_targets, n_correct = engine.sum(local).tolist()
            label = "_".join(part for part in (split, str(step), name, key) if part)
            metrics[f"{label}_ppl"] = _perplexity(loss, n_targets)
            metrics[f"{label}_acc"] = 100 * n_correct / max(n_targets, 1)
        return metrics


def _means(of_steps: list[dict[str, float]], split: str, name: str) -> dict[str, float]:
    """The mean over steps of the objective's own perplexity and accuracy."""
    means = {}
    for measure in ("ppl", "acc"):
        ending = f"_{name}_{measure}"
        values = [v for metrics in of_steps for k, v in metrics.items() if k.endswith(ending)]
        if values:
            means[f"{split}{ending}"] = sum(values) / len(values)
    return means


def _perplexity(loss: float, n_targets: float) -> float:
    """exp(mean loss); infinite where a float cannot hold it."""
    mean = loss / max(n_targets, 1)
    return math.exp(mean) if mean < 700 else math.inf


def evaluate_run(
    reference: str, data: Path | None, split: str, plugins: Plugins
) -> dict[str, float]:
    """Measure a run's model on a split, with the batch sizes that the run was trained with.

    :param reference: RUN, ``RUN@last``, ``RUN@step-N`` or a bundle.
    :param data: the data set; the run's own where None.
    :raises DataError: the data was made with another tokenizer, or has no such split.
    """
    path = find_bundle(reference)
    bundle = Bundle.load(path, plugins)
    options = _train_options(Path(reference.partition("@")[0]))
    folder = data or (Path(options.data) if options.data else embedded_data_set(plugins))
    manifest = Manifest.load(folder)
    check_tokenizer(manifest, folder, bundle.tokenizer.fingerprint, str(path))
    plan = EvaluationPlan(
        folder,
        manifest,
        bundle.objectives,
        {
            chosen.component.name: [Step.parse(text) for text in chosen.steps]
            for chosen in bundle.description.objectives
        },
        BatchSizes(options.batch_tokens, options.lanes, options.max_length, options.window),
    )
    metrics = plan.evaluate(
        TorchEngine(bundle.model, OptimizerOptions(), TrainOptions(), World()), split
    )
    if not metrics:
        splits = sorted({stream.split for stream in manifest.streams})
        raise DataError(
            f"{folder} has no text in {split!r} for what the model was trained on",
            expected=f"--split with one of {', '.join(splits)}",
        )
    return metrics


def check_tokenizer(manifest: Manifest, folder: Path, fingerprint: str, model: str) -> None:
    """Refuse a data set that was encoded with another tokenizer than the model's.

    :raises DataError: the fingerprints differ.
    """
    if manifest.tokenizer.fingerprint != fingerprint:
        raise DataError(
            f"{folder} was encoded with the tokenizer {manifest.tokenizer.fingerprint}, and "
            f"{model} was trained with {fingerprint}",
            remedy=f"encode the text anew: xlm prepare SOURCE OUT --tokenizer-from {model}",
        )


def _train_options(run: Path) -> TrainOptions:
    """What the run was told; the defaults for a bundle without a run."""
    config = run / CONFIG_NAME
    if not config.is_file():
        return TrainOptions()
    return build(TrainOptions, read_toml(config).get("train", {}), "train")
