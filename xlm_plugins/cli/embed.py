"""``xlm embed``: lines of text in, vectors out."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterable
from typing import IO, TYPE_CHECKING, cast

import click

from xlm_plugins.cli.pipes import encoded_chunks, open_model, pipe_options, progress, write_lines
from xlm_plugins.cli.values import run_argument
from xlm_plugins.core.errors import OptionError

if TYPE_CHECKING:
    from xlm_plugins.inference.embed import Vectors


@click.command()
@run_argument
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
    help="The mean over a sentence's tokens, or the state of the first position.",
)
@click.option("--json-lines", is_flag=True, help="One JSON list per line, not an .npy file.")
@pipe_options("language", "strict", "batch_tokens")
@click.pass_context
def embed(
    context: click.Context,
    run: str,
    layer: int,
    pool: str,
    json_lines: bool,
    language: str | None,
    strict: bool,
    batch_tokens: int | None,
    threads: int | None,
    errors: str,
) -> None:
    """Turn each line of standard input into a vector.

    RUN is a run folder (its best model), RUN@last, RUN@step-N, or a bundle.

    Writes an .npy file: float32, one row per line, in order.  Since an .npy file begins with its
    number of rows, rows are kept in a temporary file until standard input ends.
    """
    if not json_lines and sys.stdout.isatty():
        raise OptionError(
            "an .npy file cannot be shown on a terminal",
            expected="standard output to a file or a pipe",
            remedy=f"xlm embed {run} ... > out.npy, or --json-lines",
        )

    from xlm_plugins.inference.embed import Embedder

    bundle = open_model(context, run, threads)
    embedder = Embedder(bundle, language, layer=layer, pool=pool, batch_tokens=batch_tokens)
    chunks = encoded_chunks(embedder, errors, strict=strict)
    with progress("embedded") as advance:
        vectors = (embedder.embed(sentences, advance) for _, sentences in chunks)
        if json_lines:
            _write_json(vectors)
        else:
            _write_npy(vectors, bundle.description.options.dim)


def _write_json(chunks: Iterable[Vectors]) -> None:
    for vectors in chunks:
        # str writes the fewest digits that read back as the same float32.
        write_lines(f"[{', '.join(map(str, vector))}]" for vector in vectors)


def _write_npy(chunks: Iterable[Vectors], dim: int) -> None:
    """Write an array whose number of rows is known only at the end, in bounded memory."""
    from numpy.lib import format as npy

    with tempfile.TemporaryFile() as rows:
        n_rows = 0
        for vectors in chunks:
            rows.write(vectors.astype("<f4").tobytes())
            n_rows += len(vectors)
        rows.seek(0)
        out = cast("IO[bytes]", sys.stdout.buffer)
        header = {"descr": "<f4", "fortran_order": False, "shape": (n_rows, dim)}
        npy.write_array_header_1_0(out, header)
        shutil.copyfileobj(rows, out)
        out.flush()
