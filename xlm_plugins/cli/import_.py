"""``xlm import``: models of other systems, as bundles."""

from __future__ import annotations

import click

from xlm_plugins.cli.lazy import LazyGroup

COMMANDS = {
    "xlm": ("import_xlm:import_xlm", "A checkpoint of the XLM implementation: FILE.pth."),
    "hf": ("import_hf:import_hf", "XLM-R and RoBERTa: a Hugging Face folder, or fairseq's files."),
}


@click.group("import", cls=LazyGroup, lazy=COMMANDS)
def import_() -> None:
    """Turn a model of another system into a bundle, which every command takes as a run."""
