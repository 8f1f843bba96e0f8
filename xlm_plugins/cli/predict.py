"""``xlm predict``: what a fine-tuned model predicts for each line."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from xlm_plugins.cli.pipes import line_chunks, open_model, pipe_options, progress, write_lines
from xlm_plugins.cli.values import run_argument
from xlm_plugins.core.errors import DataError
from xlm_plugins.core.messages import warn

if TYPE_CHECKING:
    from xlm_plugins.inference.predict import Prediction


@click.command()
@run_argument
@click.option(
    "--json-lines",
    is_flag=True,
    help="One JSON object per line, with the probabilities of all classes.",
)
@pipe_options("language")
@click.pass_context
def predict(
    context: click.Context,
    run: str,
    json_lines: bool,
    language: str | None,
    threads: int | None,
    errors: str,
) -> None:
    """Put a label, its probability and tabs before each line of standard input.

    RUN is a run of `xlm finetune` (its best model), RUN@last, RUN@step-N, or a bundle.

    If the task compares two texts, separate them by a tab.  A regression writes a value and no
    probability.
    """
    from xlm_plugins.inference.predict import Predictor

    predictor = Predictor(open_model(context, run, threads), language)
    n_read = n_cut = 0
    show = _as_json if json_lines else _before_text
    with progress("classified") as advance:
        for lines in line_chunks(errors):
            columns = _columns(lines, predictor.description.n_texts, n_read)
            tokens, n_cut_here = predictor.encode_columns(columns)
            n_read, n_cut = n_read + len(lines), n_cut + n_cut_here
            write_lines(map(show, lines, predictor.predict(tokens, advance)))
    if n_cut:
        cut = f"{n_cut:,} of {n_read:,} rows were cut to {predictor.longest} tokens"
        warn(cut)


def _columns(lines: Sequence[str], n_texts: int, n_before: int) -> list[tuple[str, ...]]:
    """The texts of each line, by column.

    :raises DataError: a line has the wrong number of texts.
    """
    if n_texts == 1:
        return [tuple(lines)]
    rows = [line.split("\t") for line in lines]
    for number, row in enumerate(rows, start=n_before + 1):
        if len(row) != n_texts:
            raise DataError(
                f"standard input, line {number}: {len(row)} text(s)",
                expected=f"{n_texts}, separated by a tab",
            )
    return list(zip(*rows, strict=True))


def _before_text(line: str, found: Prediction) -> str:
    probability = f"\t{found.probabilities[found.label]:.4f}" if found.probabilities else ""
    return f"{found.label}{probability}\t{line}"


def _as_json(line: str, found: Prediction) -> str:
    tree: dict[str, object] = {"text": line}
    if found.probabilities:
        tree |= {"label": found.label, "probabilities": dict(found.probabilities)}
    else:
        tree["value"] = float(found.label)
    return json.dumps(tree, ensure_ascii=False)
