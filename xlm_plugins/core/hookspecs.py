"""The hooks: the whole surface between the core and its plugins.

A plugin is a module named by an entry point of the group ``xlm``.  It must not import torch;
its hooks return descriptions that are cheap to make.  The results of all plugins are combined.
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
    """Add subcommands to the command line; called once, before arguments are parsed."""


@hookspec
def xlm_step_end(run: Path, step: int, metrics: Mapping[str, float]) -> None:
    """Observe a run after each update.

    Called on rank 0, only between updates; also before the first update and after the last, with
    what was measured then.  No collectives are allowed: the other ranks are waiting.

    :param run: the run folder.
    :param step: number of updates done.
    :param metrics: what was measured at this step, by the names of metrics.jsonl and
        ``train_en_mlm_loss``; empty after most updates.
    """


@hookspec
def xlm_checkpoint_saved(run: Path, path: Path) -> None:
    """A model has been saved; called on rank 0, without collectives.

    :param run: the run folder.
    :param path: a complete checkpoint, ``checkpoints/step-N``, or best model, ``best/METRIC``.
    """
