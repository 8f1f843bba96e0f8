"""``xlm export``: convert a model for other libraries."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from xlm_plugins.cli.lazy import LazyGroup
from xlm_plugins.runs.layout import WEIGHTS_NAME

if TYPE_CHECKING:
    from xlm_plugins.model.bundle import Bundle


@click.group(cls=LazyGroup)
def export() -> None:
    """Convert a model for other libraries.

    RUN is a run folder (its best model), RUN@last, RUN@step-N, or a bundle.
    """


@export.command()
@click.argument("run", metavar="RUN")
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--language", help="Export a model of this one language, as pipelines need it.")
@click.option(
    "--license",
    "licence",
    default="unknown",
    show_default=True,
    help="Licence for the model card, such as mit.",
)
@click.pass_context
def hf(context: click.Context, run: str, out: Path, language: str | None, licence: str) -> None:
    """Write RUN to OUT as a model of transformers, and compare the two.

    The encoder becomes an XLMWithLMHeadModel, an XLMRobertaForMaskedLM or, with RoBERTa's
    tokenizer, a RobertaForMaskedLM, with configuration, safetensors, a fast tokenizer and a
    model card.  It is then loaded in a new process, and the hidden states, scores and token ids of
    sample text are compared.
    """
    from xlm_plugins.interop.huggingface.export import Export

    prepared = Export.prepare(_open(context, run), out, language=language, licence=licence)
    for note in prepared.notes:
        click.echo(f"note: {note}", err=True)
    found = prepared.write()
    click.echo(
        f"{out}: loaded as {found.class_name}; the largest differences are "
        f"{found.hidden:.2g} in hidden states and {found.scores:.2g} in scores",
        err=True,
    )
    click.echo(
        "note: pooling is not part of it: sentence-transformers adds its own, and makes other "
        "vectors than xlm embed",
        err=True,
    )
    if found.texts is not None:
        click.echo(f"sample texts whose token ids differ: {len(found.texts)}", err=True)
        for text in found.texts:
            click.echo(f"  {text!r}", err=True)


@export.command()
@click.argument("run", metavar="RUN")
@click.argument("out", type=click.Path(path_type=Path))
@click.pass_context
def safetensors(context: click.Context, run: str, out: Path) -> None:
    """Write the weights of RUN, any model, and a description in JSON to OUT."""
    from xlm_plugins.interop.safetensors_export import DESCRIPTION_NAME, export_safetensors

    export_safetensors(_open(context, run), out)
    click.echo(f"{out}: {WEIGHTS_NAME} and {DESCRIPTION_NAME}", err=True)


def _open(context: click.Context, run: str) -> Bundle:
    from xlm_plugins.model.bundle import Bundle
    from xlm_plugins.runs.find import find_bundle

    return Bundle.load(find_bundle(run), context.obj.plugins)
