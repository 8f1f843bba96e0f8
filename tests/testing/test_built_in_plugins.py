"""Every component of the built-in plugins has a test that checks its contract."""

from __future__ import annotations

from pathlib import Path

import pytest

from xlm_plugins.core.plugins import Plugins

FOLDERS = {
    f"xlm-{path.parent.name}": path.parent
    for path in Path(__file__).parents[2].glob("plugins/*/*/pyproject.toml")
}
"""The project folder of each distribution."""


@pytest.mark.parametrize("distribution", FOLDERS)
def test_the_tests_of_a_plugin_check_each_of_its_components(distribution: str) -> None:
    (state,) = (s for s in Plugins.discover().states if s.distribution == distribution)
    assert state.state == "ok"
    tests = FOLDERS[distribution].glob("tests/test_*.py")
    text = "".join(path.read_text(encoding="utf-8") for path in tests)
    for component in state.components:
        assert f'check_{component.kind}("{component.name}"' in text
