"""Only distributions of the catalogue are ever suggested to pip."""

from __future__ import annotations

from pathlib import Path

import pytest

from xlm_plugins.core.catalogue import distribution_of, how_to_install
from xlm_plugins.core.errors import PluginError
from xlm_plugins.core.plugins import Plugins
from xlm_plugins.core.registry import KINDS, Registry

ROOT = Path(__file__).resolve().parents[2]


def test_it_lists_every_built_in_plugin() -> None:
    components = [c for state in Plugins.discover().states for c in state.components]
    own = {path.parent.name for path in ROOT.glob("plugins/*/*/pyproject.toml")}
    built_in = [c for c in components if c.distribution.removeprefix("xlm-") in own]
    assert {c.kind for c in built_in} == set(KINDS)
    for component in built_in:
        assert distribution_of(component.kind, component.name) == component.distribution
        assert distribution_of(component.kind, component.full_name) == component.distribution


@pytest.mark.parametrize("name", ["tln", "core", "somebody/tlm", "whatever-was-typed"])
def test_a_name_that_is_not_listed_is_never_suggested(name: str) -> None:
    assert distribution_of("objective", name) is None
    with pytest.raises(PluginError) as error:
        Registry().get("objective", name)
    assert "pip" not in str(error.value)


def test_a_listed_name_is_suggested() -> None:
    with pytest.raises(PluginError, match="pip install xlm-tlm"):
        Registry().get("objective", "tlm")


def test_what_a_model_names_is_installed_only_if_listed_or_installed() -> None:
    assert how_to_install("xlm-pkm 0.1.0") == "pip install 'xlm-pkm==0.1.0'"
    assert how_to_install("xlm-own 2.0", "xlm-own") == "pip install 'xlm-own==2.0'"
    assert "pip" not in how_to_install("xlm-pkm2 0.1.0")
    assert "xlm-pkm2 0.1.0 from a source that you trust" in how_to_install("xlm-pkm2 0.1.0")
