"""The hooks: the whole surface between the core and its plugins.

A plugin is a module named by an entry point of the group ``xlm``.  It must not import torch;
its hooks return light descriptions.  Every hook collects: all plugins' answers are joined.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import pluggy

from xlm_plugins.core.registry import Component

if TYPE_CHECKING:
    import click

PROJECT = "xlm"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def xlm_objectives() -> list[Component]:  # type: ignore[empty-body]
    """Objectives: each component's target is an `xlm_plugins.Objective`."""


@hookspec
def xlm_layers() -> list[Component]:  # type: ignore[empty-body]
    """Layers: each component's target is an `xlm_plugins.Layer`."""


@hookspec
def xlm_tokenizers() -> list[Component]:  # type: ignore[empty-body]
    """Tokenizers: each component's target is an `xlm_plugins.Tokenizer`."""


@hookspec
def xlm_tasks() -> list[Component]:  # type: ignore[empty-body]
    """Downstream tasks: each component's target is an `xlm_plugins.Task`."""


@hookspec
def xlm_commands(cli: click.Group) -> None:
    """Add sub-commands to the command line; called once, before arguments are read."""


@hookspec
def xlm_step_end(run: Path, step: int, metrics: Mapping[str, float]) -> None:
    """Look at a run after each update.

    Called on rank 0 between updates, never in one; once more before the first update and
    after the last, with what was measured there.  No collectives in here: other ranks wait.

    :param run: the run folder.
    :param step: updates done.
    :param metrics: what was measured at this step, by the names of metrics.jsonl and
        ``train_en_mlm_loss``; empty after most updates.
    """


@hookspec
def xlm_checkpoint_saved(run: Path, path: Path) -> None:
    """Take note of a model on disk; called on rank 0, without collectives.

    :param run: the run folder.
    :param path: a whole checkpoint, ``checkpoints/step-N``, or a best model, ``best/METRIC``.
    """
