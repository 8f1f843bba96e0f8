"""``xlm prepare``: turn text into a data set."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from xlm_plugins.cli.options import Section, SectionedCommand, asks_for_help, errors_option, given
from xlm_plugins.cli.values import components
from xlm_plugins.core.catalogue import default_of
from xlm_plugins.core.errors import OptionError, PluginError
from xlm_plugins.core.messages import is_quiet, note, note_on, warn

if TYPE_CHECKING:
    from xlm_plugins.contracts.tokenizer import Tokenizer
    from xlm_plugins.core.plugins import Plugins
    from xlm_plugins.core.registry import Component
    from xlm_plugins.data.dataset.manifest import Manifest
    from xlm_plugins.data.prepare.prepare import Progress, TokenizerTraining
    from xlm_plugins.data.prepare.sources import Sources

    Chosen = tuple[Component, Tokenizer | TokenizerTraining]

EMBEDDED = "embedded"
DEFAULT_VOCABULARY = 8000
_STAGES = {"read": "checking", "tokenizer": "tokenizer:", "encode": "encoding"}


def select_tokenizer(first: click.Context) -> list[Section]:
    """The options of the tokenizer to train, unless an existing one is used."""
    if first.params.get("tokenizer_from"):
        return []
    name = first.params["tokenizer"] or default_of("tokenizer")
    try:
        return [Section.of(first.obj.plugins.get("tokenizer", name), name)]
    except PluginError:
        if asks_for_help(first):  # help works without the tokenizer
            return []
        raise


@click.command(cls=SectionedCommand, select=select_tokenizer)
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--tokenizer",
    shell_complete=components("tokenizer"),
    help=f"Kind of tokenizer to train.  [default: {default_of('tokenizer')}]",
)
@click.option(
    "--vocab-size",
    type=click.IntRange(min=1),
    help=f"Number of ids, special ones included.  [default: {DEFAULT_VOCABULARY}]",
)
@click.option(
    "--tokenizer-from",
    type=click.Path(path_type=Path),
    help="Use the tokenizer of a data set, a run, a bundle, or a tokenizer folder.",
)
@click.option("--languages", help="Only these languages, such as en,fr.  [default: all]")
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    help="Processes.  [default: one per CPU, if the text is long enough]",
)
@errors_option
@click.pass_context
def prepare(
    context: click.Context,
    source: Path,
    out: Path,
    tokenizer: str | None,
    vocab_size: int | None,
    tokenizer_from: Path | None,
    languages: str | None,
    workers: int | None,
    errors: str,
) -> None:
    """Turn the text of SOURCE into a data set OUT: tokenizer, shards and manifest.

    SOURCE is a folder of SPLIT.LANG.txt and SPLIT.L1-L2.LANG.txt (train.en.txt, valid.en.txt,
    train.en-fr.en.txt with train.en-fr.fr.txt), one sentence per line, plain or .bz2, .gz, .xz,
    .zst; or a TOML file with paths relative to itself:

    \b
      [[text]]
      split = "train"
      language = "en"
      files = ["news.txt.xz", "books.txt"]
    \b
      [[parallel]]
      split = "train"
      files.en = ["talks-*.en.txt"]
      files.fr = ["talks-*.fr.txt"]

    Files of other names are not used, and are listed; TOML takes names that end in .txt or the
    language, others after format = "lines".

    `embedded` stands for the corpus that comes with the program.

    All text is checked before anything is written.  After an interruption, the same command
    continues where it left off.
    """
    from xlm_plugins.data.dataset.health import findings
    from xlm_plugins.data.prepare.prepare import prepare as prepare_data

    if tokenizer_from and (tokenizer or vocab_size):
        raise OptionError(
            "--tokenizer and --vocab-size have no effect with --tokenizer-from",
            remedy="remove them to use that tokenizer, or --tokenizer-from to train one",
        )
    sources = _sources(source, languages)
    for group in sources.unused:
        warn(group.finding())
    if tokenizer_from:
        chosen = _existing(context.obj.plugins, tokenizer_from)
    else:
        chosen = _to_train(context, tokenizer or default_of("tokenizer"), vocab_size)
    with progress_report() as report:
        manifest = prepare_data(
            sources, out, *chosen, workers=workers, errors=errors, report=report
        )
    _summarise(manifest, out)
    for finding in findings(manifest):
        warn(finding)


def _sources(source: Path, languages: str | None) -> Sources:
    from xlm_plugins.data.prepare.embedded import embedded_source
    from xlm_plugins.data.prepare.sources import Sources

    is_embedded = source == Path(EMBEDDED) and not source.exists()
    sources = embedded_source() if is_embedded else Sources.open(source)
    return sources.restricted(languages.split(",")) if languages else sources


def _existing(plugins: Plugins, path: Path) -> Chosen:
    from xlm_plugins.core.saved_tokenizers import find_tokenizer, load_tokenizer, saved_component

    folder = find_tokenizer(path)
    return saved_component(plugins, folder), load_tokenizer(plugins, folder)


def _to_train(context: click.Context, name: str, vocabulary_size: int | None) -> Chosen:
    from xlm_plugins.data.prepare.prepare import TokenizerTraining

    component = context.obj.plugins.get("tokenizer", name)
    options = component.options_from(given(context).get(name, {}))
    return component, TokenizerTraining(vocabulary_size or DEFAULT_VOCABULARY, options)


@contextmanager
def progress_report() -> Iterator[Callable[[Progress], None]]:
    """Show progress on standard error: a bar on a terminal, else one line per stream."""
    from rich.console import Console

    console = Console(stderr=True, highlight=False)
    if is_quiet() or not console.is_terminal:
        yield _plain_report(note)
        return
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Bar(*columns, TimeRemainingColumn(), console=console) as bar:
        task = bar.add_task("starting", total=None)
        record = _plain_report(partial(note_on, None))

        def show(progress: Progress) -> None:
            record(progress)
            if progress.stage == "tokenizer":
                console.print(f"tokenizer: {progress.subject}")
            bar.update(
                task,
                description=f"{_STAGES[progress.stage]} {progress.subject}"[:50],
                completed=progress.done,
                total=progress.total or None,
            )

        yield show


def _plain_report(say: Callable[[str], None]) -> Callable[[Progress], None]:
    shown: set[tuple[str, str]] = set()

    def show(progress: Progress) -> None:
        if (progress.stage, progress.subject) not in shown:
            shown.add((progress.stage, progress.subject))
            total = f" ({progress.total:,} sentences)" if progress.total else ""
            say(f"{_STAGES[progress.stage]} {progress.subject}{total}")

    return show


def _summarise(manifest: Manifest, out: Path) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("stream", title=str(out))
    for heading in ("sentences", "tokens", "tokens per sentence", "dropped", "blocks"):
        table.add_column(heading, justify="right")
    for stream in manifest.streams:
        read = manifest.source["streams"][stream.name]["n_lines"]
        table.add_row(
            stream.name,
            f"{stream.n_sentences:,}",
            f"{stream.n_tokens:,}",
            f"{stream.n_tokens / stream.n_sentences:.1f}",
            f"{read - stream.n_sentences:,}",
            f"{len(stream.blocks):,}",
        )
    Console().print(table)
    objectives = "mlm --objective tlm" if manifest.pairs("train") else "mlm"
    click.echo(
        f"tokenizer: {manifest.tokenizer.name}, {manifest.tokenizer.size:,} ids, "
        f"fingerprint {manifest.tokenizer.fingerprint}\n\n"
        f"Next: xlm data {out}\n"
        f"      xlm train --data {out} --objective {objectives} --layer pkm"
    )
