"""``xlm import hf``: an encoder in Hugging Face's or fairseq's format as a bundle."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("hf")
@click.argument("folder", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.pass_context
def import_hf(context: click.Context, folder: Path, out: Path) -> None:
    """Turn FOLDER, with an encoder of XLM or of RoBERTa's family, into the bundle OUT.

    FOLDER holds config.json, model.safetensors or pytorch_model.bin, and a tokenizer; or
    fairseq's model.pt, dict.txt and sentencepiece.bpe.model.  Nothing is fetched, and nothing
    that a file names is run.
    """
    from xlm_plugins.interop.huggingface_import import import_hugging_face
    from xlm_plugins.model.bundle import read_description

    notes = import_hugging_face(folder, out, context.obj.plugins)
    description = read_description(out, context.obj.plugins)
    options = description.options
    objectives = ", ".join(chosen.component.name for chosen in description.objectives)
    click.echo(
        f"{out}: encoder, {options.n_layers} layers of {options.dim}, "
        f"{description.vocabulary.size:,} ids, trained on {objectives or 'nothing'}",
        err=True,
    )
    for note in notes:
        click.echo(f"  note: {note}", err=True)
