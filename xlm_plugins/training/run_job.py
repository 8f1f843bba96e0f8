"""Running a job from start to finish, whether the run is new or resumed."""

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
from xlm_plugins.core.files import read_json
from xlm_plugins.core.plugins import Plugins
from xlm_plugins.model.model import Model
from xlm_plugins.model.nn.cpu_tuning import tune_host
from xlm_plugins.runs.folder import RunFolder, check_free, free_run_path
from xlm_plugins.runs.layout import CHECKPOINTS_NAME, CONFIG_NAME, CURVES_NAME, MODEL_NAME
from xlm_plugins.runs.plot import plot_runs
from xlm_plugins.runs.whole_folders import latest_good
from xlm_plugins.training.distributed import agreement, process_group, slurm
from xlm_plugins.training.distributed.failures import explained
from xlm_plugins.training.distributed.process_group import World
from xlm_plugins.training.distributed.signals import REQUEUED, StopRequest
from xlm_plugins.training.distributed.watchdog import Watchdog
from xlm_plugins.training.dry_run import planned
from xlm_plugins.training.engines.create import create_engine
from xlm_plugins.training.engines.engine import Engine, choose_precision
from xlm_plugins.training.engines.training_state import TrainingState, load_training_state
from xlm_plugins.training.job import Job, Outcome, n_parameters
from xlm_plugins.training.loss_check import check_losses
from xlm_plugins.training.memory_estimate import MemoryEstimate
from xlm_plugins.training.optim.learning_rate import ended_early, schedule_notes
from xlm_plugins.training.optim.parameter_groups import selected_parameters
from xlm_plugins.training.preflight import Rehearsal, rehearse
from xlm_plugins.training.progress import Report
from xlm_plugins.training.resuming import finished, record_resumption
from xlm_plugins.training.run_record import RunRecord
from xlm_plugins.training.trainer import Trainer, TrainerState

_COMPARED_UPDATES = 100
"""How many of the next updates are compared between ranks before training."""


@dataclass(frozen=True)
class _Start:
    """Where a run starts.

    :param resumed: the folder of the run that is resumed; None for a new run.
    :param training: weights and moments of a checkpoint, if there is one.
    """

    job: Job
    resumed: Path | None
    model: Model
    state: TrainerState
    training: TrainingState | None = None


def run_job(options: RunOptions, decide: Callable[[Report], Job], plugins: Plugins) -> Outcome:
    """Train until the end, or until a reason to stop earlier.

    :param options: those of the job.
    :param decide: opens the data and decides everything, on every rank alike.
    :raises XLMError: something does not fit; nothing has been written then.
    """
    world = World.from_environment()
    tune_host(options.threads)
    report = Report(Console(stderr=True, quiet=world.rank > 0))
    watchdog = Watchdog(world, options.hang_minutes)
    with watchdog, joined(options), StopRequest() as stop, explained(watchdog, world):
        with process_group.all_or_none():
            start = _start(decide(report), report)
        job, state = start.job, start.state
        if start.resumed and (why := finished(job.options, state)):
            _leave_as_it_is(start.resumed, why, world, report)
            return Outcome("done", start.resumed, state.update)
        _compare_ranks(job, state.update, plugins, watchdog)
        rehearsals = job.rehearsals(world.world_size * options.accumulation)
        report.note(needs := _memory_estimate(job, start.model, world, rehearsals).line())
        with explained(watchdog, world, needs):
            engine = _engine(start, world, stop, report, watchdog)
            plan = job.training_plan(engine)
            if how_it_fits := rehearse(engine, rehearsals, watchdog):
                report.note(how_it_fits)
            check_losses(engine, rehearsals, watchdog)
        path = start.resumed or _new_path(job, engine)
        stop.can_save = True
        with _run_folder(path, start, plugins, report) as folder:
            with explained(watchdog, world, needs), report.shown():
                record = RunRecord(folder, plugins, report)
                reason = Trainer(
                    job.options, job.optimizer, plan, engine, state, record, stop, watchdog
                ).run()
                if reason == "minutes":
                    for line in ended_early(state.update, job.optimizer):
                        report.warn(line)
            if folder.writing:
                watchdog.report("plotting the curves")
                _plot(path, report)
        if reason == REQUEUED and world.rank == 0:
            # Before other ranks are released: launchers end all processes once one has ended.
            report.note(slurm.requeue(os.environ))
    return Outcome(reason, path, state.update)


def dry_run_job(options: RunOptions, decide: Callable[[Report], Job]) -> None:
    """Decide and check what `run_job` would, and print it; nothing is trained or written.

    The trial of the largest batch is left out: it takes as long as an update.

    :param options: those of the job.
    :param decide: as for `run_job`.
    :raises XLMError: something does not fit.
    """
    world = World.from_environment()
    tune_host(options.threads)
    report = Report(Console(stderr=True, quiet=world.rank > 0))
    with Watchdog(world, options.hang_minutes) as watchdog, joined(options), StopRequest() as stop:
        with process_group.all_or_none():
            start = _start(decide(report), report)
            if options.out and not start.resumed:
                check_free(Path(options.out))
        job, state = start.job, start.state
        if start.resumed and (why := finished(job.options, state)):
            report.note(f"{start.resumed} is finished, it would not be changed: {why}")
            return
        rehearsals = job.rehearsals(world.world_size * options.accumulation)
        report.note(_memory_estimate(job, start.model, world, rehearsals).line())
        job.training_plan(_engine(start, world, stop, report, watchdog))
        for line in planned(job, state.update):
            report.note(line)
        report.note("dry run: nothing was trained or written")


@contextmanager
def joined(options: RunOptions) -> Iterator[None]:
    """While entered, this process belongs to the run's process group.

    Consecutive runs of one process join once: to join again on the same port may fail.

    :param options: the engine and the time limit for joining are read.
    """
    if dist.is_initialized():
        yield
        return
    world = World.from_environment()
    engine = process_group.choose_engine(options.engine, world)
    process_group.start(world, engine, options.hang_minutes)
    try:
        yield
    except BaseException as error:
        process_group.finish(failed=error)
        raise
    process_group.finish()


def _start(job: Job, report: Report) -> _Start:
    """Build the model, and load what it starts from: a checkpoint, another model, or nothing."""
    resumed = _resumed_path(job.options)
    checkpoint = _checkpoint(resumed, job, report) if resumed else None
    torch.manual_seed(job.options.seed)
    model = job.build()
    schedule, *warnings = schedule_notes(job.options, job.optimizer)
    for line in (*job.notes(model), schedule):
        report.note(line)
    for line in warnings:
        report.warn(line)
    if checkpoint is not None:
        state = TrainerState.read(checkpoint)
        report.note(f"resuming from {checkpoint} after {state.update:,} steps")
        return _Start(job, resumed, model, state, load_training_state(checkpoint))
    job.initialise(model, report)
    return _Start(job, resumed, model, TrainerState(job.data))


def _resumed_path(options: RunOptions) -> Path | None:
    """The run to resume; None for a new one."""
    if options.resume is None:
        return None
    if options.resume != "auto":
        return Path(options.resume)
    if options.out is None:
        raise OptionError(
            "--resume auto does not say which run",
            expected="--out RUN with it: that run is resumed if it exists, and started if not",
        )
    return Path(options.out) if (Path(options.out) / CONFIG_NAME).is_file() else None


def _checkpoint(run: Path, job: Job, report: Report) -> Path | None:
    """The newest intact checkpoint; None if the run ended before its first.

    :raises XLMError: the data or the model are not those of the run.
    """
    if not (run / CONFIG_NAME).is_file():
        raise RunError(f"{run} holds no run: it has no {CONFIG_NAME}")
    found, rejected = latest_good(run / CHECKPOINTS_NAME)
    for damaged, why in rejected:
        report.warn(f"skipping the damaged checkpoint {damaged.name}: {why}")
    if found is None:
        report.note(f"{run} has no checkpoint yet: starting from the beginning")
        return None
    job.check_resumed(found, run)
    _check_same_model(found, run, job)
    return found


def _check_same_model(checkpoint: Path, run: Path, job: Job) -> None:
    """Refuse to resume with another model or other objectives than the run was started with.

    :raises RunError: says what differs.
    """
    written = read_json(checkpoint / MODEL_NAME)
    requested = job.description.to_json()
    for part, value in requested.items():
        if written.get(part) != value:
            raise RunError(
                f"the run's {part} are not those requested now: {written.get(part)} and {value}",
                remedy=f"leave them out, {job.command} --resume {run}, or start a new run from its "
                "weights",
            )


def _compare_ranks(job: Job, update: int, plugins: Plugins, watchdog: Watchdog) -> None:
    """Make sure that all ranks are about to do the same.

    :param update: updates made.
    :raises RunError: some ranks differ; says which, and in what.
    """
    watchdog.report("comparing the ranks")
    compared = range(update, min(update + _COMPARED_UPDATES, job.options.most_steps))
    agreement.check(
        agreement.facts(
            job.options,
            job.optimizer,
            job.description.to_json(),
            job.data,
            update,
            [job.describe_update(index) for index in compared],
            plugins,
        )
    )


def _memory_estimate(
    job: Job, model: Model, world: World, rehearsals: list[Rehearsal]
) -> MemoryEstimate:
    """The memory that the run needs on this rank."""
    options = job.options
    trained = selected_parameters(model, options.train_only)
    is_sharded = process_group.choose_engine(options.engine, world) == "deepspeed"
    return MemoryEstimate.of(
        job.description.options,
        n_parameters(model),
        sum(parameter.numel() for parameter in trained.values()),
        max(rehearsal.batch.n_tokens for rehearsal in rehearsals),
        n_stacks=len(job.description.stacks),
        stage=options.zero_stage if is_sharded else 0,
        world_size=world.world_size,
        half=choose_precision(options.precision, world.device) != "fp32",
    )


def _engine(
    start: _Start, world: World, stop: StopRequest, report: Report, watchdog: Watchdog
) -> Engine:
    watchdog.report("creating the engine")
    total = n_parameters(start.model)  # before ZeRO 3 shards them
    job = start.job
    engine = create_engine(start.model, job.optimizer, job.options, world, start.training, stop)
    watchdog.follow(engine.model)
    if frozen := total - engine.n_trained:
        report.note(f"trained: {engine.n_trained:,} of them; frozen: {frozen:,}")
    return engine


def _new_path(job: Job, engine: Engine) -> Path:
    """The folder of a new run, the same on all ranks."""
    if job.options.out:
        return Path(job.options.out)
    free = free_run_path(job.stem)
    number = engine.max_over_ranks(float(free.name.rpartition("-")[2]))
    return free.with_name(f"{job.stem}-{number:.0f}")


@contextmanager
def _run_folder(path: Path, start: _Start, plugins: Plugins, report: Report) -> Iterator[RunFolder]:
    """While entered, rank 0 holds the run folder; a new one goes if the run fails untrained."""
    with process_group.all_or_none():
        if World.from_environment().rank > 0:
            folder = RunFolder(path)
        elif start.resumed:
            folder = RunFolder.reopen(path)
        else:
            folder = RunFolder.create(path, start.job.config(), plugins, start.job.settings_from)
        folder.metrics.cut(start.state.metrics_position)
        if folder.writing:
            start.job.prepare_folder()
        if folder.writing and start.resumed:
            for line in record_resumption(folder, start.job, start.state.update, plugins):
                report.note(line)
    try:
        yield folder
    except XLMError:
        if not (start.resumed or start.state.update):
            folder.remove()  # nothing in it is worth resuming
        raise
    finally:
        folder.close()


def _leave_as_it_is(run: Path, why: str, world: World, report: Report) -> None:
    """Say that a run is finished; draw its curves if it was killed before it could."""
    report.note(f"{run} is finished, nothing is changed: {why}")
    if world.rank == 0 and not (run / CURVES_NAME).is_file():
        _plot(run, report)


def _plot(run: Path, report: Report) -> None:
    """Draw the curves of a finished run.  A failure is reported and does not fail the run."""
    try:
        plot_runs([run], run / CURVES_NAME)
    except Exception as error:  # a full disk, or anything from matplotlib
        report.warn(f"the curves could not be drawn: {error}; to draw them later: xlm plot {run}")
