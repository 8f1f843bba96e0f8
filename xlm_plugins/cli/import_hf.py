"""``xlm import hf``: an encoder in Hugging Face's or fairseq's format as a bundle."""

from __future__ import annotations

from pathlib import Path

import click

from xlm_plugins.cli.import_ import tell


@click.command("hf")
@click.argument("folder", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.pass_context
def import_hf(context: click.Context, folder: Path, out: Path) -> None:
    """Turn FOLDER, with an encoder of XLM or of RoBERTa's family, into the bundle OUT.

    FOLDER holds config.json, model.safetensors or pytorch_model.bin, and a tokenizer; or
    fairseq's model.pt and dict.txt with sentencepiece.bpe.model, or with GPT-2's encoder.json
    and vocab.bpe.  Nothing is fetched, and nothing that a file names is run.
    """
    from xlm_plugins.interop.huggingface_import import import_hugging_face
    from xlm_plugins.model.bundle import read_description

    notes = import_hugging_face(folder, out, context.obj.plugins)
    tell(out, read_description(out, context.obj.plugins), notes)
