"""``xlm finetune`` from start to finish: the runs of all seeds, and their results.

The runs of several seeds are ordinary runs in one folder::

    OUT/config.toml, OUT/results.json, OUT/seed-1/, OUT/seed-2/ ...
"""

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
from xlm_plugins.runs.layout import CONFIG_NAME, METRICS_NAME, RESULTS_NAME
from xlm_plugins.training.distributed import process_group
from xlm_plugins.training.engines.torch_engine import TorchEngine
from xlm_plugins.training.finetuning.diagnosis import Finding, Majority, remarks
from xlm_plugins.training.finetuning.evaluation import TaskEvaluation
from xlm_plugins.training.finetuning.job import Finetuning
from xlm_plugins.training.finetuning.plan import FinetuningPlan, make_plan
from xlm_plugins.training.job import Outcome
from xlm_plugins.training.run_job import dry_run_job, joined, run_job

PREDICTIONS_NAME = "predictions"
EVALUATED = ("valid", "test")


@dataclass(frozen=True)
class Results:
    """The results of one command.

    :param path: the run folder, or that of all seeds' runs.
    :param reason: why the last run ended.
    :param by_seed: metrics of each seed's best model, under the same names.
    :param remarks: what users should know about them.
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
    """Fine-tune with every seed, and evaluate the best model of each.

    :raises XLMError: something does not fit; nothing has been written then.
    """
    options = settings.finetune
    plan = functools.cache(lambda: make_plan(settings, plugins))

    def run(one: FinetuneSettings, sweep: Path | None = None) -> Outcome:
        return run_job(
            one.finetune, lambda report: Finetuning(one, plan(), plugins, sweep), plugins
        )

    if options.seeds == 1:
        outcome = run(settings)
        return _results(outcome.path, [outcome], plan(), plugins)
    outcomes: list[Outcome] = []
    with joined(options):
        with process_group.all_or_none():  # all ranks check before one writes
            sweep = _sweep_folder(options)
        for seed in range(options.seed, options.seed + options.seeds):
            outcomes.append(run(_of_seed(settings, sweep, seed), sweep))
            if _was_stopped(outcomes[-1]):
                break
    return _results(sweep, outcomes, plan(), plugins)


def dry_run(settings: FinetuneSettings, plugins: Plugins) -> None:
    """Print what `finetune` would do with the first seed, without training and without a run.

    :raises XLMError: something does not fit.
    """
    plan, sweep = make_plan(settings, plugins), None
    if settings.finetune.seeds > 1:
        sweep = _sweep_folder(settings.finetune)
        settings = _of_seed(settings, sweep, settings.finetune.seed)
    dry_run_job(settings.finetune, lambda report: Finetuning(settings, plan, plugins, sweep))


def _sweep_folder(options: FinetuneOptions) -> Path:
    """The folder for the runs of several seeds.

    :raises OptionError: the user named none.
    :raises RunError: it holds something else, or nothing to resume.
    """
    resumed = options.resume if options.resume != AUTO else None
    if not (folder := resumed or options.out):
        raise OptionError(
            f"--seeds {options.seeds} makes several runs", expected="--out, a folder for them"
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
            remedy=f"resume it: xlm finetune --resume {path}; or choose another --out",
        )
    return path


def _of_seed(settings: FinetuneSettings, sweep: Path, seed: int) -> FinetuneSettings:
    """The settings of one seed's run; when the sweep is resumed, it may have started or not."""
    out = str(sweep / f"seed-{seed}")
    resume = None if settings.finetune.resume is None else AUTO
    options = replace(settings.finetune, seed=seed, seeds=1, out=out, resume=resume)
    return replace(settings, finetune=options)


def _was_stopped(outcome: Outcome) -> bool:
    return outcome.reason.startswith("SIG")


def _results(
    path: Path, outcomes: Sequence[Outcome], plan: FinetuningPlan, plugins: Plugins
) -> Results:
    """Evaluate the best model of each run, unless a signal has ended the last one."""
    reason = outcomes[-1].reason
    if _was_stopped(outcomes[-1]) or process_group.World.from_environment().rank > 0:
        return Results(path, reason, [], [])
    by_seed, findings = [], []
    for outcome in outcomes:
        metrics, found = _evaluate(outcome.path, plan, plugins)
        by_seed.append(metrics)
        findings += found
    results = Results(path, reason, by_seed, remarks(findings, plan.settings))
    if path != outcomes[-1].path:
        tree = {"mean": results.means, "deviation": results.deviations, "n_seeds": len(by_seed)}
        write_json(path / RESULTS_NAME, tree)
    return results


def _evaluate(
    run: Path, plan: FinetuningPlan, plugins: Plugins
) -> tuple[dict[str, float], list[Finding]]:
    """The metrics of a run's best model, and how they compare with naming always one class.

    Metrics and predictions are written into the run folder.
    """
    bundle = Bundle.load(find_bundle(str(run)), plugins)
    assert bundle.classifier is not None, "a fine-tuned model has one"
    evaluation = TaskEvaluation(plan.task, plan.data, plan.examples, bundle.classifier)
    # In fp32, as `xlm predict`.
    options = RunOptions(precision="fp32")
    engine = TorchEngine(bundle.model, OptimizerOptions(), options, process_group.World())
    metrics: dict[str, float] = {}
    findings = []
    for split in EVALUATED:
        predicted = evaluation.predict(engine, split)
        metrics |= evaluation.metrics(split, predicted)
        findings += _findings(plan, evaluation, split, predicted)
        if split == "test" and predicted:
            _write_predictions(run / PREDICTIONS_NAME, plan, evaluation, predicted)
    write_json(run / RESULTS_NAME, metrics)
    return metrics, findings


def _findings(
    plan: FinetuningPlan, evaluation: TaskEvaluation, split: str, predicted: Sequence[Values]
) -> list[Finding]:
    """How the predictions for each labelled part of a split compare with its majority class."""
    classes = plan.data.classes
    trained = {part.language for part in plan.data.of("train")}
    return [
        Finding(
            f"{split} {part.title}",
            Majority.of(targets, values, classes),
            trained=part.language in trained,
        )
        for (part, targets), values in zip(evaluation.parts(split), predicted, strict=True)
        if classes and targets is not None
    ]


def _write_predictions(
    folder: Path, plan: FinetuningPlan, evaluation: TaskEvaluation, predicted: Sequence[Values]
) -> None:
    """Every test part's predictions, a line a row, and what the task hands in.

    The folder is there as a whole, or not at all.
    """
    classes = plan.data.classes
    with whole_folder(folder) as new:
        for (part, _), predictions in zip(evaluation.parts("test"), predicted, strict=True):
            rows = [classes[value] if classes else f"{value:.4f}" for value in predictions]
            write_text(new / f"test.{part.title}.txt", "".join(f"{row}\n" for row in rows))
            plan.task.write(part, rows, new)
        shutil.rmtree(folder, ignore_errors=True)
