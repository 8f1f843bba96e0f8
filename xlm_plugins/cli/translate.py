"""``xlm translate``: text in one language to text in another, by pipe."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from xlm_plugins.cli.options import Section, SectionedCommand, errors_option, given
from xlm_plugins.cli.standard_input import input_lines
from xlm_plugins.core.errors import DataError
from xlm_plugins.core.options import build
from xlm_plugins.core.plugins import Plugins
from xlm_plugins.model.config import GenerationOptions

if TYPE_CHECKING:
    from xlm_plugins.core.ragged import Ragged
    from xlm_plugins.model.translation import Translation

LINES_AT_ONCE = 4000


def _sections(plugins: Plugins, arguments: Sequence[str]) -> list[Section]:
    return [Section("generation", "Generation", GenerationOptions)]


@click.command(cls=SectionedCommand, sections=_sections)
@click.argument("run", metavar="RUN")
@click.option("--from", "source", required=True, metavar="LANGUAGE", help="Language of the text.")
@click.option("--to", "target", required=True, metavar="LANGUAGE", help="Language to write.")
@click.option(
    "--n-best",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Lines to write for each line, the best first; up to --beam.",
)
@click.option("--scores", is_flag=True, help="Put its score and a tab before each line.")
@click.option(
    "--strict", is_flag=True, help="Refuse lines longer than the model's positions, not cut them."
)
@click.option(
    "--batch-tokens",
    type=click.IntRange(min=1),
    help="Tokens read together, each times --beam; bounds memory.  [default 4096]",
)
@click.option(
    "--seed", type=click.IntRange(min=0), default=1, show_default=True, help="Of --sample."
)
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads.  [default the machine's]")
@errors_option
@click.pass_context
def translate(
    context: click.Context,
    run: str,
    source: str,
    target: str,
    n_best: int,
    scores: bool,
    strict: bool,
    batch_tokens: int | None,
    seed: int,
    threads: int | None,
    errors: str,
) -> None:
    """Translate standard input, line by line.

    RUN is a run folder (its best model), RUN@last, RUN@step-N, or a bundle.

    Every line gives one, in order, an empty line an empty one.  Text is UTF-8 in and out.
    Lines are read and written some thousands at a time: an error leaves out those of its lot
    and all that follow.
    """
    options = build(GenerationOptions, given(context).get("generation", {}), "generation")

    import torch

    from xlm_plugins.model.bundle import Bundle
    from xlm_plugins.model.host import tune_host
    from xlm_plugins.model.translation import Translator
    from xlm_plugins.training.run import find_bundle

    tune_host(threads)
    torch.manual_seed(seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    bundle = Bundle.load(find_bundle(run), context.obj.plugins, device)
    translator = Translator(
        bundle, source, target, options, n_best=n_best, batch_tokens=batch_tokens
    )
    n_read = n_cut = 0
    with _progress() as advance:
        for texts in input_lines(LINES_AT_ONCE, errors):
            sentences = translator.encode(texts)
            n_cut += _check_lengths(sentences, translator.longest, n_read, strict)
            n_read += len(texts)
            _write(translator.translate(sentences, advance), scores)
    if n_cut:
        told = f"{n_cut:,} of {n_read:,} lines were cut to {translator.longest} tokens"
        click.echo(f"{told}, all that the model reads; --strict refuses such lines", err=True)


def _check_lengths(sentences: Ragged, longest: int, n_before: int, strict: bool) -> int:
    """How many sentences are longer than that.

    :param n_before: lines before these.
    :raises DataError: there is one, and ``strict`` refuses it.
    """
    too_long = (sentences.lengths > longest).nonzero()[0]
    if strict and len(too_long):
        first = int(too_long[0])
        raise DataError(
            f"standard input, line {n_before + first + 1}: {sentences.lengths[first]:,} tokens",
            expected=f"at most {longest}, for which the model has positions",
            remedy="split the line, or leave --strict out to have it cut",
        )
    return len(too_long)


def _write(found: Sequence[Sequence[Translation]], with_scores: bool) -> None:
    """Write a lot of lines; in bytes, for the locale's encoding may not have every letter."""
    lines = [
        f"{translation.score:.4f}\t{translation.text}\n" if with_scores else translation.text + "\n"
        for translations in found
        for translation in translations
    ]
    click.echo("".join(lines).encode("utf-8"), nl=False)


@contextmanager
def _progress() -> Iterator[Callable[[int], None]]:
    """Count lines on standard error, where it is a terminal and the text goes elsewhere."""
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    if not console.is_terminal or sys.stdin.isatty() or sys.stdout.isatty():
        yield lambda n_lines: None
        return
    columns = (SpinnerColumn(), TextColumn("{task.completed:,} lines translated"))
    with Progress(
        *columns, TimeElapsedColumn(), console=console, redirect_stdout=False
    ) as progress:
        task = progress.add_task("", total=None)
        yield lambda n_lines: progress.advance(task, n_lines)
