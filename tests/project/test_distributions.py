"""What all distributions share: one version, and requirements that are tested at both ends."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import set_version
from packaging.requirements import Requirement
from packaging.version import Version

import xlm_plugins

ROOT = Path(__file__).resolve().parents[2]
CORE, *PLUGINS = (
    tomllib.loads(path.read_text(encoding="utf-8"))["project"]
    for path in (ROOT / "pyproject.toml", *sorted(ROOT.glob("plugins/*/*/pyproject.toml")))
)
ALL = [CORE, *PLUGINS]
MINOR = ".".join(CORE["version"].split(".")[:2])
OF_THIS_MINOR = f">={MINOR},<0.{int(MINOR.split('.')[1]) + 1}"
"""What our distributions require of each other while the major version is 0."""

TOOLS = {
    "build",
    "mypy",
    "pytest",
    "pytest-xdist",
    "ruff",
    "scikit-learn",
    "scipy",
    "setuptools",
    "subword-nmt",
}
"""What only `make` needs, besides twine: of the pinned version, so that no range is promised."""


def requirements(project: dict[str, Any]) -> Iterator[Requirement]:
    extras = project.get("optional-dependencies", {})
    for text in (*project["dependencies"], *(text for some in extras.values() for text in some)):
        yield Requirement(text)


def pins(name: str) -> dict[str, Version]:
    lines = re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / name).read_text(encoding="utf-8"), re.M)
    return {canonical(name): Version(version) for name, version in lines}


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_every_distribution_has_one_version() -> None:
    assert {project["version"] for project in ALL} == {xlm_plugins.__version__}


@pytest.mark.parametrize("project", PLUGINS, ids=lambda project: project["name"])
def test_a_plugin_is_like_the_core_where_it_matters(project: dict[str, Any]) -> None:
    assert project["requires-python"] == CORE["requires-python"]
    assert project["license"] == CORE["license"]
    assert f"xlm-plugins{OF_THIS_MINOR}" in project["dependencies"]


def test_the_extra_all_names_every_plugin() -> None:
    named = CORE["optional-dependencies"]["all"]
    assert named == sorted(f"{project['name']}{OF_THIS_MINOR}" for project in PLUGINS)


def test_the_lower_end_of_every_requirement_is_tested() -> None:
    lowest: dict[str, Version] = {}
    for requirement in (one for project in ALL for one in requirements(project)):
        name = canonical(requirement.name)
        ends = [s.version for s in requirement.specifier if s.operator == ">="]
        assert not {s.operator for s in requirement.specifier} & {"==", "==="}, requirement
        if name not in TOOLS | {"torch", "twine"} and not name.startswith("xlm-"):
            lowest[name] = max([*map(Version, ends), *filter(None, [lowest.get(name)])])
    optional = {"fugashi", "pythainlp", "rjieba", "unidic-lite"}  # segmenters of single languages
    assert {name: end for name, end in lowest.items() if name not in optional} == pins(
        "constraints-lowest.txt"
    )


def test_the_upper_end_is_what_is_pinned() -> None:
    pinned = pins("constraints.txt")
    for requirement in (one for project in ALL for one in requirements(project)):
        version = pinned.get(canonical(requirement.name))
        assert version is None or requirement.specifier.contains(version), requirement


def test_a_cpu_build_of_torch_is_as_good_as_any() -> None:
    for requirement in (one for project in ALL for one in requirements(project)):
        if requirement.name == "torch":
            for version in ("2.10.0+cpu", "2.13.0+cpu", "2.14.1+cpu"):
                assert requirement.specifier.contains(version)


def test_one_command_sets_every_version() -> None:
    old = 'version = "0.1.0"\n["xlm-pkm>=0.1,<0.2", "torch>=2.10"]\n__version__ = "0.1.0"\n'
    new = 'version = "0.12.3"\n["xlm-pkm>=0.12,<0.13", "torch>=2.10"]\n__version__ = "0.12.3"\n'
    assert set_version.with_version(old, "0.12.3") == new


@pytest.mark.parametrize("name", ["tests", "release"])
def test_a_workflow_runs_what_there_is(name: str) -> None:
    text = (ROOT / ".github" / "workflows" / f"{name}.yml").read_text(encoding="utf-8")
    targets = re.findall(r"^(\S+):(?!=)", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
    called = {
        target for targets in re.findall(r"run: make (.*)", text) for target in targets.split()
    }
    assert called
    assert called <= set(targets)


def test_every_python_that_is_promised_is_tested() -> None:
    text = (ROOT / ".github" / "workflows" / "tests.yml").read_text(encoding="utf-8")
    classifiers = [text.rpartition(" :: ")[2] for text in CORE["classifiers"]]
    promised = [version for version in classifiers if version.startswith("3.")]
    assert f"python: {promised}".replace("'", '"') in text
    assert f">={promised[0]}," in CORE["requires-python"]
