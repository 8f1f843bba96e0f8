"""``xlm adapter``: save adapters without their base, and combine both again."""

from __future__ import annotations

import logging
from pathlib import Path

import click

_log = logging.getLogger("xlm_plugins").getChild("adapter")


@click.group()
def adapter() -> None:
    """Save trained adapters without their base; combine both again."""


@adapter.command()
@click.argument("run", metavar="RUN")
@click.argument("out", metavar="OUT", type=click.Path(path_type=Path))
@click.pass_context
def save(context: click.Context, run: str, out: Path) -> None:
    """Write the adapters and the head of RUN, without its base, into the folder OUT.

    RUN is a run folder (its best model), RUN@last, RUN@step-N, or a bundle.
    """
    from xlm_adapter.saved import save

    n_saved, n_all = save(run, out, context.obj.plugins)
    _log.info("%s of %s parameters; the rest is the base's", f"{n_saved:,}", f"{n_all:,}")
    click.echo(out)


@adapter.command()
@click.argument("base", metavar="BASE")
@click.argument("adapter", metavar="ADAPTER", type=click.Path(path_type=Path))
@click.argument("out", metavar="OUT", type=click.Path(path_type=Path))
@click.pass_context
def apply(context: click.Context, base: str, adapter: Path, out: Path) -> None:
    """Combine BASE and the folder ADAPTER that `save` wrote into a model, in the folder OUT.

    BASE is a run or a bundle with the weights that the adapters were trained on.
    """
    from xlm_adapter.saved import apply

    apply(base, adapter, out, context.obj.plugins)
    click.echo(out)
