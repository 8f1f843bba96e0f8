"""Starting a run, new or resumed: everything that the training loop works with, put together."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from rich.console import Console
from torch import nn

from xlm_plugins.core.errors import OptionError, RunError, XLMError
from xlm_plugins.core.plugins import Plugins
from xlm_plugins.core.selection import LayerSelection, ObjectiveSelection
from xlm_plugins.core.tokenizers import SavedTokenizer
from xlm_plugins.data.manifest import TOKENIZER_NAME
from xlm_plugins.model.bundle import MODEL_NAME
from xlm_plugins.model.host import tune_host
from xlm_plugins.model.root import Model
from xlm_plugins.training import launch
from xlm_plugins.training.checkpoint import latest_good, load_training_state
from xlm_plugins.training.engine import Engine, TrainingState, create_engine
from xlm_plugins.training.initialise import initialise, split_stack
from xlm_plugins.training.plot import plot_runs
from xlm_plugins.training.progress import Report
from xlm_plugins.training.run import (
    CHECKPOINTS_NAME,
    CONFIG_NAME,
    RunFolder,
    find_bundle,
    free_run_path,
)
from xlm_plugins.training.run_hooks import RunHooks
from xlm_plugins.training.settings import Settings, to_toml
from xlm_plugins.training.setup import Plan, check_tokenizer, make_plan
from xlm_plugins.training.signals import StopRequest
from xlm_plugins.training.trainer import Trainer, TrainerState


@dataclass(frozen=True)
class Outcome:
    """How a run ended: why, where it lies, and after how many updates."""

    reason: str
    path: Path
    update: int


@dataclass(frozen=True)
class Start:
    """What a run begins with; `training` is there where it goes on."""

    model: Model
    state: TrainerState
    training: TrainingState | None = None


def train(settings: Settings, plugins: Plugins) -> Outcome:
    """Train until the end, or until a reason to stop before.

    :raises XLMError: something does not fit; nothing has been written then.
    """
    world = launch.World.from_environment()
    tune_host(settings.train.threads)
    report = Report(Console(stderr=True, quiet=world.rank > 0), settings.train.steps)
    with _joined(world, settings.train.engine):
        if settings.train.data is None:
            report.note("no --data: the embedded corpus, which the first use prepares in seconds")
        with launch.all_or_none():
            plan = make_plan(settings, plugins)
            resumed = _resumed_path(settings)
            start = _start(settings, plan, plugins, resumed, report)
        n_parameters = _size(start.model)  # before ZeRO 3 shards them
        engine = create_engine(
            start.model, settings.optimizer, settings.train, world, start.training
        )
        if engine.n_trained < n_parameters:
            frozen = f"{n_parameters - engine.n_trained:,}"
            report.note(f"trained: {engine.n_trained:,} of them; frozen: {frozen}")
        trainer = Trainer(settings, plan, engine, report, start.state)
        path = resumed or _new_path(settings, engine)
        with _held(path, settings, plugins, world.rank, new=resumed is None) as folder:
            try:
                with StopRequest() as stop, report.shown():
                    reason = trainer.run(folder, stop, RunHooks(plugins, folder, report))
            except XLMError:
                if resumed is None and not start.state.update:
                    folder.remove()  # nothing in it is worth to go on with
                raise
            if folder.writing:
                plot_runs([path], path / "plots" / "curves.png")
    return Outcome(reason, path, start.state.update)


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


def _start(
    settings: Settings, plan: Plan, plugins: Plugins, resumed: Path | None, report: Report
) -> Start:
    """The model and where to go on: from a checkpoint, from another model, or from nothing."""
    checkpoint = _checkpoint(resumed, plan, report) if resumed else None
    torch.manual_seed(settings.train.seed)
    model = plan.description.build_model(plan.objectives)
    for line in _describe(model, plan):
        report.note(line)
    if checkpoint is not None:
        state = TrainerState.read(checkpoint)
        report.note(f"going on with {checkpoint} after {state.update:,} steps")
        return Start(model, state, load_training_state(checkpoint))
    for text in settings.train.init:
        _initialise(model, plan, text, plugins, report)
    return Start(model, TrainerState(plan.manifest.fingerprint))


def _checkpoint(run: Path, plan: Plan, report: Report) -> Path | None:
    """The newest checkpoint that is whole; None where the run was ended before its first.

    :raises DataError: the data set was made with another tokenizer than the run's.
    :raises RunError: the data set or the model are not those of the run.
    """
    if not (run / CONFIG_NAME).is_file():
        raise RunError(f"{run} holds no run: it has no {CONFIG_NAME}")
    found, rejected = latest_good(run / CHECKPOINTS_NAME)
    for damaged, why in rejected:
        report.note(f"passing over the damaged checkpoint {damaged.name}: {why}")
    if found is None:
        report.note(f"{run} has no checkpoint yet: starting from its beginning")
        return None
    tokenizer = SavedTokenizer.read(found / TOKENIZER_NAME)
    check_tokenizer(plan.manifest, plan.folder, tokenizer.fingerprint, str(run))
    fingerprint = TrainerState.read(found).data
    if fingerprint != plan.manifest.fingerprint:
        raise RunError(
            f"the run was trained on a data set with fingerprint {fingerprint}, and {plan.folder} "
            f"has {plan.manifest.fingerprint}",
            remedy="give --data the data set of the run, or start anew from its weights: "
            f"xlm train --init {run} ...",
        )
    _check_same_model(found, run, plan)
    return found


def _check_same_model(checkpoint: Path, run: Path, plan: Plan) -> None:
    """Hold a resume to the model and the objectives that the run was started with.

    :raises RunError: something differs; says what.
    """
    written = json.loads((checkpoint / MODEL_NAME).read_text(encoding="utf-8"))
    asked = plan.description.to_json()
    for part, value in asked.items():
        if written[part] != value:
            raise RunError(
                f"the run's {part} are not those asked for now: {written[part]} and {value}",
                remedy=f"leave them out, xlm train --resume {run}, or start a new run from its "
                f"weights: --init {run}",
            )


def _initialise(model: Model, plan: Plan, text: str, plugins: Plugins, report: Report) -> None:
    stack, reference = split_stack(text)
    bundle = find_bundle(reference)
    copied = initialise(model, plan.description, plan.tokenizer, bundle, plugins, stack)
    for line in copied.lines():
        report.note(line)


def _new_path(settings: Settings, engine: Engine) -> Path:
    """Where a new run goes; one choice for all ranks."""
    options = settings.train
    if options.out:
        return Path(options.out)
    names = [ObjectiveSelection.parse(text).name for text in options.objective]
    names += [LayerSelection.parse(text).name for text in options.layer]
    stem = "-".join(name.rpartition("/")[2] for name in names)
    free = free_run_path(stem)
    number = engine.agree(float(free.name.rpartition("-")[2]))
    return free.with_name(f"{stem}-{number:.0f}")


@contextmanager
def _held(
    path: Path, settings: Settings, plugins: Plugins, rank: int, *, new: bool
) -> Iterator[RunFolder]:
    """The run folder, which rank 0 makes and holds."""
    with launch.all_or_none():
        if rank > 0:
            folder = RunFolder(path)
        elif new:
            folder = RunFolder.create(path, to_toml(_repeatable(settings)), plugins)
        else:
            folder = RunFolder.reopen(path)
    try:
        yield folder
    finally:
        folder.close()


def _repeatable(settings: Settings) -> Settings:
    """The settings as config.toml records them: the data by a path that holds from anywhere."""
    if settings.train.data is None:
        return settings
    data = str(Path(settings.train.data).resolve())
    return replace(settings, train=replace(settings.train, data=data))


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
