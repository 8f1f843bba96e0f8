"""``xlm plot``: plot the curves of runs."""

from __future__ import annotations

from pathlib import Path

import click

from xlm_plugins.cli.values import runs as offered_runs


@click.command()
@click.argument(
    "runs",
    nargs=-1,
    required=True,
    type=click.Path(path_type=Path),
    metavar="RUN...",
    shell_complete=offered_runs,
)
@click.option(
    "--out",
    default=Path("curves.png"),
    type=click.Path(path_type=Path),
    show_default=True,
    help="Image to write: .png, .pdf or .svg.",
)
def plot(runs: tuple[Path, ...], out: Path) -> None:
    """Plot the curves of one or several runs: training loss and validation metrics."""
    from xlm_plugins.runs.plot import plot_runs

    plot_runs(runs, out)
    click.echo(str(out))
