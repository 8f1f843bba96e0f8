"""``xlm embed``: lines of text to vectors, by pipe."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterable
from typing import IO, TYPE_CHECKING, cast

import click

from xlm_plugins.cli.options import errors_option
from xlm_plugins.cli.pipes import (
    batch_tokens_option,
    language_option,
    lots_of_lines,
    open_model,
    progress,
    strict_option,
    threads_option,
    with_tokens,
    write_lines,
)
from xlm_plugins.core.errors import OptionError

if TYPE_CHECKING:
    from xlm_plugins.inference.embed import Vectors


@click.command()
@click.argument("run", metavar="RUN")
@language_option
@click.option(
    "--layer",
    type=int,
    default=-1,
    show_default=True,
    help="0 is the embedding layer, 1 the first one, -1 the last.",
)
@click.option(
    "--pool",
    type=click.Choice(["mean", "first"]),
    default="mean",
    show_default=True,
    help="The mean over a sentence's own tokens, or the state of the first position.",
)
@click.option("--json-lines", is_flag=True, help="One JSON list a line, not an .npy file.")
@strict_option
@batch_tokens_option
@threads_option
@errors_option
@click.pass_context
def embed(
    context: click.Context,
    run: str,
    language: str | None,
    layer: int,
    pool: str,
    json_lines: bool,
    strict: bool,
    batch_tokens: int | None,
    threads: int | None,
    errors: str,
) -> None:
    """Turn each line of standard input into a vector.

    RUN is a run folder (its best model), RUN@last, RUN@step-N, or a bundle.

    Writes an .npy file: float32, a row a line, in order.  An .npy file begins with the number of
    its rows, so the rows wait in a temporary file until standard input ends.
    """
    if not json_lines and sys.stdout.isatty():
        raise OptionError(
            "an .npy file is nothing for a terminal",
            expected="standard output that is a file or a pipe",
            remedy=f"xlm embed {run} ... > out.npy, or --json-lines",
        )

    from xlm_plugins.inference.embed import Embedder

    bundle = open_model(context, run, threads)
    embedder = Embedder(bundle, language, layer=layer, pool=pool, batch_tokens=batch_tokens)
    lots = with_tokens(lots_of_lines(errors), embedder.encode, embedder.longest, strict=strict)
    with progress("embedded") as advance:
        vectors = (embedder.embed(sentences, advance) for _, sentences in lots)
        if json_lines:
            _write_json(vectors)
        else:
            _write_npy(vectors, bundle.description.options.dim)


def _write_json(lots: Iterable[Vectors]) -> None:
    for vectors in lots:
        # str gives the fewest digits that are read back as the same float32.
        write_lines(f"[{', '.join(map(str, vector))}]" for vector in vectors)


def _write_npy(lots: Iterable[Vectors], dim: int) -> None:
    """Write an array whose number of rows shows at the end only, in bounded memory."""
    from numpy.lib import format as npy

    with tempfile.TemporaryFile() as rows:
        n_rows = 0
        for vectors in lots:
            rows.write(vectors.astype("<f4").tobytes())
            n_rows += len(vectors)
        rows.seek(0)
        out = cast("IO[bytes]", sys.stdout.buffer)
        header = {"descr": "<f4", "fortran_order": False, "shape": (n_rows, dim)}
        npy.write_array_header_1_0(out, header)
        shutil.copyfileobj(rows, out)
        out.flush()
