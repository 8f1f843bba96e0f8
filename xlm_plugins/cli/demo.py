"""``xlm demo``: watch a model learn to relate two languages in four minutes."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.option(
    "--out", type=click.Path(path_type=Path), help="Folder to create; runs/demo-N if unset."
)
@click.option("--minutes", default=3.2, show_default=True, help="Minutes to train for.")
@click.pass_context
def demo(context: click.Context, out: Path | None, minutes: float) -> None:
    """Train MLM and TLM with a product-key memory on the embedded corpus, and show the result."""
    from rich.console import Console

    from xlm_plugins.demo import Demonstration
    from xlm_plugins.runs.folder import free_run_path

    folder = out or free_run_path("demo")
    Demonstration(folder, minutes, context.obj.plugins, Console()).show()
