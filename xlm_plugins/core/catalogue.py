"""The catalogue of distributions that messages may suggest to install.

Anyone can register a name on a package index.  A name that a user mistyped, or that a downloaded
model mentions, is therefore never suggested to pip unless ``catalogue.toml`` lists it.
"""

from __future__ import annotations

import tomllib
from functools import cache
from importlib.resources import files


@cache
def _catalogue() -> dict[str, dict[str, str]]:
    return tomllib.loads((files("xlm_plugins") / "catalogue.toml").read_text(encoding="utf-8"))


def distribution_of(kind: str, name: str) -> str | None:
    """The listed distribution that provides a component; None if there is none.

    :param name: ``tlm``, or ``xlm-tlm/tlm``.
    """
    distribution, _, short = name.rpartition("/")
    found = _catalogue().get(kind, {}).get(short)
    return found if not distribution or distribution == found else None


def how_to_install(origin: str, installed: str = "") -> str:
    """A hint how to install what a model says it was made with.

    :param origin: a distribution and its version, as the model records them.
    :param installed: a distribution that is installed, in whatever version, and so trusted.
    :returns: a command, or advice if the distribution is neither installed nor listed.
    """
    distribution, _, version = origin.partition(" ")
    if distribution == installed or any(distribution in n.values() for n in _catalogue().values()):
        return f"pip install '{distribution}=={version}'"
    return f"install {origin} from a source that you trust: it is not in the catalogue of plugins"
