"""GLUE as a plugin: its options and its hook, without torch."""

from __future__ import annotations

from dataclasses import dataclass

from xlm_glue.benchmark import TASKS
from xlm_plugins import Component, hookimpl, option


@dataclass(frozen=True)
class GlueOptions:
    """The task of the benchmark, and the folder of its files."""

    task: str | None = option(None, "which of the benchmark's tasks", choices=tuple(TASKS))
    data: str | None = option(None, "folder with CoLA, SST-2, MRPC ... as distributed", path=True)


@hookimpl
def xlm_tasks() -> list[Component]:
    return [
        Component(
            "glue",
            "xlm_glue.task:Glue",
            GlueOptions,
            "the benchmark of English understanding: eleven tasks, with files to submit",
        )
    ]
