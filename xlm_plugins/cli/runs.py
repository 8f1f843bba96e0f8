"""``xlm runs``: a table of runs, or what two of them do differently."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import click

from xlm_plugins.core.errors import RunError
from xlm_plugins.runs.layout import CONFIG_NAME
from xlm_plugins.runs.overview import Overview, runs_below

_LISTED = ("run", "status", "steps", "trains", "best")
_TITLES = (*_LISTED, "option")
_LEAST_VALUE = 20
"""Columns for a value of --compare, so that the longest path as a title breaks no number."""


@click.command()
@click.argument("folder", metavar="[DIR]", default="runs", type=click.Path(path_type=Path))
@click.option(
    "--compare",
    nargs=2,
    metavar="A B",
    type=click.Path(path_type=Path),
    help="Show the settings in which two runs, in DIR or anywhere, differ; and their best metrics.",
)
def runs(folder: Path, compare: tuple[Path, Path] | None) -> None:
    """List the runs in DIR (runs/ by default): how far each is, and its best metrics.

    A run is running, finished, stopped (xlm train --resume RUN continues it), or has no checkpoint
    yet; below is the day of its last metrics.  The runs of several seeds are listed one by one.
    """
    if compare:
        _compare(*(_named(run, folder) for run in compare))
        return
    found = [Overview.read(run) for run in runs_below(folder)]
    if not found:
        is_run = (folder / CONFIG_NAME).is_file()
        raise RunError(
            f"{folder} is a run itself" if is_run else f"there is no run in {folder}",
            expected=f"a folder of folders with {CONFIG_NAME}",
            remedy=f"xlm describe {folder}" if is_run else "xlm runs DIR",
        )
    rows = [
        (str(one.path.relative_to(folder)), _status(one), _steps(one), one.trains, _best(one))
        for one in found
    ]
    _show(_LISTED, rows)


def _named(run: Path, folder: Path) -> Path:
    """A run by its path, or by its name in DIR.

    :raises RunError: there is no such run.
    """
    for path in (run, folder / run):
        if (path / CONFIG_NAME).is_file():
            return path
    raise RunError(f"{run} is no run: it has no {CONFIG_NAME}", remedy="xlm runs DIR")


def _compare(*paths: Path) -> None:
    from xlm_plugins.config.changes import changes, shown

    one, other = map(Overview.read, paths)
    differing = changes(one.settings, other.settings)
    rows = [
        (name, shown(a), shown(b))
        for name, (a, b) in differing.items()
        # Options of what only one of them trains: the selections say so already.
        if all(name.rpartition(".")[0] in each.settings for each in (one, other))
    ]
    if not rows:
        click.echo("all settings are the same")
    rows += [("status", one.status, other.status), ("steps", _steps(one), _steps(other))]
    for name in dict.fromkeys([*one.best, *other.best]):
        rows.append((f"best {name}", _best_of(one, name), _best_of(other, name)))
        rows.append((f"last {name}", _last_of(one, name), _last_of(other, name)))
    is_named_alike = one.path.name == other.path.name
    _show(("option", *(str(path) if is_named_alike else path.name for path in paths)), rows)


def _steps(one: Overview) -> str:
    return f"{one.step:,}/{one.most_steps:,}" if one.most_steps else f"{one.step:,}"


def _status(one: Overview) -> str:
    """How it stands, and the day when it was last at work."""
    if one.changed is None:
        return one.status
    return f"{one.status}\n{datetime.fromtimestamp(one.changed):%Y-%m-%d}"


def _best(one: Overview) -> str:
    return "\n".join(f"{name} {_best_of(one, name)}" for name in one.best)


def _best_of(one: Overview, name: str) -> str:
    """The best value of a metric, and the step that reached it."""
    if name not in one.best:
        return ""
    step = one.step_of(name)
    return f"{one.best[name]:,.2f}" + ("" if step is None else f" at {step:,}")


def _last_of(one: Overview, name: str) -> str:
    values = [line[name] for line in one.measured if name in line]
    return f"{float(values[-1]):,.2f}" if values else ""


def _show(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table on standard output; only texts wrap, never numbers."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for title in titles:
        is_number = title in ("steps", "best")
        least = _LEAST_VALUE if title not in _TITLES else None  # a run of --compare
        table.add_column(title, no_wrap=is_number, overflow="fold", min_width=least)
    for row in rows:
        table.add_row(*row)
    Console(highlight=False, markup=False).print(table)
