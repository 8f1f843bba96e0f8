"""A plot of the accuracy by layer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from xlm_plugins import OptionError
from xlm_retrieval.measure import Accuracy

FORMATS = (".png", ".pdf", ".svg")


def check_name(out: Path) -> None:
    """Refuse a file whose name has no known image format.

    :raises OptionError: another suffix.
    """
    if out.suffix not in FORMATS:
        raise OptionError(
            f"{out} has no known image format",
            expected=f"a name that ends in {', '.join(FORMATS)}",
        )


def plot(found: Sequence[Accuracy], titles: tuple[str, str], out: Path) -> None:
    """Draw one panel per direction: a curve for each score, and the baselines as lines.

    :param titles: of the panels: forth and back.
    """
    import matplotlib as mpl

    mpl.use("agg")
    import matplotlib.pyplot as plt
    from matplotlib.ticker import MaxNLocator

    figure, panels = plt.subplots(1, 2, figsize=(11, 4.5), sharey=True, layout="constrained")
    for axes, title, way in zip(panels, titles, ("forth", "back"), strict=True):
        for score in dict.fromkeys(accuracy.score for accuracy in found):
            rows = [accuracy for accuracy in found if accuracy.score == score]
            shares = [getattr(row, way) for row in rows]
            layers = [row.layer for row in rows if row.layer is not None]
            if layers:
                order = sorted(range(len(rows)), key=layers.__getitem__)
                at, heights = ([of[i] for i in order] for of in (layers, shares))
                axes.plot(at, heights, label=score, marker="o", markersize=4, linewidth=1.3)
            else:
                style = ":" if score == "chance" else "--"
                axes.axhline(*shares, label=score, color="grey", linestyle=style, linewidth=1)
        axes.set(title=title, xlabel="layer")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("translations found, in percent")
    panels[0].set_ylim(bottom=0)
    panels[1].legend(fontsize=8, frameon=False)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=120)
    plt.close(figure)
