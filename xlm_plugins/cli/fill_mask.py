"""``xlm fill-mask``: the most probable tokens for the masks of a text."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from typing import Any

import click


@click.command("fill-mask")
@click.argument("run", metavar="RUN")
@click.argument("texts", nargs=-1, metavar="[TEXT]...")
@click.option("--language", help="Language of the text; needed where the model knows several.")
@click.option(
    "--top", type=click.IntRange(min=1), default=5, show_default=True, help="Guesses for each mask."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object for each text.")
@click.pass_context
def fill_mask(
    context: click.Context,
    run: str,
    texts: tuple[str, ...],
    language: str | None,
    top: int,
    as_json: bool,
) -> None:
    """Fill each <mask> of the TEXTs, or of the lines of standard input.

    RUN is a run folder, RUN@last, RUN@step-N, or a bundle.
    """
    from xlm_plugins.model import inference
    from xlm_plugins.model.bundle import Bundle
    from xlm_plugins.training.run import find_bundle

    bundle = Bundle.load(find_bundle(run), context.obj.plugins)
    lines: Iterable[str] = texts or sys.stdin
    for line in lines:
        masks = inference.fill_mask(bundle, line.rstrip("\n"), language, top=top)
        if as_json:
            tree = {"text": line.rstrip("\n"), "masks": [[vars(f) for f in m] for m in masks]}
            click.echo(json.dumps(tree, ensure_ascii=False))
        else:
            _show(line.rstrip("\n"), masks)


def _show(text: str, masks: list[list[Any]]) -> None:
    click.echo(text)
    for number, fillings in enumerate(masks, start=1):
        if len(masks) > 1:
            click.echo(f"  mask {number}")
        for filling in fillings:
            click.echo(f"  {filling.probability:6.1%}  {filling.text}")
