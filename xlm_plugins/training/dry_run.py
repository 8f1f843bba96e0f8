"""What ``--dry-run`` prints about the updates that a run would make."""

from __future__ import annotations

from collections.abc import Sequence

from xlm_plugins.config.training import OptimizerOptions, RunOptions
from xlm_plugins.training.job import Job
from xlm_plugins.training.optim.learning_rate import LearningRate

_SHOWN_UPDATES = 10
_WIDTH, _HEIGHT = 60, 8


def planned(job: Job, update: int) -> list[str]:
    """The learning rate as a plot, how often each text is read, the next updates, and how often
    the run evaluates and saves.

    :param update: updates made: those of a resumed run.
    """
    options = job.options
    shown = range(update, min(update + _SHOWN_UPDATES, options.most_steps))
    return [
        *_learning_rates(options, job.optimizer),
        *([] if options.steps is None else job.passes(options.steps)),
        f"the next steps, by seed {options.seed}:",
        *(f"  {index + 1:>7,}  {job.describe_update(index)}" for index in shown),
        f"evaluations: {_times(options.evaluate_every)}",
        f"checkpoints: {_times(options.save_every)}",
    ]


def _learning_rates(options: RunOptions, optimizer: OptimizerOptions) -> list[str]:
    if options.steps is None:
        return ["learning rate: no plot, since the clock ends the run"]
    schedule, steps = LearningRate(optimizer), options.steps
    sampled = [column * max(steps - 1, 0) // (_WIDTH - 1) for column in range(_WIDTH)]
    rates = [schedule.at(index, index / max(steps, 1)) for index in sampled]
    return [f"learning rate over {steps:,} steps, up to {max(rates):g}:", *plot(rates)]


def plot(values: Sequence[float], height: int = _HEIGHT) -> list[str]:
    """Columns of characters, the largest value as high as the plot; each line is a row."""
    top = max(values) or 1.0
    heights = [round(height * value / top) for value in values]
    rows = range(height, 0, -1)
    return ["  |" + "".join("*" if h >= row else " " for h in heights).rstrip() for row in rows]


def _times(every: int) -> str:
    """When something happens that also happens at the end."""
    return f"every {every:,} steps, and at the end" if every else "at the end"
