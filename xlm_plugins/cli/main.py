"""``xlm``: the group of all commands, each imported only when it is used."""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import click

from xlm_plugins import __version__
from xlm_plugins.cli.lazy import LazyGroup
from xlm_plugins.cli.messages import message_options
from xlm_plugins.core.errors import OptionError, XLMError, refuse_password
from xlm_plugins.core.messages import LOG, note, note_on, session, warn
from xlm_plugins.core.plugins import Plugins

INTERRUPTED = 130
READER_GONE = 141
"""What a shell reports for a program that SIGPIPE ended; Python ignores that signal."""

_CONTEXT = {
    "help_option_names": ["-h", "--help"],
    "max_content_width": 100,
    "auto_envvar_prefix": "XLM",
}

COMMANDS = {
    "train": ("train:train", "Train a model with the objectives and layers that you select."),
    "finetune": ("finetune:finetune", "Fine-tune a model on a downstream task."),
    "evaluate": ("evaluate:evaluate", "Measure a model on a data set."),
    "fill-mask": ("fill_mask:fill_mask", "Predict the masked words of sentences, in any language."),
    "predict": ("predict:predict", "Predict labels with a fine-tuned model, line by line."),
    "translate": ("translate:translate", "Translate text, line by line."),
    "embed": ("embed:embed", "Compute a vector for each line of text."),
    "score": ("score:score", "Compute the log-probability of each line of text."),
    "generate": ("generate:generate", "Continue prompts with a causal language model."),
    "import": ("import_:import_", "Convert a model of another system into a bundle."),
    "export": ("export:export", "Convert a model for other libraries."),
    "prepare": ("prepare:prepare", "Turn text into a data set: tokenizer, shards, manifest."),
    "data": ("data:data", "Show what a data set contains, or verify it."),
    "tokenizer": ("tokenizer:tokenizer", "Train a tokenizer; encode and decode text."),
    "describe": ("describe:describe", "Say what a run, model, data set or other folder is."),
    "runs": ("runs:runs", "List runs and how far they are, or compare two."),
    "plot": ("plot:plot", "Plot the curves of runs."),
    "plugins": (
        "plugins:plugins",
        "List installed plugins, broken ones too; create a new one.",
    ),
    "demo": ("demo:demo", "See it all work in a few minutes."),
    "help": ("help_:help_", "Show the help of a command."),
    "completion": ("completion:completion", "Print a script that completes commands in a shell."),
}
"""Command name -> (module in `xlm_plugins.cli` : attribute, short help)."""


@dataclass
class Session:
    """What every command finds in ``context.obj``."""

    plugins: Plugins
    debug: bool = False


class Program(LazyGroup):
    """All commands; one whose reader is gone, as in `xlm data DIR | head`, ends quietly."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command, and flush its output while a broken pipe can still be caught."""
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except (BrokenPipeError, SystemExit) as error:
            # rich turns it into a SystemExit; any other SystemExit is a plugin's.
            cause = error.__context__ if isinstance(error, SystemExit) else error
            if not isinstance(cause, BrokenPipeError):
                raise
            raise click.exceptions.Exit(READER_GONE) from error
        return result


def build_group(plugins: Plugins) -> LazyGroup:
    """The command line with the commands of plugins; built anew for each call of `main`."""

    @click.group(cls=Program, lazy=COMMANDS, context_settings=_CONTEXT)
    @click.option("--debug", is_flag=True, help="Show tracebacks and broken plugins.")
    @click.option(
        "--strict-plugins",
        is_flag=True,
        help="Exit with an error if plugins are broken or in conflict: for CI.",
    )
    # Some launchers put --local_rank before the command; the variable LOCAL_RANK says the same.
    @click.option("--local_rank", "--local-rank", hidden=True, expose_value=False)
    @click.version_option(__version__, prog_name="xlm", allow_from_autoenv=False)
    @click.pass_context
    def xlm(context: click.Context, debug: bool, strict_plugins: bool) -> None:
        """Cross-lingual language models from plugins.

        Start with `xlm demo`, or with `xlm train --objective tlm --layer pkm`.

        --verbose, --quiet and --log-file may also stand after the command's name.
        """
        context.obj.debug = debug
        if strict_plugins:
            plugins.refuse_faults()
        if debug:
            for text in plugins.faults():
                warn(f"note: {text}")

    assert isinstance(xlm, Program)
    xlm.params += message_options(hidden=False)
    for name, command in plugins.commands(taken=COMMANDS).items():
        xlm.add_command(command, name)
    return xlm


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    :param arguments: the command line without the program's name; ``sys.argv`` if None.
    :returns: the exit status: 2 for an error that the user can correct, 130 when interrupted, 141
        when the reader of the output is gone.
    """
    given = sys.argv[1:] if arguments is None else list(arguments)
    with session():
        try:
            status = _run(given, Session(Plugins.discover()))
        except Exception:
            note_on(None, traceback.format_exc(), logging.ERROR)
            raise
        LOG.debug("exit status %d", status)
    return status


def _run(arguments: list[str], found: Session) -> int:
    """Run one command, and say what the user can correct."""
    try:
        for argument in arguments:
            refuse_password(argument)
        group = build_group(found.plugins)
        result: Any = group.main(arguments, prog_name="xlm", standalone_mode=False, obj=found)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return error.exit_code
    except click.ClickException as error:
        return _fail(_as_ours(error), error.exit_code)
    except click.Abort:
        note("interrupted", logging.ERROR)
        return INTERRUPTED
    except (XLMError, OSError) as error:
        if found.debug:
            traceback.print_exc()
        note_on(None, traceback.format_exc(), logging.DEBUG)
        return _fail(error, getattr(error, "exit_status", XLMError.exit_status))
    return result if type(result) is int else 0


def _fail(error: Exception, status: int) -> int:
    note(f"error: {str(error).rstrip()}".replace("\n", "\n  "), logging.ERROR)
    return status


def _as_ours(error: click.ClickException) -> XLMError:
    """An error of click's, said as all others are."""
    message, context = error.format_message(), getattr(error, "ctx", None)
    if isinstance(error, click.NoSuchOption) and error.possibilities:
        near = " or ".join(error.possibilities)
        return OptionError(f"no such option {error.option_name}", remedy=f"did you mean {near}?")
    problem = message[:1].lower() + message[1:].rstrip(".")
    return OptionError(problem, remedy=f"{context.command_path} --help" if context else "")
