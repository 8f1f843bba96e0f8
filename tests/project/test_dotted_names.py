"""Modules, classes and functions named by their dotted path exist, in code as in documents."""

from __future__ import annotations

import pkgutil
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TEMPLATE = ROOT / "xlm_plugins" / "template"  # whose names are filled in


def dangling(text: str) -> set[str]:
    """The dotted names below ``xlm_plugins`` in a text that cannot be resolved."""
    gone = set()
    for name in set(re.findall(r"(?<![\w/.-])xlm_plugins(?:\.[A-Za-z_]\w*)+", text)):
        try:
            pkgutil.resolve_name(name)
        except (ImportError, AttributeError):
            gone.add(name)
    return gone


@pytest.mark.parametrize("folder", ["xlm_plugins", "plugins", "benchmarks", "docs", "recipes"])
def test_dotted_names_can_be_resolved(folder: str) -> None:
    paths = [p for p in (ROOT / folder).rglob("*") if p.suffix in {".py", ".md", ".toml", ".ipynb"}]
    assert paths
    gone = {
        f"{path.relative_to(ROOT)}: {name}"
        for path in paths
        if TEMPLATE not in path.parents
        for name in dangling(path.read_text(encoding="utf-8"))
    }
    assert gone == set()


def test_the_check_finds_what_is_gone() -> None:
    text = "`xlm_plugins.core.errors.XLMError`, xlm_plugins.core.gone. and xlm_plugins.load.gone"
    assert dangling(text) == {"xlm_plugins.core.gone", "xlm_plugins.load.gone"}
    assert dangling("examples/xlm_plugins.py, other.xlm_plugins.gone") == set()
