"""The code's own rules, held by reading it: who imports whom, how long things are, what is light.

docs/architecture.md gives the reasons.
"""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import xlm_plugins

ROOT = Path(__file__).resolve().parents[1]
CORE = ROOT / "xlm_plugins"
PLUGINS = ROOT / "plugins"

MAY_IMPORT = {
    "core": {"core"},
    "model": {"model", "core"},
    "data": {"data", "core"},
    "training": {"training", "data", "model", "core"},
    "interop": {"interop", "model", "core"},
}
"""Sub-package -> those of `xlm_plugins` that it may import; those not named here may all."""

LIGHT = (
    "__init__.py",
    "*/config.py",
    "cli/*.py",
    "core/admission.py",
    "core/errors.py",
    "core/faults.py",
    "core/hookspecs.py",
    "core/made_with.py",
    "core/masking_options.py",
    "core/options.py",
    "core/plugins.py",
    "core/registry.py",
    "core/selection.py",
    "testing/__init__.py",
    "testing/checks.py",
    "testing/fixtures.py",
    "testing/promises.py",
    "training/origins.py",
    "training/settings.py",
)
"""Modules that must not import torch or numpy when they are imported."""

HEAVY = {"torch", "numpy", "deepspeed", "matplotlib"}
FILE_LINES = 400
FUNCTION_LINES = 40


class Source:
    """One Python file: its name as a module and what it imports."""

    def __init__(self, path: str, text: str) -> None:
        self.path = path
        self.n_lines = text.count("\n")
        self.tree = ast.parse(text)

    def imports(self, *, at_import_time: bool = False) -> set[str]:
        """Dotted names imported; ``from a import b`` gives ``a.b``.  Never those for types only.

        :param at_import_time: leave out what functions import when they are called.
        """
        return set(_imports(self.tree, at_import_time))

    def functions(self) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
        for node in ast.walk(self.tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield node


def _imports(node: ast.AST, at_import_time: bool) -> Iterator[str]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            module = "." * child.level + (child.module or "")
            yield from (f"{module}.{alias.name}" for alias in child.names)
        elif not _skipped(child, at_import_time):
            yield from _imports(child, at_import_time)


def _skipped(node: ast.AST, at_import_time: bool) -> bool:
    if isinstance(node, ast.If):
        return ast.unparse(node.test) == "TYPE_CHECKING"
    return at_import_time and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)


def sources(folder: Path, pattern: str = "**/*.py") -> list[Source]:
    found = sorted(folder.glob(pattern))
    return [Source(path.relative_to(ROOT).as_posix(), path.read_text("utf-8")) for path in found]


def faults_of_arrows(source: Source) -> list[str]:
    """Imports of `xlm_plugins` by itself that run against the arrows, or are relative."""
    owner = source.path.split("/")[1]
    faults = [f"{source.path}: relative import" for name in source.imports() if name[0] == "."]
    for name in source.imports():
        package, target = (name + ".").split(".")[:2]
        if package != "xlm_plugins" or not target or not (CORE / target).is_dir():
            continue
        if target not in MAY_IMPORT.get(owner, {target}):
            faults.append(f"{source.path} imports {name}")
    return faults


def faults_of_plugin(source: Source, packages: set[str]) -> list[str]:
    """Imports of a plugin beyond public names of `xlm_plugins` and its own package."""
    own = source.path.split("/")[4]
    faults = []
    for name in source.imports():
        package, _, rest = name.partition(".")
        private = package == "xlm_plugins" and rest not in xlm_plugins.__all__
        if private or not package or package in packages - {own}:
            faults.append(f"{source.path} imports {name}")
    return faults


def faults_of_length(source: Source) -> list[str]:
    """Files and functions that are too long; a docstring does not count, it is the interface."""
    faults = [f"{source.path}: {source.n_lines} lines"] if source.n_lines >= FILE_LINES else []
    for function in source.functions():
        first = function.body[0]
        documented = ast.get_docstring(function) is not None
        n_documented = (first.end_lineno or 0) - first.lineno + 1 if documented else 0
        n_lines = (function.end_lineno or 0) - function.lineno + 1 - n_documented
        if n_lines >= FUNCTION_LINES:
            faults.append(f"{source.path}: {function.name} has {n_lines} lines")
    return faults


def faults_of_weight(source: Source) -> list[str]:
    """Heavy imports of a module that must be light."""
    names = source.imports(at_import_time=True)
    return [f"{source.path} imports {name}" for name in names if name.split(".")[0] in HEAVY]


def plugin_sources() -> tuple[list[Source], set[str]]:
    packages = {path.name for path in PLUGINS.glob("*/*/src/*") if path.is_dir()}
    packages = {name for name in packages if not name.endswith(".egg-info")}
    return sources(PLUGINS, "*/*/src/**/*.py"), packages


def test_the_arrows_of_the_core_run_one_way() -> None:
    assert [fault for source in sources(CORE) for fault in faults_of_arrows(source)] == []


def test_only_tests_import_the_testing_of_plugins() -> None:
    users = {
        source.path
        for source in [*sources(CORE), *plugin_sources()[0]]
        if any(name.startswith("xlm_plugins.testing") for name in source.imports())
    }
    assert {path.split("/")[1] for path in users} == {"testing"}


def test_plugins_use_public_names_only_and_not_each_other() -> None:
    found, packages = plugin_sources()
    assert found
    assert [fault for source in found for fault in faults_of_plugin(source, packages)] == []


def test_one_file_imports_deepspeed() -> None:
    users = {
        source.path
        for source in [*sources(CORE), *plugin_sources()[0]]
        if any(name.split(".")[0] == "deepspeed" for name in source.imports())
    }
    assert users == {"xlm_plugins/training/deepspeed_engine.py"}


def test_files_and_functions_are_short() -> None:
    every = [*sources(CORE), *sources(PLUGINS), *sources(ROOT / "tests")]
    every += sources(ROOT / "benchmarks")
    assert [fault for source in every for fault in faults_of_length(source)] == []


def test_nothing_is_called_utils() -> None:
    paths = [path for folder in (CORE, PLUGINS) for path in folder.rglob("util*.py")]
    assert paths == []


def test_light_modules_import_nothing_heavy() -> None:
    light = [source for pattern in LIGHT for source in sources(CORE, pattern)]
    assert len(light) > len(LIGHT)
    assert [fault for source in light for fault in faults_of_weight(source)] == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["plugins"],
        ["train", "--objective", "tlm", "--layer", "pkm", "--help"],
        ["prepare", "--help"],
    ],
    ids=" ".join,
)
def test_help_is_light(arguments: list[str]) -> None:
    program = (
        "import json, sys; from xlm_plugins.cli.main import main; status = main(sys.argv[1:]); "
        "print(json.dumps([status, sorted({name.partition('.')[0] for name in sys.modules})]))"
    )
    command = [sys.executable, "-c", program, *arguments]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    status, modules = json.loads(shown.stdout.splitlines()[-1])
    assert status == 0, shown.stderr
    assert HEAVY.isdisjoint(modules)


def test_importing_the_package_is_light() -> None:
    program = "import sys, xlm_plugins; print(*sys.modules)"
    command = [sys.executable, "-c", program]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert HEAVY.isdisjoint(shown.stdout.split())


def test_every_public_name_exists() -> None:
    missing = [name for name in xlm_plugins.__all__ if not hasattr(xlm_plugins, name)]
    assert missing == []


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("xlm_plugins/core/x.py", "from xlm_plugins.model import root"),
        ("xlm_plugins/data/x.py", "import xlm_plugins.model.root"),
        ("xlm_plugins/model/x.py", "def f():\n    from xlm_plugins.data.loader import load"),
        ("xlm_plugins/training/x.py", "from xlm_plugins.cli.main import main"),
        ("xlm_plugins/training/x.py", "from . import y"),
    ],
)
def test_the_check_of_arrows_finds_faults(path: str, text: str) -> None:
    assert len(faults_of_arrows(Source(path, text))) == 1
    allowed = f"from __future__ import annotations\nif TYPE_CHECKING:\n    {text.splitlines()[-1]}"
    assert faults_of_arrows(Source(path, allowed)) == []


@pytest.mark.parametrize(
    ("text", "n_faults"),
    [
        ("from xlm_plugins import Layer, hookimpl\nfrom xlm_a.x import y", 0),
        ("from xlm_plugins.core.batch import Batch", 1),
        ("import xlm_plugins", 1),
        ("from xlm_plugins import core", 1),
        ("def f():\n    import xlm_b.inner", 1),
        ("from .y import z", 1),
    ],
)
def test_the_check_of_plugins_finds_faults(text: str, n_faults: int) -> None:
    source = Source("plugins/layers/a/src/xlm_a/x.py", text)
    assert len(faults_of_plugin(source, {"xlm_a", "xlm_b"})) == n_faults


def test_the_check_of_lengths_finds_faults() -> None:
    body = "    x = 1\n"
    long = Source("x.py", "def f():\n" + body * (FUNCTION_LINES - 1))
    assert faults_of_length(long) == ["x.py: f has 40 lines"]
    documented = 'def f():\n    """Say\n    more."""\n' + body * (FUNCTION_LINES - 2)
    assert faults_of_length(Source("x.py", documented)) == []
    assert faults_of_length(Source("x.py", "x = 1\n" * FILE_LINES)) == ["x.py: 400 lines"]


def test_the_check_of_weight_finds_faults() -> None:
    text = "import numpy as np\nfrom torch import nn\nclass A:\n    import deepspeed"
    assert len(faults_of_weight(Source("x.py", text))) == 3
    assert faults_of_weight(Source("x.py", "def f():\n    import torch")) == []
