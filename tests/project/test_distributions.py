"""What all distributions share: one version, and requirements that are tested at both ends."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import distributions
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
    "twine",
    "zizmor",
}
"""What only `make` needs: of the pinned version, so that no range is promised."""


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
        if name not in TOOLS | {"torch"} and not name.startswith("xlm-"):
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


def test_the_address_of_the_repository_stands_in_one_place() -> None:
    address = CORE["urls"]["Source"]
    assert CORE["urls"] == {"Source": address}
    assert not any("urls" in project for project in PLUGINS)
    command = ("git", "grep", "--fixed-strings", "--count", address)
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert found == "pyproject.toml:1\n"


@pytest.mark.parametrize(
    ("tag", "source", "problem"),
    [
        ("v0.2.0", "https://host.org/xlm-plugins", None),
        ("v0.2.1", "https://host.org/xlm-plugins", "set_version.py 0.2.1, or push v0.2.0"),
        ("0.2.0", "https://host.org/xlm-plugins", "or push v0.2.0"),
        ("v0.2.0", "https://example.invalid/x", "hint: put the address of the public repository"),
    ],
)
def test_a_release_needs_a_real_address_and_the_tag_of_its_version(
    tag: str, source: str, problem: str | None
) -> None:
    core = {"version": "0.2.0", "urls": {"Source": source}}
    with contextlib.nullcontext() if problem is None else pytest.raises(SystemExit, match=problem):
        distributions.refuse(tag, core)


def test_a_refused_release_builds_nothing(tmp_path: Path) -> None:
    (tmp_path / "built before").touch()
    tool = (sys.executable, ROOT / "tools" / "distributions.py", "--out", tmp_path)
    done = subprocess.run((*tool, "--release", "v999.0"), capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("error: the tag v999.0 is not v and the version, ")
    assert [path.name for path in tmp_path.iterdir()] == ["built before"]


def test_the_release_workflow_asks_whether_it_may() -> None:
    text = (ROOT / ".github" / "workflows" / "release.yml").read_text(encoding="utf-8")
    assert 'run: make dist TAG="$GITHUB_REF_NAME"\n' in text
    assert "$(TAG:%=--release %)" in (ROOT / "Makefile").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["tests", "release"])
def test_a_workflow_runs_what_there_is(name: str) -> None:
    text = (ROOT / ".github" / "workflows" / f"{name}.yml").read_text(encoding="utf-8")
    targets = re.findall(r"^(\S+):(?!=)", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
    called = {
        word
        for words in re.findall(r"run: make (.*)", text)
        for word in words.split()
        if "=" not in word
    }
    assert called
    assert called <= set(targets)


def test_every_python_that_is_promised_is_tested() -> None:
    text = (ROOT / ".github" / "workflows" / "tests.yml").read_text(encoding="utf-8")
    classifiers = [text.rpartition(" :: ")[2] for text in CORE["classifiers"]]
    promised = [version for version in classifiers if version.startswith("3.")]
    assert f"python: {promised}".replace("'", '"') in text
    assert f">={promised[0]}," in CORE["requires-python"]
