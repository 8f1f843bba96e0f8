"""``xlm import``: models of other systems, as bundles."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from xlm_plugins.cli.lazy import LazyGroup

if TYPE_CHECKING:
    from xlm_plugins.model.description import ModelDescription

COMMANDS = {
    "xlm": ("import_xlm:import_xlm", "A checkpoint of the XLM implementation: FILE.pth."),
    "hf": ("import_hf:import_hf", "XLM-R and RoBERTa: a Hugging Face folder, or fairseq's files."),
}
SHOWN_LANGUAGES = 20


@click.group("import", cls=LazyGroup, lazy=COMMANDS)
def import_() -> None:
    """Turn a model of another system into a bundle, which every command takes as a run."""


def tell(out: Path, description: ModelDescription, notes: Sequence[str]) -> None:
    """Say what an import has made."""
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
        *(f"  note: {note}" for note in notes),
    ]
    click.echo("\n".join(lines), err=True)
