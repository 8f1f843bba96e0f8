"""Back-translation as a plugin: its hook, without torch."""

from __future__ import annotations

from xlm_plugins import Component, GenerationOptions, hookimpl


@hookimpl
def xlm_objectives() -> list[Component]:
    return [
        Component(
            "bt",
            "xlm_bt.objective:BackTranslation",
            GenerationOptions,
            "online back-translation of monolingual text, en-fr-en (arXiv 1804.07755)",
        )
    ]
