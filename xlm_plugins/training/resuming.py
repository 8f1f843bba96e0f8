"""What a resumed run has left to do, and what it does otherwise than before."""

from __future__ import annotations

import tomllib

from xlm_plugins.config.changes import changes, described
from xlm_plugins.config.training import RunOptions
from xlm_plugins.core.plugins import Plugins
from xlm_plugins.runs.folder import RunFolder
from xlm_plugins.runs.history import Changes, in_force, read_history
from xlm_plugins.training.best_models import Validation
from xlm_plugins.training.job import Job
from xlm_plugins.training.trainer import TrainerState


def finished(options: RunOptions, state: TrainerState) -> str:
    """Why a run has nothing left to do, and what would let it go on; empty if it has."""
    if state.evaluated != state.update:
        return ""
    if state.update >= options.most_steps:
        return f"all {state.update:,} steps are done; to train on, give more --steps"
    if options.minutes is not None and state.elapsed >= 60 * options.minutes:
        return f"its {options.minutes:g} minutes are over; to train on, give more --minutes"
    validation = Validation((), options.stopping_criterion)
    validation.restore(state.validation)
    if validation.exhausted:
        return f"--stopping-criterion {options.stopping_criterion} is met"
    return ""


def record_resumption(folder: RunFolder, job: Job, update: int, plugins: Plugins) -> list[str]:
    """Let the folder say what this start trains with.

    :param update: updates made.
    :returns: what the user should know: the settings that changed.
    :raises RunError: the folder's history or settings are damaged.
    :raises OptionError: its settings are none that this version knows.
    """
    config = job.config()
    # Compared with what trained up to here: a later start's changes end with what it trained.
    before = in_force(read_history(folder.path), update)
    changed: Changes = {}
    if before:
        completed = tomllib.loads(job.completed(before[-1].settings))
        changed = changes(completed, tomllib.loads(config))
    folder.start_again(update, config, changed, plugins, job.settings_from)
    if not changed:
        return []
    lines = [f"{described(changed)} from step {update:,} on; {folder.path} keeps a history"]
    by_progress = job.optimizer.schedule == "linear" or (
        job.optimizer.schedule == "cosine" and not job.optimizer.cosine_period
    )
    if by_progress and any(name.endswith((".steps", ".epochs", ".minutes")) for name in changed):
        lines.append(
            f"the {job.optimizer.schedule} schedule spans the whole run, now longer or shorter: "
            f"from step {update:,} on, the learning rate follows the new length: maybe with a jump"
        )
    return lines
