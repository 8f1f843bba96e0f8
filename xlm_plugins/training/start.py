"""Starting a run, new or resumed: everything that the training loop works with, put together."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from torch import nn

from xlm_plugins.core.errors import OptionError, RunError
from xlm_plugins.core.plugins import Plugins
from xlm_plugins.core.tokenizers import load_tokenizer
from xlm_plugins.data.loader import TrainingBatches
from xlm_plugins.data.manifest import TOKENIZER_NAME
from xlm_plugins.model.bundle import MODEL_NAME
from xlm_plugins.model.host import tune_host
from xlm_plugins.model.root import Model
from xlm_plugins.training import launch
from xlm_plugins.training.checkpoint import latest_good, load_training_state
from xlm_plugins.training.config import TrainOptions
from xlm_plugins.training.engine import Engine, TrainingState, create_engine
from xlm_plugins.training.evaluation import EvaluationPlan
from xlm_plugins.training.initialise import initialise
from xlm_plugins.training.metrics import MetricsFile
from xlm_plugins.training.plot import plot_runs
from xlm_plugins.training.progress import Report
from xlm_plugins.training.run import CONFIG_NAME, RunFolder, find_bundle, free_run_path
from xlm_plugins.training.schedules import LearningRate
from xlm_plugins.training.settings import Settings, to_toml
from xlm_plugins.training.setup import Plan, make_plan
from xlm_plugins.training.signals import StopRequest
from xlm_plugins.training.trainer import TRAINER_NAME, Trainer, TrainerState
from xlm_plugins.training.validation import Validation


@dataclass(frozen=True)
class Outcome:
    """How a run ended: why, where it lies, and after how many updates."""

    reason: str
    path: Path
    update: int


@dataclass(frozen=True)
class Checkpoint:
    """What a resume starts from."""

    path: Path
    state: TrainerState
    training: TrainingState


def train(settings: Settings, plugins: Plugins) -> Outcome:
    """Train until the end, or until a reason to stop before.

    :raises XLMError: something does not fit; nothing has been written then.
    """
    options = settings.train
    world = launch.World.from_environment()
    tune_host(options.threads)
    with _joined(world, options.engine):
        console = Console(stderr=True, quiet=world.rank > 0)
        plan = make_plan(settings, plugins)
        resumed = _resumed_path(settings)
        checkpoint = _checkpoint(resumed, plan, console) if resumed else None
        torch.manual_seed(options.seed)
        model = plan.description.build_model(plan.objectives)
        for line in _describe(model, plan):
            console.print(line, highlight=False)
        if options.init and checkpoint is None:
            _initialise(model, plan, options.init, plugins, console)
        engine = create_engine(
            model, settings.optimizer, options, world, checkpoint.training if checkpoint else None
        )
        batches = _batches(options, plan, engine)
        path = resumed or _new_path(settings, engine)
        with _run_folder(path, settings, plugins, world.rank, resumed is not None) as folder:
            return _train(
                settings, plugins, plan, engine, batches, path, folder, checkpoint, console
            )


def _train(
    settings: Settings,
    plugins: Plugins,
    plan: Plan,
    engine: Engine,
    batches: TrainingBatches,
    path: Path,
    folder: RunFolder | None,
    checkpoint: Checkpoint | None,
    console: Console,
) -> Outcome:
    options = settings.train
    state = checkpoint.state if checkpoint else TrainerState(data=plan.manifest.fingerprint)
    metrics = MetricsFile(path / "metrics.jsonl", writing=folder is not None)
    metrics.cut(state.metrics_position)
    report = Report(console, options.steps, options.minutes)
    component = plugins.get("tokenizer", plan.manifest.tokenizer.name)
    tokenizer = load_tokenizer(plugins, plan.folder / TOKENIZER_NAME)
    with StopRequest() as stop:
        trainer = Trainer(
            settings, plan, engine, batches, folder,
            EvaluationPlan(plan.folder, plan.manifest, plan.objectives, plan.steps, plan.sizes),
            _validation(settings, plan, state), metrics, report,
            LearningRate(settings.optimizer), tokenizer, component, stop, state,
        )  # fmt: skip
        report.start()
        try:
            reason = trainer.run()
        finally:
            report.stop()
            metrics.close()
    if folder is not None:
        plot_runs([path], path / "plots" / "curves.png")
    return Outcome(reason, path, state.update)


def _batches(options: TrainOptions, plan: Plan, engine: Engine) -> TrainingBatches:
    """The batches of this rank; whatever is wrong with the plan shows here, before it starts."""
    batches = TrainingBatches(
        plan.folder, plan.manifest, plan.schedule, plan.objectives, plan.sizes, options.seed,
        engine.rank, engine.world_size, options.accumulation,
    )  # fmt: skip
    plan.schedule.update(options.steps - 1)  # weights that all fall to 0 end a run too early
    return batches


@contextmanager
def _joined(world: launch.World, engine: str) -> Iterator[None]:
    """Together with the other processes, and apart from them again, whatever happens."""
    launch.start(world, launch.choose_engine(engine, world))
    try:
        yield
    except BaseException:
        launch.finish(failed=True)
        raise
    launch.finish()


def _resumed_path(settings: Settings) -> Path | None:
    """The run to go on with; None for a new one."""
    options = settings.train
    if options.resume is None:
        return None
    if options.resume != "auto":
        return Path(options.resume)
    if options.out is None:
        raise OptionError(
            "--resume auto does not know which run",
            expected="--out RUN beside it: the run goes on if it exists, else it starts",
        )
    return Path(options.out) if (Path(options.out) / CONFIG_NAME).is_file() else None


def _checkpoint(path: Path, plan: Plan, console: Console) -> Checkpoint | None:
    """The newest checkpoint that is whole; None where the run was ended before its first.

    :raises RunError: the data set is not the one that the run was trained on.
    """
    if not (path / CONFIG_NAME).is_file():
        raise RunError(f"{path} holds no run: it has no {CONFIG_NAME}")
    found, rejected = latest_good(path / "checkpoints")
    for damaged, why in rejected:
        console.print(f"passing over the damaged checkpoint {damaged.name}: {why}", markup=False)
    if found is None:
        console.print(f"{path} has no checkpoint yet: starting from its beginning", markup=False)
        return None
    state = TrainerState(**json.loads((found / TRAINER_NAME).read_text(encoding="utf-8")))
    if state.data != plan.manifest.fingerprint:
        raise RunError(
            f"the run was trained on a data set with fingerprint {state.data}, and {plan.folder} "
            f"has {plan.manifest.fingerprint}",
            remedy="give --data the data set of the run, or start anew from its weights: "
            f"xlm train --init {path} ...",
        )
    _check_same_model(found, plan)
    console.print(f"going on with {found} after {state.update:,} steps", markup=False)
    return Checkpoint(found, state, load_training_state(found))


def _check_same_model(checkpoint: Path, plan: Plan) -> None:
    """Hold a resume to the model and the objectives that the run was started with.

    :raises RunError: something differs; says what.
    """
    written = json.loads((checkpoint / MODEL_NAME).read_text(encoding="utf-8"))
    asked = plan.description.to_json()
    for part, value in asked.items():
        if written[part] != value:
            raise RunError(
                f"the run's {part} are not those asked for now: {written[part]} and {value}",
                remedy=f"leave them out, xlm train --resume {checkpoint.parents[1]}, or start a "
                f"new run from its weights: --init {checkpoint.parents[1]}",
            )


def _initialise(
    model: Model, plan: Plan, reference: str, plugins: Plugins, console: Console
) -> None:
    tokenizer = load_tokenizer(plugins, plan.folder / TOKENIZER_NAME)
    report = initialise(model, plan.description, tokenizer, find_bundle(reference), plugins)
    for line in report.lines():
        console.print(line, highlight=False, markup=False)


def _new_path(settings: Settings, engine: Engine) -> Path:
    """Where a new run goes; rank 0's choice, for all."""
    if settings.train.out:
        return Path(settings.train.out)
    names = [text.partition(":")[0].partition("@")[0] for text in settings.train.objective]
    names += [text.partition(":")[0] for text in settings.train.layer]
    path = free_run_path("-".join(name.rpartition("/")[2] for name in names))
    number = int(engine.agree(float(path.name.rpartition("-")[2])))
    return path.with_name(f"{path.name.rpartition('-')[0]}-{number}")


@contextmanager
def _run_folder(
    path: Path, settings: Settings, plugins: Plugins, rank: int, resumed: bool
) -> Iterator[RunFolder | None]:
    """The run folder on rank 0, None on the others."""
    if rank > 0:
        yield None
        return
    folder = (
        RunFolder.reopen(path) if resumed else RunFolder.create(path, to_toml(settings), plugins)
    )
    try:
        yield folder
    finally:
        folder.close()


def _validation(settings: Settings, plan: Plan, state: TrainerState) -> Validation:
    """The metrics that models are kept for: as asked, else the first objective's perplexity."""
    options = settings.train
    has_text = any(stream.split == "valid" for stream in plan.manifest.streams)
    default = (f"_valid_{next(iter(plan.objectives))}_ppl",) if has_text else ()
    validation = Validation(options.validation_metrics or default, options.stopping_criterion)
    if state.validation:
        validation.restore(state.validation)
    return validation


def _describe(model: Model, plan: Plan) -> list[str]:
    """Parameters by part, and what is trained: a person's first check of the run."""
    total = _size(model)
    layers = sum(_size(layer) for layer in model.layers_by_position.values())
    tables = sum(p.numel() for name, p in model.named_parameters() if ".embeddings." in name)
    steps = ", ".join(f"{name}:{','.join(map(str, s))}" for name, s in plan.steps.items())
    placed = ", ".join(f"{p.component.name} at {p.position}" for p in plan.description.layers)
    return [
        f"data: {plan.folder} ({', '.join(plan.manifest.languages)}; "
        f"{plan.manifest.tokenizer.size:,} tokens in the vocabulary)",
        f"objectives: {steps}" + (f"; layers: {placed}" if placed else ""),
        f"parameters: {total:,} (embeddings {tables:,}, layers of plugins {layers:,}, "
        f"the rest {total - tables - layers:,})",
    ]


def _size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
