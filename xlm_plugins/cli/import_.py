"""``xlm import``: turn models of other systems into bundles."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from xlm_plugins.cli.lazy import LazyGroup
from xlm_plugins.core.messages import note

if TYPE_CHECKING:
    from xlm_plugins.core.plugins import Plugins

SHOWN_LANGUAGES = 20


@click.group("import", cls=LazyGroup)
def import_() -> None:
    """Turn a model of another system into a bundle, which every command accepts as RUN."""


@import_.command("xlm", short_help="A checkpoint of the XLM implementation: FILE.pth.")
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--codes", type=click.Path(path_type=Path), help="Its fastBPE codes; requires --vocab."
)
@click.option(
    "--vocab", type=click.Path(path_type=Path), help="Its vocabulary: `token count` lines."
)
@click.pass_context
def import_xlm(
    context: click.Context, checkpoint: Path, out: Path, codes: Path | None, vocab: Path | None
) -> None:
    """Turn CHECKPOINT, a .pth file of the XLM implementation, into the bundle OUT.

    The file is a pickle, but no code in it is run.  Without --codes the model expects text that is
    already split into the tokens of its vocabulary.
    """
    from xlm_plugins.interop.xlm.importing import import_xlm

    notes = import_xlm(checkpoint, out, context.obj.plugins, codes=codes, vocabulary=vocab)
    _summarise(out, notes, context.obj.plugins)


@import_.command("hf", short_help="XLM-R and RoBERTa: a Hugging Face folder, or fairseq's files.")
@click.argument("folder", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.pass_context
def import_hf(context: click.Context, folder: Path, out: Path) -> None:
    """Turn FOLDER, an encoder of XLM or of the RoBERTa family, into the bundle OUT.

    FOLDER holds config.json, model.safetensors or pytorch_model.bin, and a tokenizer; or
    fairseq's model.pt and dict.txt with sentencepiece.bpe.model, or with GPT-2's encoder.json
    and vocab.bpe.  Nothing is downloaded, and no code in the files is run.
    """
    from xlm_plugins.interop.huggingface.importing import import_hugging_face

    notes = import_hugging_face(folder, out, context.obj.plugins)
    _summarise(out, notes, context.obj.plugins)


def _summarise(out: Path, notes: Sequence[str], plugins: Plugins) -> None:
    """Describe the imported model on standard error."""
    from xlm_plugins.model.bundle import read_description

    description = read_description(out, plugins)
    options, languages = description.options, list(description.languages)
    n_more = len(languages) - SHOWN_LANGUAGES
    more = f" and {n_more} more" if n_more > 0 else ""
    facts = {
        "languages": ", ".join(languages[:SHOWN_LANGUAGES]) + more,
        "objectives": ", ".join(chosen.component.name for chosen in description.objectives),
        "layers": ", ".join(f"{p.component.name} at {p.position}" for p in description.layers),
    }
    lines = [
        f"{out}: {' and '.join(description.stacks)}, {options.n_layers} layers of {options.dim}, "
        f"{description.vocabulary.size:,} ids",
        *(f"  {title}: {fact}" for title, fact in facts.items() if fact),
        *(f"  note: {text}" for text in notes),
    ]
    note("\n".join(lines))
