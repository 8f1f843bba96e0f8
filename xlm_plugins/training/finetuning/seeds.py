"""``xlm finetune``, start to finish: the runs of all seeds, and what they come to."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from xlm_plugins.config.finetune_settings import FinetuneSettings
from xlm_plugins.config.settings import AUTO
from xlm_plugins.config.training import FinetuneOptions, OptimizerOptions, RunOptions
from xlm_plugins.contracts.task import Values
from xlm_plugins.core.errors import OptionError, RunError
from xlm_plugins.core.files import whole_folder, write_json, write_text
from xlm_plugins.core.plugins import Plugins
from xlm_plugins.model.bundle import Bundle
from xlm_plugins.runs.find import find_bundle
from xlm_plugins.runs.layout import CONFIG_NAME, METRICS_NAME
from xlm_plugins.training.distributed import process_group as launch
from xlm_plugins.training.engines.torch_engine import TorchEngine
from xlm_plugins.training.finetuning.diagnosis import Majority, Remarks
from xlm_plugins.training.finetuning.evaluation import TaskEvaluation
from xlm_plugins.training.finetuning.job import Downstream
from xlm_plugins.training.job import Outcome
from xlm_plugins.training.run_job import joined, run_job

RESULTS_NAME = "results.json"
PREDICTIONS_NAME = "predictions"
MEASURED = ("valid", "test")


@dataclass(frozen=True)
class Results:
    """What a call came to.

    :param path: the run folder, or that of all seeds' runs.
    :param reason: why the last run ended.
    :param by_seed: metrics of each seed's best model, equal in their names.
    :param remarks: what a person should know about them.
    """

    path: Path
    reason: str
    by_seed: Sequence[Mapping[str, float]]
    remarks: Sequence[str]

    @property
    def means(self) -> dict[str, float]:
        """The mean over seeds."""
        names = self.by_seed[0] if self.by_seed else {}
        return {name: float(np.mean([m[name] for m in self.by_seed])) for name in names}

    @property
    def deviations(self) -> dict[str, float]:
        """The standard deviation over seeds (of the sample); 0 for one seed."""
        if len(self.by_seed) < 2:
            return dict.fromkeys(self.means, 0.0)
        return {name: float(np.std([m[name] for m in self.by_seed], ddof=1)) for name in self.means}


def finetune(settings: FinetuneSettings, plugins: Plugins) -> Results:
    """Fine-tune with every seed, and measure the best model of each.

    :raises XLMError: something does not fit; nothing has been written then.
    """
    options = settings.finetune
    opened = functools.cache(lambda: Downstream.open(settings, plugins))

    def run(one: FinetuneSettings, whole: Path | None = None) -> Outcome:
        return run_job(one.finetune, lambda report: opened().job(one, whole), plugins)

    if options.seeds == 1:
        outcome = run(settings)
        return _results(outcome.path, [outcome], opened())
    outcomes: list[Outcome] = []
    with joined(options):
        with launch.all_or_none():  # all look before one writes
            whole = _folder(options)
        for seed in range(options.seed, options.seed + options.seeds):
            outcomes.append(run(_of_seed(settings, whole, seed), whole))
            if _was_stopped(outcomes[-1]):
                break
    return _results(whole, outcomes, opened())


def _folder(options: FinetuneOptions) -> Path:
    """Where the runs of several seeds go.

    :raises OptionError: it is not said, or holds something else.
    :raises RunError: there is nothing to go on with.
    """
    resumed = options.resume if options.resume != AUTO else None
    if not (folder := resumed or options.out):
        raise OptionError(
            f"--seeds {options.seeds} makes so many runs", expected="--out, a folder for them"
        )
    path = Path(folder)
    if resumed and not (path / CONFIG_NAME).is_file():
        raise RunError(f"{path} holds no runs: it has no {CONFIG_NAME}")
    if (path / METRICS_NAME).exists():
        raise RunError(
            f"{path} holds a run of one seed, and --seeds {options.seeds} makes several",
            remedy="choose another --out",
        )
    if options.resume is None and path.exists() and any(path.iterdir()):
        raise RunError(
            f"{path} is not empty",
            remedy=f"go on with it: xlm finetune --resume {path}; or choose another --out",
        )
    return path


def _of_seed(settings: FinetuneSettings, whole: Path, seed: int) -> FinetuneSettings:
    """The settings of one of several runs, which a resume may find begun or not."""
    out = str(whole / f"seed-{seed}")
    resume = None if settings.finetune.resume is None else AUTO
    options = replace(settings.finetune, seed=seed, seeds=1, out=out, resume=resume)
    return replace(settings, finetune=options)


def _was_stopped(outcome: Outcome) -> bool:
    return outcome.reason.startswith("SIG")


def _results(path: Path, outcomes: Sequence[Outcome], downstream: Downstream) -> Results:
    """Measure the best model of each run, unless a signal says that there is no time to."""
    reason = outcomes[-1].reason
    if _was_stopped(outcomes[-1]) or launch.World.from_environment().rank > 0:
        return Results(path, reason, [], [])
    remarks = Remarks(downstream.settings)
    by_seed = [_measure(outcome.path, downstream, remarks) for outcome in outcomes]
    results = Results(path, reason, by_seed, remarks.lines())
    if path != outcomes[-1].path:
        tree = {"mean": results.means, "deviation": results.deviations, "n_seeds": len(by_seed)}
        write_json(path / RESULTS_NAME, tree)
    return results


def _measure(run: Path, downstream: Downstream, remarks: Remarks) -> dict[str, float]:
    """The metrics of a run's best model, which are kept with its predictions.

    :param remarks: gets what there is to say.
    """
    bundle = Bundle.load(find_bundle(str(run)), downstream.plugins)
    assert bundle.classifier is not None, "a fine-tuned model has one"
    evaluation = TaskEvaluation(
        downstream.task, downstream.data, downstream.examples, bundle.classifier
    )
    # In fp32, as `xlm predict` reads texts.
    options = RunOptions(precision="fp32")
    engine = TorchEngine(bundle.model, OptimizerOptions(), options, launch.World())
    metrics: dict[str, float] = {}
    for split in MEASURED:
        predicted = evaluation.predict(engine, split)
        metrics |= evaluation.metrics(split, predicted)
        _diagnose(downstream, evaluation, split, predicted, remarks)
        if split == "test" and predicted:
            _write_predictions(run / PREDICTIONS_NAME, downstream, evaluation, predicted)
    write_json(run / RESULTS_NAME, metrics)
    return metrics


def _diagnose(
    downstream: Downstream,
    evaluation: TaskEvaluation,
    split: str,
    predicted: Sequence[Values],
    remarks: Remarks,
) -> None:
    """Note what is no better than one class."""
    classes = downstream.data.classes
    trained = {part.language for part in downstream.data.of("train")}
    for (part, targets), values in zip(evaluation.parts(split), predicted, strict=True):
        if classes and targets is not None:
            remarks.note(
                f"{split} {part.title}",
                Majority.of(targets, values, classes),
                trained=part.language in trained,
            )


def _write_predictions(
    folder: Path, downstream: Downstream, evaluation: TaskEvaluation, predicted: Sequence[Values]
) -> None:
    """Every test part's predictions, a line a row, and what the task hands in.

    The folder is there as a whole, or not at all.
    """
    classes = downstream.data.classes
    with whole_folder(folder) as new:
        for (part, _), predictions in zip(evaluation.parts("test"), predicted, strict=True):
            rows = [classes[value] if classes else f"{value:.4f}" for value in predictions]
            write_text(new / f"test.{part.title}.txt", "".join(f"{row}\n" for row in rows))
            downstream.task.write(part, rows, new)
        shutil.rmtree(folder, ignore_errors=True)
