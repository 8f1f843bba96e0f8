"""Components and their look-up by name."""

from __future__ import annotations

import pytest

from xlm_plugins import Component, MaskingOptions, PluginError
from xlm_plugins.core.registry import Registry, with_origin


def component(name: str, kind: str = "objective", distribution: str = "xlm-one") -> Component:
    made = Component(name, "collections:OrderedDict", MaskingOptions)
    return with_origin(made, kind, distribution, "1.2")


def test_a_component_is_found_by_name_and_by_full_name() -> None:
    registry = Registry([component("tlm"), component("mlm")])
    assert registry.get("objective", "tlm").name == "tlm"
    assert registry.get("objective", "xlm-one/mlm").name == "mlm"
    assert [c.name for c in registry.of("objective")] == ["mlm", "tlm"]


def test_kinds_are_apart() -> None:
    registry = Registry([component("x", "objective"), component("x", "layer")])
    assert registry.get("layer", "x").kind == "layer"


def test_two_of_one_name_are_refused_and_full_names_help() -> None:
    registry = Registry([component("tlm"), component("tlm", distribution="xlm-two")])
    with pytest.raises(PluginError) as error:
        registry.get("objective", "tlm")
    for part in ("xlm-one 1.2", "xlm-two 1.2", "xlm-one/tlm", "XLM_DISABLE_PLUGINS=xlm-two"):
        assert part in str(error.value)
    assert registry.get("objective", "xlm-two/tlm").distribution == "xlm-two"


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(PluginError, match="did you mean tlm"):
        Registry([component("tlm"), component("mlm")]).get("objective", "tlmm")


def test_a_missing_plugin_is_answered_with_the_command_that_installs_it() -> None:
    with pytest.raises(PluginError, match="pip install xlm-adapter"):
        Registry().get("layer", "adapter")


def test_the_target_is_imported_when_it_is_asked_for() -> None:
    from collections import OrderedDict

    assert component("x").load() is OrderedDict


def test_a_target_that_cannot_be_imported_names_the_distribution_and_the_cause() -> None:
    broken = with_origin(Component("x", "no_such_module:X"), "layer", "xlm-x", "3.0")
    with pytest.raises(PluginError) as error:
        broken.load()
    assert "xlm-x 3.0" in error.value.problem
    assert "No module named 'no_such_module'" in error.value.problem
    assert isinstance(error.value.__cause__, ModuleNotFoundError)


def test_options_come_checked() -> None:
    assert component("tlm").options_from({"mask-prob": 0.3}).mask_prob == 0.3


def test_a_kind_that_does_not_exist_is_refused() -> None:
    with pytest.raises(TypeError, match="kind"):
        Registry([component("x", "colour")])
