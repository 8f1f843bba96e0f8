"""The fixtures; all of their names begin with ``xlm_``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from xlm_plugins.core.plugins import Plugins
    from xlm_plugins.model.model import Model
    from xlm_plugins.testing.data import TinyData


@pytest.fixture(scope="session")
def xlm_data(tmp_path_factory: pytest.TempPathFactory) -> TinyData:
    """A data set of two languages and their pair, a few hundred sentences.  Do not modify it."""
    from xlm_plugins.testing.data import TinyData

    return TinyData.prepare(tmp_path_factory.mktemp("xlm_data"))


@pytest.fixture
def xlm_model(xlm_data: TinyData) -> Model:
    """A model for `xlm_data`: an encoder with two layers of width 32, without dropout."""
    import torch

    from xlm_plugins.testing.data import tiny_model

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return tiny_model(xlm_data)


@pytest.fixture
def xlm_bare_plugins() -> Plugins:
    """`Plugins` as if none were installed, with the tokenizer of `xlm_data`.

    ``xlm_bare_plugins.registry.add(component)`` adds a component.
    """
    from xlm_plugins.core.plugins import Plugins, new_manager
    from xlm_plugins.core.registry import Registry
    from xlm_plugins.testing import WORDS

    return Plugins(new_manager(), Registry([WORDS]))
