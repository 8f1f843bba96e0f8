"""The learning rate of every update.

A pure function of the update's number and of the run's progress: resuming needs no other state.
"""

from __future__ import annotations

import math

from xlm_plugins.config.training import DEFAULT_WARMUP, WARMUP_SHARE, OptimizerOptions, RunOptions

WARMUP_START = 1e-7
"""The rate of the first update of the warm-up."""

COSINE_FLOOR = 1e-9
"""Where a cosine period ends."""


class LearningRate:
    """The schedule that the run's options select.

    :param options: peak, schedule, warm-up and cosine periods.
    :param warmup_start: the rate of the first update of the warm-up.
    """

    def __init__(self, options: OptimizerOptions, warmup_start: float = WARMUP_START) -> None:
        self.options = options
        self.warmup_start = warmup_start
        # Unset only where the clock ends the run: nobody knows how many steps that will be.
        self._by_clock = options.warmup is None
        self.warmup = DEFAULT_WARMUP if options.warmup is None else options.warmup
        self._decay = {
            "constant": self._constant,
            "cosine": self._cosine,
            "inverse_sqrt": self._inverse_sqrt,
            "linear": self._linear,
        }[options.schedule]

    def at(self, update: int, progress: float) -> float:
        """The rate of an update.

        :param update: its number, from 0.
        :param progress: share of the run that is done before it, in [0, 1].
        """
        progress = min(max(progress, 0.0), 1.0)
        decayed = self._decay(update, progress)
        if update >= self.warmup or (self._by_clock and progress >= WARMUP_SHARE):
            return decayed
        rise = self.options.lr - self.warmup_start
        risen = rise / self.warmup * update
        if self._by_clock:
            risen = max(risen, rise * progress / WARMUP_SHARE)
        return min(self.warmup_start + risen, decayed)

    def _constant(self, update: int, progress: float) -> float:
        return self.options.lr

    def _linear(self, update: int, progress: float) -> float:
        return self.options.lr * (1.0 - progress)

    def _inverse_sqrt(self, update: int, progress: float) -> float:
        """``lr * sqrt(warmup / n)`` (Attention Is All You Need, equation 3, peaking at lr)."""
        warmup = max(self.warmup, 1)
        return self.options.lr * math.sqrt(warmup / max(update, warmup))

    def _cosine(self, update: int, progress: float) -> float:
        """Warm restarts (SGDR, equation 5); without a period, one half-wave over the whole run."""
        options = self.options
        if options.cosine_period == 0:
            return _half_wave(options.lr, progress)
        into, period = float(max(update - self.warmup, 0)), float(options.cosine_period)
        peak = options.lr
        while into >= period:
            into -= period
            period = max(period * options.cosine_multiplier, 1.0)
            peak *= options.cosine_shrink
        return _half_wave(peak, into / period)


def _half_wave(peak: float, share: float) -> float:
    return COSINE_FLOOR + 0.5 * (peak - COSINE_FLOOR) * (1.0 + math.cos(math.pi * share))


def schedule_notes(options: RunOptions, optimizer: OptimizerOptions) -> list[str]:
    """What ends a run, and how its learning rate goes: what a user checks before it starts."""
    warmup = optimizer.for_run(options).warmup
    ends = [f"{options.steps:,} steps"] if options.steps is not None else []
    ends += [f"{options.minutes:g} minutes"] if options.minutes is not None else []
    rise = f"a warm-up of {warmup:,} steps" if warmup else "no warm-up"
    if warmup is None:
        rise = f"a warm-up of {WARMUP_SHARE:.0%} of the time, {DEFAULT_WARMUP} steps at most"
    notes = [
        f"length: {' or '.join(ends)}{', whichever comes first' * (len(ends) > 1)}; learning rate "
        f"{optimizer.lr:g}, {optimizer.schedule}, with {rise}"
    ]
    if (warmup or 0) >= options.most_steps:
        notes.append(
            f"warning: --warmup {warmup} is no shorter than the run of {options.steps:,} steps, so "
            f"the learning rate never reaches --lr {optimizer.lr:g}; left out, --warmup is a tenth "
            "of --steps, and 200 at most"
        )
    return notes


def ended_early(update: int, optimizer: OptimizerOptions) -> list[str]:
    """What a user should know if the clock ended a run after so many updates."""
    if (warmup := optimizer.warmup) is None or update >= warmup:
        return []
    return [
        f"warning: the minutes were over after {update:,} steps, within the warm-up of {warmup:,}: "
        f"the learning rate never reached {optimizer.lr:g}; give more --minutes or a smaller "
        "--warmup"
    ]
