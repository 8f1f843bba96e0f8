"""XNLI as a plugin: its options and its hook, without torch."""

from __future__ import annotations

from dataclasses import dataclass

from xlm_plugins import Component, hookimpl, option


@dataclass(frozen=True)
class XnliOptions:
    """The folder of the files, and the languages to train and test in."""

    data: str | None = option(
        None, "folder with XNLI-1.0 and XNLI-MT-1.0 as distributed, at any depth", path=True
    )
    languages: tuple[str, ...] = option(
        (), "test in these; by default in all languages of the files", comma=True
    )
    train_languages: tuple[str, ...] = option(
        ("en",), "train on the translations into these; `all` for every one there is", comma=True
    )


@hookimpl
def xlm_tasks() -> list[Component]:
    return [
        Component(
            "xnli",
            "xlm_xnli.task:Xnli",
            XnliOptions,
            "does a sentence follow from another? trained in English, tested in 15 languages",
        )
    ]
