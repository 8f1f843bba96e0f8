"""``xlm predict``: what a fine-tuned model says of each line, by pipe."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from xlm_plugins.cli.options import errors_option
from xlm_plugins.cli.pipes import (
    language_option,
    lots_of_lines,
    open_model,
    progress,
    threads_option,
    write_lines,
)
from xlm_plugins.core.errors import DataError

if TYPE_CHECKING:
    from xlm_plugins.inference.predict import Prediction


@click.command()
@click.argument("run", metavar="RUN")
@language_option
@click.option(
    "--json-lines",
    is_flag=True,
    help="One JSON object a line, with the probabilities of all classes.",
)
@threads_option
@errors_option
@click.pass_context
def predict(
    context: click.Context,
    run: str,
    language: str | None,
    json_lines: bool,
    threads: int | None,
    errors: str,
) -> None:
    """Put its label, its probability and tabs before each line of standard input.

    RUN is a run of `xlm finetune` (its best model), RUN@last, RUN@step-N, or a bundle.

    Where the task compares two texts, a tab stands between them.  A regression gives a value
    and no probability.
    """
    from xlm_plugins.inference.predict import Predictor

    predictor = Predictor(open_model(context, run, threads), language)
    n_read = 0
    show = _as_json if json_lines else _before_text
    with progress("judged") as advance:
        for lines in lots_of_lines(errors):
            columns = _columns(lines, predictor.description.n_texts, n_read)
            n_read += len(lines)
            write_lines(map(show, lines, predictor.predict(columns, advance)))
    if predictor.n_cut:
        longest = predictor.description.max_length
        click.echo(f"{predictor.n_cut:,} of {n_read:,} rows were cut to {longest} tokens", err=True)


def _columns(lines: Sequence[str], n_texts: int, n_before: int) -> list[tuple[str, ...]]:
    """The texts of each line, by column.

    :raises DataError: a line has another number of texts.
    """
    if n_texts == 1:
        return [tuple(lines)]
    rows = [line.split("\t") for line in lines]
    for number, row in enumerate(rows, start=n_before + 1):
        if len(row) != n_texts:
            raise DataError(
                f"standard input, line {number}: {len(row)} text(s)",
                expected=f"{n_texts}, with a tab between them",
            )
    return list(zip(*rows, strict=True))


def _before_text(line: str, found: Prediction) -> str:
    share = f"\t{found.probabilities[found.label]:.4f}" if found.probabilities else ""
    return f"{found.label}{share}\t{line}"


def _as_json(line: str, found: Prediction) -> str:
    tree: dict[str, object] = {"text": line}
    if found.probabilities:
        tree |= {"label": found.label, "probabilities": dict(found.probabilities)}
    else:
        tree["value"] = float(found.label)
    return json.dumps(tree, ensure_ascii=False)
