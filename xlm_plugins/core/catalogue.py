"""The catalogue: the default component of a kind, and what messages may suggest to install.

Anyone can register a name on a package index.  A name that a user mistyped, or that a downloaded
model mentions, is therefore never suggested to pip unless ``catalogue.toml`` lists it.
"""

from __future__ import annotations

import tomllib
from functools import cache
from importlib.resources import files
from typing import Any


@cache
def _catalogue() -> dict[str, Any]:
    return tomllib.loads((files("xlm_plugins") / "catalogue.toml").read_text(encoding="utf-8"))


def default_of(kind: str) -> str:
    """The component of a kind that is used where none is named."""
    default: str = _catalogue()["default"][kind]
    return default


def distribution_of(kind: str, name: str) -> str | None:
    """The listed distribution that provides a component; None if there is none.

    :param name: ``tlm``, or ``xlm-tlm/tlm``.
    """
    distribution, _, short = name.rpartition("/")
    found: str | None = _catalogue()["distributions"].get(kind, {}).get(short)
    return found if not distribution or distribution == found else None


def how_to_install(origin: str, installed: str = "") -> str:
    """A hint how to install what a model says it was made with.

    :param origin: a distribution and its version, as the model records them.
    :param installed: a distribution that is installed, in whatever version, and so trusted.
    :returns: a command, or advice if the distribution is neither installed nor listed.
    """
    distribution, _, version = origin.partition(" ")
    listed = _catalogue()["distributions"].values()
    if distribution == installed or any(distribution in kind.values() for kind in listed):
        return f"pip install '{distribution}=={version}'"
    return f"install {origin} from a source that you trust: it is not in the catalogue of plugins"
