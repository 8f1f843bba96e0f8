"""``xlm fill-mask``: the most probable tokens for the masks of a text."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from xlm_plugins.cli.pipes import line_chunks, open_model, pipe_options, progress, write_lines
from xlm_plugins.cli.values import run_argument

if TYPE_CHECKING:
    from xlm_plugins.inference.fill_mask import Filling


@click.command("fill-mask")
@run_argument
@click.argument("texts", nargs=-1, metavar="[TEXT]...")
@click.option(
    "--top", type=click.IntRange(min=1), default=5, show_default=True, help="Candidates per mask."
)
@click.option("--json-lines", "--json", is_flag=True, help="One JSON object per text.")
@pipe_options("language", "batch_tokens")
@click.pass_context
def fill_mask(
    context: click.Context,
    run: str,
    texts: tuple[str, ...],
    top: int,
    json_lines: bool,
    language: str | None,
    batch_tokens: int | None,
    threads: int | None,
    errors: str,
) -> None:
    """Fill each <mask> of the TEXTs, or of the lines of standard input.

    RUN is a run folder (its best model), RUN@last, RUN@step-N, or a bundle.

    Special tokens, including the unknown token, are never candidates.  A text without a mask, or
    one longer than the model's positions, is refused.
    """
    from xlm_plugins.inference.fill_mask import MaskFiller

    bundle = open_model(context, run, threads)
    filler = MaskFiller(bundle, language, top=top, batch_tokens=batch_tokens)
    show = _as_json if json_lines else _for_people
    with progress("filled") as advance:
        for lines in line_chunks(errors, texts):
            for text, masks in zip(lines, filler.fill(lines, advance), strict=True):
                write_lines(show(text, masks))


def _as_json(text: str, masks: list[list[Filling]]) -> Iterator[str]:
    tree = {"text": text, "masks": [[vars(filling) for filling in mask] for mask in masks]}
    yield json.dumps(tree, ensure_ascii=False)


def _for_people(text: str, masks: list[list[Filling]]) -> Iterator[str]:
    yield text
    for number, fillings in enumerate(masks, start=1):
        if len(masks) > 1:
            yield f"  mask {number}"
        for filling in fillings:
            yield f"  {filling.probability:6.1%}  {filling.text}"
