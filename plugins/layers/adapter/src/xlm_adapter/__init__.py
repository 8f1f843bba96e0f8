"""Bottleneck adapters as a plugin: its options and its hooks, without torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from xlm_plugins import Component, hookimpl, option

if TYPE_CHECKING:
    import click


@dataclass(frozen=True)
class AdapterOptions:
    """A bottleneck after a layer (arXiv 1902.00751)."""

    width: int = option(64, "width of the bottleneck", minimum=1)
    activation: str = option("gelu", "activation between down and up", choices=("gelu", "relu"))


@hookimpl
def xlm_layers() -> list[Component]:
    return [
        Component(
            "adapter",
            "xlm_adapter.layer:Adapter",
            AdapterOptions,
            "bottleneck adapters: only they and the head are trained (arXiv 1902.00751)",
        )
    ]


@hookimpl
def xlm_commands(cli: click.Group) -> None:
    from xlm_adapter.commands import adapter

    cli.add_command(adapter)
