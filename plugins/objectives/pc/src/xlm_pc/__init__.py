"""Parallel classification as a plugin: its hook, without torch."""

from __future__ import annotations

from xlm_plugins import Component, hookimpl


@hookimpl
def xlm_objectives() -> list[Component]:
    return [
        Component(
            "pc",
            "xlm_pc.objective:ParallelClassification",
            summary="parallel classification: are two sentences translations of each other?",
        )
    ]
