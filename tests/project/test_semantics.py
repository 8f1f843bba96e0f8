"""docs/semantics.md and docs/glossary.md: defaults are the code's, files and sections exist.

Other pages are held to the files that they name, too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from xlm_plugins.config.model import GenerationOptions, ModelOptions
from xlm_plugins.config.training import (
    FinetuneOptimizerOptions,
    FinetuneOptions,
    OptimizerOptions,
    TrainOptions,
)
from xlm_plugins.core.options import fields_of
from xlm_plugins.core.plugins import Plugins

ROOT = Path(__file__).resolve().parents[2]
SEMANTICS = (ROOT / "docs" / "semantics.md").read_text(encoding="utf-8")
GLOSSARY = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
FINETUNING = SEMANTICS.index("### 8.3 Fine-tuning")
STATED = re.compile(r"--([a-z][\w.-]*)`? \(([\w.+:-]+)")
PLACES = [ROOT, ROOT / "xlm_plugins", *ROOT.glob("plugins/*/*/src")]


def defaults(*options: type, prefix: str = "") -> dict[str, Any]:
    """The default of every option, by flag; of an option that two have, the last one's."""
    return {f"{prefix}{field.key}": field.default for kind in options for field in fields_of(kind)}


def stated() -> Iterator[tuple[str, str, bool]]:
    """Flag, default, and whether it is one of `xlm finetune`, of every default on the page."""
    for match in STATED.finditer(SEMANTICS):
        yield match[1], match[2].rstrip(":"), match.start() > FINETUNING


def in_words(default: Any) -> str:
    """A default as the page writes it."""
    if isinstance(default, bool):
        return "on" if default else "off"
    return str(default)


def test_defaults_are_those_of_the_code() -> None:
    pretraining = defaults(ModelOptions, OptimizerOptions, TrainOptions)
    pretraining |= defaults(GenerationOptions, prefix="generation.")
    for kind in ("objective", "layer"):
        for component in Plugins.discover().registry.of(kind):
            pretraining |= defaults(component.options, prefix=f"{component.name}.")
    finetuning = defaults(FinetuneOptimizerOptions, FinetuneOptions)
    found = list(stated())
    assert len(found) > 50
    for flag, value, is_finetuning in found:
        default = (finetuning if is_finetuning else pretraining)[flag]
        is_number = isinstance(default, int | float) and not isinstance(default, bool)
        assert float(value) == default if is_number else value == in_words(default), flag


def files(text: str) -> set[str]:
    """The modules and folders that a page names between backticks."""
    return set(re.findall(r"`((?:[\w-]+/)*[\w-]+\.py|(?:[\w-]+/)+|plugins/[\w/-]+)`", text))


@pytest.mark.parametrize("text", [SEMANTICS, GLOSSARY], ids=["semantics", "glossary"])
def test_files_exist(text: str) -> None:
    found = files(text)
    assert len(found) > 15
    assert [name for name in sorted(found) if not any((p / name).exists() for p in PLACES)] == []


PAGES = [*ROOT.glob("docs/[cmr]*.md"), ROOT / "recipes/README.md", *ROOT.glob("plugins/*/*/*.md")]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_named_from_the_root_exist(page: Path) -> None:
    named = r"(?:tests|benchmarks|xlm_plugins)/[\w/.-]*\w"
    for path in re.findall(rf"(?<![\w/]){named}", page.read_text(encoding="utf-8")):
        assert (ROOT / path).exists(), path


def test_docstrings_cite_sections_that_exist() -> None:
    sections = set(re.findall(r"^##+ ([\d.]+) ", SEMANTICS, re.M))
    cited = set()
    for path in {*ROOT.glob("[!.]*/**/*.py")} - {Path(__file__)}:
        text = path.read_text(encoding="utf-8")
        cited |= set(re.findall(r"docs/semantics\.md,\s+([\d.]*\d)", text))
        # Papers of the project's beginnings, which are not in the repository.
        assert not re.search(r"SEMANTICS|DESIGN \d|PERFORMANCE", text), path
    assert cited
    assert cited <= sections
