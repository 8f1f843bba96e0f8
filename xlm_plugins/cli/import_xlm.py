"""``xlm import xlm``: a checkpoint of the reference implementation as a bundle."""

from __future__ import annotations

from pathlib import Path

import click

from xlm_plugins.cli.import_ import tell


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
    tell(found.out, found.description, found.notes)
