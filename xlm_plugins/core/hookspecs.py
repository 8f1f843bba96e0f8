"""The hooks: the whole surface between the core and its plugins.

A plugin is a module named by an entry point of the group ``xlm``.  It must not import torch;
its hooks return light descriptions.  Every hook collects: all plugins' answers are joined.
"""

from __future__ import annotations

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
def xlm_commands(cli: click.Group) -> None:
    """Add sub-commands to the command line; called once, before arguments are read."""
