"""Starting a run, new or resumed, whatever kind of job it is."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from rich.console import Console

from xlm_plugins.config.training import RunOptions
from xlm_plugins.core.errors import OptionError, RunError, XLMError
from xlm_plugins.core.plugins import Plugins
from xlm_plugins.model.model import Model
from xlm_plugins.model.nn.cpu_tuning import tune_host
from xlm_plugins.runs.folder import RunFolder, free_run_path
from xlm_plugins.runs.layout import CHECKPOINTS_NAME, CONFIG_NAME, CURVES_NAME
from xlm_plugins.runs.plot import plot_runs
from xlm_plugins.runs.recorded import recorded_description
from xlm_plugins.runs.whole_folders import latest_good
from xlm_plugins.training.distributed import agreement, slurm
from xlm_plugins.training.distributed import process_group as launch
from xlm_plugins.training.distributed.failures import explained
from xlm_plugins.training.distributed.process_group import World
from xlm_plugins.training.distributed.signals import REQUEUED, StopRequest
from xlm_plugins.training.distributed.watchdog import Watchdog
from xlm_plugins.training.engines.create import create_engine
from xlm_plugins.training.engines.engine import Engine, choose_precision
from xlm_plugins.training.engines.training_state import TrainingState, load_training_state
from xlm_plugins.training.job import Job, Outcome, size
from xlm_plugins.training.memory_estimate import MemoryEstimate
from xlm_plugins.training.optim import parameter_groups as optim
from xlm_plugins.training.preflight import Rehearsal, rehearse
from xlm_plugins.training.progress import Report
from xlm_plugins.training.run_hooks import RunHooks
from xlm_plugins.training.trainer import Trainer, TrainerState

_COMPARED_UPDATES = 100
"""So many of the next updates' objectives are compared over ranks before training."""


@dataclass(frozen=True)
class _Start:
    """What a run begins with; `training` is there where it goes on."""

    model: Model
    state: TrainerState
    training: TrainingState | None = None


def run_job(options: RunOptions, decide: Callable[[Report], Job], plugins: Plugins) -> Outcome:
    """Train until the end, or until a reason to stop before.

    :param options: those of the job.
    :param decide: opens the data and decides everything, on every rank alike.
    :raises XLMError: something does not fit; nothing has been written then.
    """
    world = launch.World.from_environment()
    tune_host(options.threads)
    report = Report(Console(stderr=True, quiet=world.rank > 0))
    watch = Watchdog(world, options.hang_minutes)
    need: list[str] = []
    with watch, joined(options), StopRequest() as stop, explained(watch, world, need):
        with launch.all_or_none():
            job = decide(report)
            resumed = _resumed_path(job.options)
            start = _start(job, resumed, report)
        trainer = _ready(job, start, world, plugins, report, watch, need)
        path = resumed or _new_path(job, trainer.engine)
        stop.can_save = True
        with _held(path, job, plugins, world.rank, new=resumed is None) as folder:
            try:
                with explained(watch, world, need), report.shown():
                    reason = trainer.run(folder, stop, RunHooks(plugins, folder, report), watch)
            except XLMError:
                if resumed is None and not start.state.update:
                    folder.remove()  # nothing in it is worth to go on with
                raise
            if folder.writing:
                watch.at("plotting the curves")
                _plot(path, report)
        if reason == REQUEUED and world.rank == 0:
            # Before the other ranks are let go: a launcher ends all once one has ended.
            report.note(slurm.requeue(os.environ))
    return Outcome(reason, path, start.state.update)


def _plot(run: Path, report: Report) -> None:
    """Draw the curves of a run that is over: whatever comes of it, what the run is for is there."""
    try:
        plot_runs([run], run / CURVES_NAME)
    except Exception as error:  # a full disk, or anything of matplotlib's
        report.note(f"the curves could not be drawn: {error}; once it is mended: xlm plot {run}")


def _ready(
    job: Job,
    start: _Start,
    world: World,
    plugins: Plugins,
    report: Report,
    watch: Watchdog,
    need: list[str],
) -> Trainer:
    """All that is left to do before anything is written: compare ranks, and try the largest batch.

    :param need: gets what the run needs of memory.
    """
    options, update = job.options, start.state.update
    watch.at("comparing the ranks")
    drawn = [job.drawn(n) for n in range(update, min(update + _COMPARED_UPDATES, options.steps))]
    agreement.check(
        agreement.facts(
            options, job.optimizer, job.description.to_json(), job.data, update, drawn, plugins
        )
    )
    report.n_updates = options.steps
    n_parameters = size(start.model)  # before ZeRO 3 shards them
    rehearsals = job.rehearsals(world.world_size * options.accumulation)
    need.append(_estimate(job, start.model, world, rehearsals).line())
    report.note(need[0])
    watch.at("making the engine")
    engine = create_engine(start.model, job.optimizer, options, world, start.training)
    watch.follow(engine.model)
    if engine.n_trained < n_parameters:
        frozen = f"{n_parameters - engine.n_trained:,}"
        report.note(f"trained: {engine.n_trained:,} of them; frozen: {frozen}")
    trainer = Trainer(options, job.optimizer, job.course(engine), engine, report, start.state)
    if told := rehearse(engine, rehearsals, watch):
        report.note(told)
    return trainer


def _estimate(job: Job, model: Model, world: World, rehearsals: list[Rehearsal]) -> MemoryEstimate:
    """What the run needs of memory on this rank."""
    options = job.options
    groups = optim.parameter_groups(model, job.optimizer, options.train_only)
    is_sharded = launch.choose_engine(options.engine, world) == "deepspeed"
    return MemoryEstimate.of(
        job.description.options,
        size(model),
        sum(p.numel() for p in optim.trained_parameters(groups).values()),
        max(one.batch.n_tokens for one in rehearsals),
        n_stacks=len(job.description.stacks),
        stage=options.zero_stage if is_sharded else 0,
        world_size=world.world_size,
        half=choose_precision(options.precision, world.device) != "fp32",
    )


@contextmanager
def joined(options: RunOptions) -> Iterator[None]:
    """Together with the other processes, and apart from them again, whatever happens.

    Several runs in one go join once: to do so again on the same port may fail.

    :param options: the engine is read, and for how long others are waited for.
    """
    if dist.is_initialized():
        yield
        return
    world = launch.World.from_environment()
    launch.start(world, launch.choose_engine(options.engine, world), options.hang_minutes)
    try:
        yield
    except BaseException as error:
        launch.finish(failed=error)
        raise
    launch.finish()


def _resumed_path(options: RunOptions) -> Path | None:
    """The run to go on with; None for a new one."""
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


def _start(job: Job, resumed: Path | None, report: Report) -> _Start:
    """The model and where to go on: from a checkpoint, from another model, or from nothing."""
    checkpoint = _checkpoint(resumed, job, report) if resumed else None
    torch.manual_seed(job.options.seed)
    model = job.build()
    for line in job.notes(model):
        report.note(line)
    if checkpoint is not None:
        state = TrainerState.read(checkpoint)
        report.note(f"going on with {checkpoint} after {state.update:,} steps")
        return _Start(model, state, load_training_state(checkpoint))
    job.initialise(model, report)
    return _Start(model, TrainerState(job.data))


def _checkpoint(run: Path, job: Job, report: Report) -> Path | None:
    """The newest checkpoint that is whole; None where the run was ended before its first.

    :raises XLMError: the data or the model are not those of the run.
    """
    if not (run / CONFIG_NAME).is_file():
        raise RunError(f"{run} holds no run: it has no {CONFIG_NAME}")
    found, rejected = latest_good(run / CHECKPOINTS_NAME)
    for damaged, why in rejected:
        report.note(f"passing over the damaged checkpoint {damaged.name}: {why}")
    if found is None:
        report.note(f"{run} has no checkpoint yet: starting from its beginning")
        return None
    job.check_resumed(found, run)
    _check_same_model(found, run, job)
    return found


def _check_same_model(checkpoint: Path, run: Path, job: Job) -> None:
    """Hold a resume to the model and the objectives that the run was started with.

    :raises RunError: something differs; says what.
    """
    written = recorded_description(checkpoint)
    asked = job.description.to_json()
    for part, value in asked.items():
        if written.get(part) != value:
            raise RunError(
                f"the run's {part} are not those asked for now: {written.get(part)} and {value}",
                remedy=f"leave them out, {job.command} --resume {run}, or start a new run from its "
                "weights",
            )


def _new_path(job: Job, engine: Engine) -> Path:
    """Where a new run goes; one choice for all ranks."""
    if job.options.out:
        return Path(job.options.out)
    free = free_run_path(job.stem)
    number = engine.agree(float(free.name.rpartition("-")[2]))
    return free.with_name(f"{job.stem}-{number:.0f}")


@contextmanager
def _held(path: Path, job: Job, plugins: Plugins, rank: int, *, new: bool) -> Iterator[RunFolder]:
    """The run folder, which rank 0 makes and holds."""
    with launch.all_or_none():
        if rank > 0:
            folder = RunFolder(path)
        elif new:
            folder = RunFolder.create(path, job.config(), plugins)
        else:
            folder = RunFolder.reopen(path)
        if folder.writing:
            job.begin()
    try:
        yield folder
    finally:
        folder.close()
