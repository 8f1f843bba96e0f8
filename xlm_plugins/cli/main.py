"""``xlm``: the group of commands.  A command's module is imported when the command is used."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import click

from xlm_plugins import __version__
from xlm_plugins.cli.lazy import LazyGroup
from xlm_plugins.core.errors import XLMError
from xlm_plugins.core.plugins import Plugins

INTERRUPTED = 130
READER_GONE = 141
"""As a shell tells of a program that SIGPIPE ended, which ours would be, were it not Python."""

_CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}

COMMANDS = {
    "train": ("train:train", "Train a model with the objectives and layers that you select."),
    "finetune": ("finetune:finetune", "Fine-tune a model on a downstream task."),
    "evaluate": ("evaluate:evaluate", "Measure a model on a data set."),
    "fill-mask": ("fill_mask:fill_mask", "Fill the masks in sentences, in any language."),
    "predict": ("predict:predict", "Judge text with a fine-tuned model, line by line."),
    "translate": ("translate:translate", "Translate text, line by line."),
    "embed": ("embed:embed", "Turn each line of a text into a vector."),
    "score": ("score:score", "Tell how probable each line of a text is."),
    "generate": ("generate:generate", "Go on with text, by a causal language model."),
    "import": ("import_:import_", "Turn a model of another system into a bundle."),
    "export": ("export:export", "Write a model in a form that other libraries read."),
    "prepare": ("prepare:prepare", "Turn text into a data set: tokenizer, shards, manifest."),
    "data": ("data:data", "Show what is inside a data set."),
    "tokenizer": ("tokenizer:tokenizer", "Train a tokenizer; encode and decode text."),
    "plot": ("plot:plot", "Draw the curves of runs."),
    "plugins": (
        "plugins:plugins",
        "List the installed plugins, the broken ones too; write a new one.",
    ),
    "demo": ("demo:demo", "See the whole thing work, in a few minutes."),
}
"""Command name -> (module in `xlm_plugins.cli` : attribute, short help)."""


@dataclass
class Session:
    """What every command finds in ``context.obj``."""

    plugins: Plugins
    debug: bool = False


class Program(LazyGroup):
    """All commands; in `xlm data DIR | head`, the end of the reader is the end of the writer."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command, and write what it has buffered, at which Python's end would complain."""
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except (BrokenPipeError, SystemExit) as error:
            # rich makes a SystemExit of it; any other one is a plugin's own.
            cause = error.__context__ if isinstance(error, SystemExit) else error
            if not isinstance(cause, BrokenPipeError):
                raise
            raise click.exceptions.Exit(READER_GONE) from error
        return result


def build_group(plugins: Plugins) -> LazyGroup:
    """The command line, plugins' commands included; made anew for each call of `main`."""

    @click.group(cls=Program, lazy=COMMANDS, context_settings=_CONTEXT)
    @click.option("--debug", is_flag=True, help="Show tracebacks, and plugins that are broken.")
    @click.option(
        "--strict-plugins",
        is_flag=True,
        help="Refuse to work with broken or conflicting plugins: for CI.",
    )
    # A launcher of many processes puts --local_rank before the command; LOCAL_RANK says it too.
    @click.option("--local_rank", "--local-rank", hidden=True, expose_value=False)
    @click.version_option(__version__, prog_name="xlm")
    @click.pass_context
    def xlm(context: click.Context, debug: bool, strict_plugins: bool) -> None:
        """Cross-lingual language models from plugins.

        Start with `xlm demo`, or with `xlm train --objective tlm --layer pkm`.
        """
        context.obj.debug = debug
        if strict_plugins:
            plugins.refuse_faults()
        if debug:
            for text in plugins.faults():
                click.echo(f"note: {text}", err=True)

    assert isinstance(xlm, Program)
    for name, command in plugins.commands(taken=COMMANDS).items():
        xlm.add_command(command, name)
    return xlm


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    :param arguments: the command line without the program's name; ``sys.argv`` if None.
    :returns: the exit status: 2 for what the user can mend, 130 when interrupted, 141 when nobody
        reads the output any more.
    """
    session = Session(Plugins.discover())
    try:
        group = build_group(session.plugins)
        result: Any = group.main(
            None if arguments is None else list(arguments),
            prog_name="xlm",
            standalone_mode=False,
            obj=session,
        )
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.Abort:
        click.echo("interrupted", err=True)
        return INTERRUPTED
    except (XLMError, OSError) as error:
        if session.debug:
            traceback.print_exc()
        click.echo(f"error: {_indented(error)}", err=True)
        return getattr(error, "exit_status", XLMError.exit_status)
    return result if type(result) is int else 0


def _indented(error: Exception) -> str:
    return str(error).rstrip().replace("\n", "\n  ")
