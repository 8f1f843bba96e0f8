"""``xlm import xlm``: a checkpoint of the reference implementation as a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from xlm_plugins.interop.xlm import Imported

SHOWN_LANGUAGES = 20


@click.command("xlm")
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--codes", type=click.Path(path_type=Path), help="Its fastBPE codes; wants --vocab.")
@click.option(
    "--vocab", type=click.Path(path_type=Path), help="Its vocabulary: `token count` lines."
)
@click.pass_context
def import_xlm(
    context: click.Context, checkpoint: Path, out: Path, codes: Path | None, vocab: Path | None
) -> None:
    """Turn CHECKPOINT, a .pth file of the XLM implementation, into the bundle OUT.

    The file is a pickle, and nothing that it names is run.  Without --codes the model takes text
    that is cut into its vocabulary's tokens already.
    """
    from xlm_plugins.interop.xlm import import_xlm

    found = import_xlm(checkpoint, out, context.obj.plugins, codes=codes, vocabulary=vocab)
    for line in _summary(found):
        click.echo(line, err=True)


def _summary(found: Imported) -> list[str]:
    description = found.description
    options = description.options
    codes = list(description.languages)
    more = f" and {len(codes) - SHOWN_LANGUAGES} more" if len(codes) > SHOWN_LANGUAGES else ""
    objectives = ", ".join(chosen.component.name for chosen in description.objectives)
    layers = [f"{placed.component.name} at {placed.position}" for placed in description.layers]
    return [
        f"{found.out}: {' and '.join(description.stacks)}, {options.n_layers} layers of "
        f"{options.dim}, {description.vocabulary.size:,} ids",
        f"  languages: {', '.join(codes[:SHOWN_LANGUAGES])}{more}",
        f"  objectives: {objectives}",
        *([f"  layers: {', '.join(layers)}"] if layers else []),
        *(f"  note: {note}" for note in found.notes),
    ]
