"""What the commands that apply a model to raw text share: flags, the model, lines in and out."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import click

from xlm_plugins.cli.options import Section, SectionedCommand, errors_option, given
from xlm_plugins.cli.values import languages
from xlm_plugins.config.model import GenerationOptions
from xlm_plugins.core.errors import DataError
from xlm_plugins.core.messages import is_quiet, warn
from xlm_plugins.core.options import build
from xlm_plugins.core.text_files import decode_line

if TYPE_CHECKING:
    from xlm_plugins.contracts.ragged import Ragged
    from xlm_plugins.inference.common import TextReader
    from xlm_plugins.inference.generate import Continuation
    from xlm_plugins.inference.translate import Translation
    from xlm_plugins.model.bundle import Bundle

LINES_AT_ONCE = 4000

_OPTIONS = {
    "language": click.option(
        "--language",
        shell_complete=languages,
        help="Language of the text; required if the model knows several.",
    ),
    "strict": click.option(
        "--strict",
        is_flag=True,
        help="Refuse lines that exceed the model's positions; else cut them.",
    ),
    "batch_tokens": click.option(
        "--batch-tokens", type=click.IntRange(min=1), help="Tokens per batch; bounds memory."
    ),
    "threads": click.option(
        "--threads", type=click.IntRange(min=1), help="CPU threads.  [default the machine's]"
    ),
    "errors": errors_option,
}

scores_option = click.option(
    "--scores", is_flag=True, help="Put its score and a tab before each line."
)
seed_option = click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=1,
    show_default=True,
    help="Random seed for --sample.",
)

CommandT = TypeVar("CommandT", bound=Callable[..., Any])


def pipe_options(*names: str) -> Callable[[CommandT], CommandT]:
    """Give a command the flags that those on raw text share: --threads, --errors, and the named.

    :param names: of ``language``, ``strict`` and ``batch_tokens``.
    """

    def decorate(command: CommandT) -> CommandT:
        for name in reversed((*names, "threads", "errors")):
            command = _OPTIONS[name](command)
        return command

    return decorate


def generation_command() -> Callable[[Callable[..., Any]], click.Command]:
    """A command with the flags of `GenerationOptions`, which `generation_options` reads."""
    core = (Section("generation", "Generation", GenerationOptions),)
    return click.command(cls=SectionedCommand, core=core)


def generation_options(context: click.Context) -> GenerationOptions:
    """The options of a `generation_command`, as given on the command line.

    :raises OptionError: a value out of range, or mutually exclusive options.
    """
    return build(GenerationOptions, given(context).get("generation", {}), "generation")


def open_model(context: click.Context, run: str, threads: int | None) -> Bundle:
    """Load the model of a run onto the GPU, or the CPU if there is none."""
    import torch

    from xlm_plugins.model.bundle import Bundle
    from xlm_plugins.model.nn.cpu_tuning import tune_host
    from xlm_plugins.runs.find import find_bundle

    tune_host(threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return Bundle.load(find_bundle(run), context.obj.plugins, device)


def line_chunks(errors: str, texts: Sequence[str] = ()) -> Iterator[list[str]]:
    """The texts given as arguments in one chunk, or else standard input, chunk by chunk."""
    return iter([list(texts)]) if texts else input_lines(LINES_AT_ONCE, errors)


def encoded_chunks(
    reader: TextReader, errors: str, texts: Sequence[str] = (), *, strict: bool
) -> Iterator[tuple[list[str], Ragged]]:
    """Chunks of lines with their tokens, uncut; reports at the end how many lines will be cut.

    :param texts: as for `line_chunks`.
    :raises DataError: a line is longer than the model reads, and ``strict`` refuses it.
    """
    n_read = n_cut = 0
    for lines in line_chunks(errors, texts):
        sentences = reader.encode(lines)
        n_cut += len(too_long := (sentences.lengths > reader.longest).nonzero()[0])
        if strict and len(too_long):
            number, n_tokens = n_read + int(too_long[0]) + 1, sentences.lengths[too_long[0]]
            raise DataError(
                f"{'prompt' if texts else 'standard input, line'} {number}: {n_tokens:,} tokens",
                expected=f"at most {reader.longest}, for which the model has positions",
                remedy="split it, or leave --strict out to have it cut",
            )
        n_read += len(lines)
        yield lines, sentences
    if n_cut:
        cut = f"{n_cut:,} of {n_read:,} lines were cut to {reader.longest} tokens"
        warn(f"{cut}, all that the model reads; --strict refuses such lines")


def write_lines(lines: Iterable[str]) -> None:
    """Write lines as UTF-8 bytes, since the locale's encoding may lack some letters."""
    click.echo("".join(f"{line}\n" for line in lines).encode("utf-8"), nl=False)


def write_generated(
    found: Iterable[Sequence[Translation | Continuation]], *, with_scores: bool
) -> None:
    """Write every generated text of every input line, each on a line of its own."""
    every = itertools.chain.from_iterable(found)
    write_lines(f"{one.score:.4f}\t{one.text}" if with_scores else one.text for one in every)


@contextmanager
def progress(done: str) -> Iterator[Callable[[int], None]]:
    """Count lines on standard error, if it is a terminal and the text goes elsewhere.

    :param done: what is being done to the lines: ``translated``.
    """
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    if is_quiet() or not console.is_terminal or sys.stdin.isatty() or sys.stdout.isatty():
        yield lambda n_lines: None
        return
    columns = (SpinnerColumn(), TextColumn(f"{{task.completed:,}} lines {done}"))
    with Progress(*columns, TimeElapsedColumn(), console=console, redirect_stdout=False) as shown:
        task = shown.add_task("", total=None)
        yield lambda n_lines: shown.advance(task, n_lines)


def input_lines(n_together: int, errors: str = "strict") -> Iterator[list[str]]:
    """The lines of standard input without their ends, in chunks; one by one from a terminal.

    :param errors: ``strict`` refuses bytes that are not UTF-8, ``replace`` puts U+FFFD there.
    :raises DataError: not UTF-8; nothing of that chunk has been yielded then.
    """
    numbered = enumerate(sys.stdin.buffer, 1)
    lines = (decode_line(line, number, "standard input", errors) for number, line in numbered)
    while chunk := list(itertools.islice(lines, 1 if sys.stdin.isatty() else n_together)):
        yield chunk
