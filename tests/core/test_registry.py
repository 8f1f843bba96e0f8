"""Components, looked up by name."""

from __future__ import annotations

import pytest

from xlm_plugins import Component, MaskingOptions, PluginError
from xlm_plugins.config import finetune_settings, settings
from xlm_plugins.core.registry import RESERVED_NAMES, Registry, with_origin


def component(name: str, kind: str = "objective", distribution: str = "xlm-one") -> Component:
    made = Component(name, "collections:OrderedDict", MaskingOptions)
    return with_origin(made, kind, distribution, "1.2")


def test_a_component_is_found_by_name_and_by_full_name() -> None:
    registry = Registry([component("tlm"), component("mlm")])
    assert registry.get("objective", "tlm").name == "tlm"
    assert registry.get("objective", "xlm-one/mlm").name == "mlm"
    assert [c.name for c in registry.of("objective")] == ["mlm", "tlm"]


def test_kinds_are_separate() -> None:
    registry = Registry([component("x", "objective"), component("x", "layer")])
    assert registry.get("layer", "x").kind == "layer"


def test_an_ambiguous_name_is_refused_and_full_names_work() -> None:
    registry = Registry([component("tlm"), component("tlm", distribution="xlm-two")])
    with pytest.raises(PluginError) as error:
        registry.get("objective", "tlm")
    for part in ("xlm-one 1.2", "xlm-two 1.2", "xlm-one/tlm", "XLM_DISABLE_PLUGINS=xlm-two"):
        assert part in str(error.value)
    assert registry.get("objective", "xlm-two/tlm").distribution == "xlm-two"


def test_the_hint_for_an_unknown_name_is_the_nearest() -> None:
    with pytest.raises(PluginError, match="did you mean tlm"):
        Registry([component("tlm"), component("mlm")]).get("objective", "tlmm")


def test_the_hint_for_a_missing_plugin_is_to_install_it() -> None:
    with pytest.raises(PluginError, match="pip install xlm-adapter"):
        Registry().get("layer", "adapter")


def test_the_hint_for_a_full_name_has_its_distribution_if_listed() -> None:
    with pytest.raises(PluginError, match="pip install xlm-adapter"):
        Registry().get("layer", "xlm-adapter/adapter")
    with pytest.raises(PluginError, match="`xlm plugins` lists what is installed"):
        Registry().get("layer", "my-adapters/adapter")


def test_conflicts_are_reported_for_each_and_full_names_work() -> None:
    same = [component("tlm"), component("tlm", distribution="xlm-two")]
    registry = Registry([*same, component("mlm"), component("tlm", "layer")])
    conflicts = [registry.conflict(one) for one in registry.of("objective")]
    assert conflicts[0] is None
    assert [fault.cause for fault in conflicts[1:] if fault] == [
        "the objective 'tlm' is also provided by xlm-two 1.2",
        "the objective 'tlm' is also provided by xlm-one 1.2",
    ]
    assert all("xlm-one/tlm or xlm-two/tlm" in fault.remedy for fault in conflicts[1:] if fault)
    (layer,) = registry.of("layer")
    assert registry.conflict(layer) is None


@pytest.mark.parametrize("name", RESERVED_NAMES)
def test_the_name_of_a_core_section_is_a_conflict(name: str) -> None:
    one = component(name)
    fault = Registry([one]).conflict(one)
    assert fault is not None
    assert f"[{name}]" in fault.cause
    assert f"--objective xlm-one/{name}" in fault.remedy


def test_reserved_names_are_the_core_sections() -> None:
    sections = {*settings.CORE_SECTIONS, *finetune_settings.CORE_SECTIONS}
    assert sections == set(RESERVED_NAMES)


def test_the_target_is_imported_on_demand() -> None:
    from xlm_plugins import Layer

    made = Component("x", "xlm_plugins:Layer", kind="layer")
    assert made.load() is Layer


@pytest.mark.parametrize(
    ("target", "cause", "remedy"),
    [
        ("no_such_module:X", "own module 'no_such_module' is missing", "--force-reinstall xlm-x"),
        ("xlm_plugins.contracts.layer:Layre", "layer has no Layre", "did you mean Layer"),
        ("xlm_plugins:option", "option is not a subclass of Layer", "xlm_plugins.Layer"),
        ("xlm_plugins:Tokenizer", "Tokenizer is not a subclass of Layer", "derive it"),
    ],
)
def test_a_target_that_cannot_be_loaded_names_the_distribution_and_the_cause(
    target: str, cause: str, remedy: str
) -> None:
    broken = with_origin(Component("x", target), "layer", "xlm-x", "3.0")
    with pytest.raises(PluginError) as error:
        broken.load()
    assert f"layer 'x' of xlm-x 3.0 cannot be loaded from '{target}'" in error.value.problem
    assert cause in error.value.problem
    assert remedy in error.value.remedy
    assert error.value.__cause__ is not None


def test_options_are_checked() -> None:
    assert component("tlm").options_from({"mask-prob": 0.3}).mask_prob == 0.3


def test_a_kind_that_does_not_exist_is_refused() -> None:
    with pytest.raises(TypeError, match="kind"):
        Registry([component("x", "colour")])
