"""``xlm tokenizer``: train a tokenizer, or pipe text through one."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from xlm_plugins.cli.lazy import LazyGroup
from xlm_plugins.cli.options import SectionedCommand, errors_option, given
from xlm_plugins.cli.pipes import input_lines
from xlm_plugins.cli.prepare import DEFAULT_VOCABULARY, select_tokenizer
from xlm_plugins.core.catalogue import default_of
from xlm_plugins.core.errors import DataError
from xlm_plugins.core.messages import note

if TYPE_CHECKING:
    from xlm_plugins.contracts.tokenizer import Tokenizer
    from xlm_plugins.data.prepare.sources import Sources

LINES_AT_ONCE = 1000


@click.group(cls=LazyGroup)
def tokenizer() -> None:
    """Train a tokenizer; encode and decode text.

    `xlm prepare` trains its own; this is for a tokenizer that several data sets share.
    """


@tokenizer.command(cls=SectionedCommand, select=select_tokenizer)
@click.argument(
    "texts", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="TEXT..."
)
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder to write.")
@click.option(
    "--tokenizer", default=default_of("tokenizer"), show_default=True, help="Kind of tokenizer."
)
@click.option(
    "--vocab-size",
    type=click.IntRange(min=1),
    default=DEFAULT_VOCABULARY,
    show_default=True,
    help="Number of ids, special ones included.",
)
@errors_option
@click.pass_context
def train(
    context: click.Context,
    texts: tuple[Path, ...],
    out: Path,
    tokenizer: str,
    vocab_size: int,
    errors: str,
) -> None:
    """Learn a vocabulary from TEXT and save it in a folder.

    TEXT is one or more text files, one sentence per line, plain or .bz2, .gz, .xz, .zst; or one
    SOURCE as in `xlm prepare`.  A bounded sample is read, in which small files (or languages) are
    favoured.
    """
    from xlm_plugins.core.files import whole_folder
    from xlm_plugins.core.saved_tokenizers import mark_tokenizer
    from xlm_plugins.data.prepare.lines import count_text
    from xlm_plugins.data.prepare.tokenizer_sample import (
        describe_sample,
        plan_sample,
        sampled_texts,
    )
    from xlm_plugins.data.prepare.unfinished import check_free

    component = context.obj.plugins.get("tokenizer", tokenizer)
    options = component.options_from(given(context).get(tokenizer, {}))
    check_free(out)
    sources = _training_text(texts)
    plan = plan_sample(sources, {s.name: count_text(s, errors) for s in sources.streams})
    note(f"{component.name} learns from {describe_sample(plan)}")
    with whole_folder(out, shared=True) as folder:
        learnt = component.load().train(
            sampled_texts(plan, errors), vocab_size, options, folder, os.cpu_count() or 1
        )
        saved = mark_tokenizer(component, learnt, folder)
    note(
        f"{out}: {saved.name}, {len(learnt.tokens()):,} ids, fingerprint {saved.fingerprint}\n"
        f"Next: xlm prepare SOURCE OUT --tokenizer-from {out}"
    )


def _training_text(texts: tuple[Path, ...]) -> Sources:
    """Each file as a stream, or the training streams of one source."""
    from xlm_plugins.data.dataset.manifest import TRAIN
    from xlm_plugins.data.prepare.sources import Sources, StreamSource

    if len(texts) == 1 and (texts[0].is_dir() or texts[0].suffix == ".toml"):
        found = Sources.open(texts[0])
        return Sources(found.origin, tuple(s for s in found.streams if s.split == TRAIN))
    for path in texts:
        if not path.is_file():
            raise DataError(
                f"{path} is a folder, but not the only TEXT"
                if path.is_dir()
                else f"the text {path} does not exist",
                expected="text files, or one folder as in `xlm prepare`",
            )
    # Each file counts as a language: the sample favours small ones.
    files = dict.fromkeys(texts)
    streams = tuple(StreamSource(TRAIN, (str(path),), ((path,),)) for path in files)
    return Sources(texts[0], streams)


@tokenizer.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--ids", is_flag=True, help="Write ids instead of pieces.")
@click.pass_context
def encode(context: click.Context, path: Path, ids: bool) -> None:
    """Read text from standard input and write the pieces of each line, separated by spaces.

    PATH is a tokenizer, a data set, a run or a model bundle.
    """
    encoder = _load(context, path)
    tokens = [str(i) if ids else token for i, token in enumerate(encoder.tokens())]

    def pieces(lines: list[str]) -> Iterator[str]:
        for row in encoder.encode_batch(lines).rows:
            yield " ".join([tokens[i] for i in row])

    _pipe(pieces)


@tokenizer.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.pass_context
def decode(context: click.Context, path: Path) -> None:
    """Read ids from standard input, in the format of `encode --ids`, and write text.

    PATH is a tokenizer, a data set, a run or a model bundle.
    """
    decoder = _load(context, path)
    n_ids = len(decoder.tokens())

    def text(lines: list[str]) -> list[str]:
        return decoder.decode_batch([_ids(line, n_ids) for line in lines])

    _pipe(text)


def _load(context: click.Context, path: Path) -> Tokenizer:
    from xlm_plugins.core.saved_tokenizers import find_tokenizer, load_tokenizer

    return load_tokenizer(context.obj.plugins, find_tokenizer(path))


def _ids(line: str, n_ids: int) -> list[int]:
    for word in line.split():
        if not (word.isascii() and word.isdigit() and int(word) < n_ids):
            raise DataError(
                f"{word!r} is not an id of this tokenizer",
                expected=f"whole numbers from 0 to {n_ids - 1}, separated by spaces",
                remedy="xlm tokenizer encode --ids writes such lines",
            )
    return [int(word) for word in line.split()]


def _pipe(work: Callable[[list[str]], Iterable[str]]) -> None:
    """Map lines of standard input to lines of standard output, in batches; singly on a terminal."""
    for lines in input_lines(LINES_AT_ONCE):
        click.echo("\n".join(work(lines)))
