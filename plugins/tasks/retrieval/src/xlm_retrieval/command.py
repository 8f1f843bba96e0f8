"""``xlm retrieval``: how often a model finds the translation of a sentence."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from xlm_plugins.inference.loaded_model import LoadedModel
    from xlm_retrieval.measure import Accuracy, Embed, Side

_FILE = click.Path(path_type=Path)

_log = logging.getLogger("xlm_plugins").getChild("retrieval")


@click.command()
@click.argument("run", metavar="RUN")
@click.argument("left", metavar="FILE1", type=_FILE)
@click.argument("right", metavar="FILE2", type=_FILE)
@click.option("--from", "source", required=True, help="Language of FILE1.")
@click.option("--to", "target", required=True, help="Language of FILE2.")
@click.option(
    "--layers",
    default="all",
    show_default=True,
    help="Layers to compare, such as 0,2,-1; 0 is the embeddings, -1 the last.",
)
@click.option(
    "--pool",
    type=click.Choice(["mean", "first"]),
    default="mean",
    show_default=True,
    help="What represents a sentence: the mean of its tokens' states, or the first state.",
)
@click.option(
    "--score", type=click.Choice(["cosine", "margin"]), help="Score by this alone.  [default: both]"
)
@click.option("--no-centre", is_flag=True, help="Do not subtract each side's mean vector.")
@click.option("--json", "as_json", is_flag=True, help="The result as one JSON object.")
@click.option("--plot", "picture", type=_FILE, help="Plot it: a .png, .pdf or .svg file.")
def retrieval(
    run: str,
    left: Path,
    right: Path,
    source: str,
    target: str,
    layers: str,
    pool: str,
    score: str | None,
    no_centre: bool,
    as_json: bool,
    picture: Path | None,
) -> None:
    """Find translations: for each line of FILE1 its nearest neighbour in FILE2, and back.

    RUN is a run folder (its best model), RUN@last, RUN@step-N, or a bundle.  FILE1 and FILE2 are
    translations of each other, line by line.
    """
    from xlm_plugins import load
    from xlm_retrieval.measure import Side, chosen_layers
    from xlm_retrieval.nearest import SCORES
    from xlm_retrieval.pairs import read_pairs
    from xlm_retrieval.plot import check_name, plot

    if picture:
        check_name(picture)
    pairs = read_pairs(left, right)
    model = load(run)
    _check_languages(model, {"--from": source, "--to": target})
    chosen = chosen_layers(layers, model.bundle.description.options.n_layers)
    if pairs.n_blank:
        _log.warning("%d line pairs with a blank side are left out", pairs.n_blank)
    sides = Side(source, pairs.left), Side(target, pairs.right)
    embed = partial(model.embed, pool=pool)
    found = _measured(embed, sides, chosen, (score,) if score else SCORES, centre=not no_centre)
    if picture:
        plot(found, (f"{source} to {target}", f"{target} to {source}"), picture)
    if as_json:
        click.echo(json.dumps(_tree(found, sides, pool, centre=not no_centre)))
    else:
        _show(found, sides)


def _check_languages(model: LoadedModel, named: Mapping[str, str]) -> None:
    from xlm_plugins import OptionError

    for flag, language in named.items():
        if language not in model.languages:
            raise OptionError(
                f"{flag} {language}: the model does not know this language",
                expected=f"one of {', '.join(model.languages)}",
            )


def _measured(
    embed: Embed,
    sides: tuple[Side, Side],
    layers: Sequence[int],
    scores: Sequence[str],
    *,
    centre: bool,
) -> list[Accuracy]:
    """Measure everything that is shown, with progress on a terminal."""
    from rich.console import Console

    from xlm_retrieval.measure import accuracies, baselines

    found = baselines(*sides)
    with Console(stderr=True).status("embedding") as status:
        for accuracy in accuracies(embed, *sides, layers, scores, centre=centre):
            found.append(accuracy)
            status.update(f"layer {accuracy.layer} by {accuracy.score} done")
    return found


def _tree(
    found: Sequence[Accuracy], sides: tuple[Side, Side], pool: str, *, centre: bool
) -> dict[str, Any]:
    left, right = (side.language for side in sides)
    rows = [
        {"score": row.score, "layer": row.layer, "from": source, "to": target, "accuracy": share}
        for row in found
        for source, target, share in ((left, right, row.forth), (right, left, row.back))
    ]
    return {"n_pairs": len(sides[0].texts), "pool": pool, "centred": centre, "results": rows}


def _show(found: Sequence[Accuracy], sides: tuple[Side, Side]) -> None:
    from rich.console import Console
    from rich.table import Table

    left, right = (side.language for side in sides)
    table = Table(
        "", "layer", f"{left} to {right}", f"{right} to {left}",
        title=f"Translations found among {len(sides[0].texts):,}", title_justify="left",
        box=None, pad_edge=False,
    )  # fmt: skip
    for row in found:
        layer = "" if row.layer is None else str(row.layer)
        table.add_row(row.score, layer, f"{row.forth:.1f} %", f"{row.back:.1f} %")
    for column in table.columns[1:]:
        column.justify = "right"
    Console().print(table)
