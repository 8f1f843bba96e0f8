"""`xlm` imports this module at every start, so keep it light: no torch, no numpy."""

from __future__ import annotations

from dataclasses import dataclass

import click  # region command
from xlm_plugins import Component, hookimpl, option

# region objective


@dataclass(frozen=True)
class ExampleObjectiveOptions:
    """Each field is a flag, a TOML key, a check and a line of `--help`."""

    share: float = option(0.5, "share of each sentence that is hidden", above=0.0, maximum=1.0)


@hookimpl
def xlm_objectives() -> list[Component]:
    return [
        Component(
            "example-objective",  # what users type: --objective example-objective
            "xlm_example.objective:ExampleObjective",  # imported once it is selected
            ExampleObjectiveOptions,
            "predict the end of a sentence from its beginning",
        )
    ]


# endregion
# region layer


@dataclass(frozen=True)
class ExampleLayerOptions:
    """Each field is a flag, a TOML key, a check and a line of `--help`."""

    width: int = option(64, "width between the two projections", minimum=1)


@hookimpl
def xlm_layers() -> list[Component]:
    return [
        Component(
            "example-layer",  # what users type: --layer example-layer
            "xlm_example.layer:ExampleLayer",  # imported once it is selected
            ExampleLayerOptions,
            "a bottleneck with SiLU",
        )
    ]


# endregion
# region tokenizer


@dataclass(frozen=True)
class ExampleTokenizerOptions:
    """Each field is a flag, a TOML key, a check and a line of `--help`."""

    lowercase: bool = option(False, "convert text to lower case")


@hookimpl
def xlm_tokenizers() -> list[Component]:
    return [
        Component(
            "example-tokenizer",  # what users type: --tokenizer example-tokenizer
            "xlm_example.tokenizer:ExampleTokenizer",  # imported once it is selected
            ExampleTokenizerOptions,
            "single characters, the most frequent ones",
        )
    ]


# endregion
# region task


@dataclass(frozen=True)
class ExampleTaskOptions:
    """Each field is a flag, a TOML key, a check and a line of `--help`."""

    data: str = option("", "folder with train.en.tsv, valid.en.tsv, test.fr.tsv and so on")


@hookimpl
def xlm_tasks() -> list[Component]:
    return [
        Component(
            "example-task",  # what users type: xlm finetune example-task
            "xlm_example.task:ExampleTask",  # imported once it is selected
            ExampleTaskOptions,
            "labelled texts in files with a column for each",
        )
    ]


# endregion
# region command


@hookimpl
def xlm_commands(cli: click.Group) -> None:
    from xlm_example.command import parameters

    cli.add_command(parameters)


# endregion
