"""``xlm demo``: see a model learn to relate three languages, in four minutes."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.option("--out", default=Path("demo"), type=click.Path(path_type=Path), show_default=True)
@click.option("--minutes", default=2.8, show_default=True, help="How long to train.")
@click.pass_context
def demo(context: click.Context, out: Path, minutes: float) -> None:
    """Train MLM and TLM with a product-key memory on the embedded corpus, and show the result."""
    from rich.console import Console

    from xlm_plugins.demo import Demonstration

    Demonstration(out, minutes, context.obj.plugins, Console()).show()
