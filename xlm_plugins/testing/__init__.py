"""For plugin authors: fixtures, and checks that a plugin keeps its contract.

pytest finds this by itself if xlm-plugins is installed.  One line checks a component against
everything that its contract promises::

    from xlm_plugins.testing import check_layer

    def test_contract() -> None:
        check_layer("pkm", n_keys=8, knn=4)

The fixtures are ``xlm_data``, ``xlm_model`` and ``xlm_bare_plugins``.  Nothing here is imported
by the rest of `xlm_plugins`, and importing it loads neither torch nor numpy.
"""

from __future__ import annotations

from xlm_plugins import Component, __version__
from xlm_plugins.testing.checks import check_layer, check_objective, check_task, check_tokenizer
from xlm_plugins.testing.fixtures import xlm_bare_plugins, xlm_data, xlm_model
from xlm_plugins.testing.promises import BrokenPromiseError

WORDS = Component(
    "words",
    "xlm_plugins.testing.words:WordTokenizer",
    summary="whole words, for tests",
    kind="tokenizer",
    distribution="xlm-plugins",
    version=__version__,
)
"""A tokenizer that needs no plugin; it is unknown to all commands."""

__all__ = [
    "WORDS",
    "BrokenPromiseError",
    "check_layer",
    "check_objective",
    "check_task",
    "check_tokenizer",
    "xlm_bare_plugins",
    "xlm_data",
    "xlm_model",
]
