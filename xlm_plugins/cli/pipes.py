"""What commands share that stand in a pipe: a model, lines in lots, and a count of those done."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from xlm_plugins.core.errors import DataError
from xlm_plugins.core.text_files import decode_line

if TYPE_CHECKING:
    from xlm_plugins.contracts.ragged import Ragged
    from xlm_plugins.model.bundle import Bundle

LINES_AT_ONCE = 4000

language_option = click.option(
    "--language", help="Language of the text; needed where the model knows several."
)
strict_option = click.option(
    "--strict", is_flag=True, help="Refuse lines longer than the model's positions, not cut them."
)
threads_option = click.option(
    "--threads", type=click.IntRange(min=1), help="CPU threads.  [default the machine's]"
)
batch_tokens_option = click.option(
    "--batch-tokens", type=click.IntRange(min=1), help="Tokens read together; bounds memory."
)


def open_model(context: click.Context, run: str, threads: int | None) -> Bundle:
    """The model of a run, ready to be used on the fastest device that there is."""
    import torch

    from xlm_plugins.model.bundle import Bundle
    from xlm_plugins.model.nn.cpu_tuning import tune_host
    from xlm_plugins.runs.find import find_bundle

    tune_host(threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return Bundle.load(find_bundle(run), context.obj.plugins, device)


def lots_of_lines(errors: str, given: Sequence[str] = ()) -> Iterator[list[str]]:
    """Texts that were given as arguments, all at once, or else standard input in lots."""
    return iter([list(given)]) if given else input_lines(LINES_AT_ONCE, errors)


def with_tokens(
    lots: Iterable[list[str]],
    encode: Callable[[Sequence[str]], Ragged],
    longest: int,
    *,
    strict: bool,
    name: str = "standard input, line",
) -> Iterator[tuple[list[str], Ragged]]:
    """Lots of lines with their tokens, uncut; says at the end how many lines get cut.

    :param longest: tokens of a line that the model reads.
    :param name: what a line is called, before its number.
    :raises DataError: a line is longer, and ``strict`` refuses it.
    """
    n_read = n_cut = 0
    for texts in lots:
        sentences = encode(texts)
        n_cut += len(too_long := (sentences.lengths > longest).nonzero()[0])
        if strict and len(too_long):
            number, n_tokens = n_read + int(too_long[0]) + 1, sentences.lengths[too_long[0]]
            raise DataError(
                f"{name} {number}: {n_tokens:,} tokens",
                expected=f"at most {longest}, for which the model has positions",
                remedy="split it, or leave --strict out to have it cut",
            )
        n_read += len(texts)
        yield texts, sentences
    if n_cut:
        told = f"{n_cut:,} of {n_read:,} lines were cut to {longest} tokens"
        click.echo(f"{told}, all that the model reads; --strict refuses such lines", err=True)


def write_lines(lines: Iterable[str]) -> None:
    """Write a lot of lines; in bytes, for the locale's encoding may not have every letter."""
    click.echo("".join(f"{line}\n" for line in lines).encode("utf-8"), nl=False)


@contextmanager
def progress(done: str) -> Iterator[Callable[[int], None]]:
    """Count lines on standard error, where it is a terminal and the text goes elsewhere.

    :param done: what has been done to a line: ``translated``.
    """
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    if not console.is_terminal or sys.stdin.isatty() or sys.stdout.isatty():
        yield lambda n_lines: None
        return
    columns = (SpinnerColumn(), TextColumn(f"{{task.completed:,}} lines {done}"))
    with Progress(*columns, TimeElapsedColumn(), console=console, redirect_stdout=False) as shown:
        task = shown.add_task("", total=None)
        yield lambda n_lines: shown.advance(task, n_lines)


def input_lines(n_together: int, errors: str = "strict") -> Iterator[list[str]]:
    """The lines of standard input without their ends, many at once; one at a time of a terminal.

    :param errors: ``strict`` refuses bytes that are not UTF-8, ``replace`` puts U+FFFD there.
    :raises DataError: not UTF-8; no line of its lot has been given then.
    """
    numbered = enumerate(sys.stdin.buffer, 1)
    lines = (decode_line(line, number, "standard input", errors) for number, line in numbered)
    while lot := list(itertools.islice(lines, 1 if sys.stdin.isatty() else n_together)):
        yield lot
