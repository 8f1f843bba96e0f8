"""Machine translation as a plugin: its hook, without torch."""

from __future__ import annotations

from xlm_plugins import Component, hookimpl


@hookimpl
def xlm_objectives() -> list[Component]:
    return [
        Component(
            "mt",
            "xlm_mt.objective:MachineTranslation",
            summary="supervised translation of pairs, encoder to decoder (arXiv 1706.03762)",
        )
    ]
