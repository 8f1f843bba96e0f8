"""The code's own rules, held by reading it: who imports whom, how long things are, what is light.

docs/architecture.md gives the reasons.
"""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import xlm_plugins

ROOT = Path(__file__).resolve().parents[2]
CORE = ROOT / "xlm_plugins"
PLUGINS = ROOT / "plugins"

BELOW = {
    "core": "",
    "contracts": "core",
    "runs": "core",
    "config": "core runs",
    "data": "core contracts",
    "model": "core contracts config runs",
    "inference": "core contracts config runs model",
    "interop": "core contracts config runs model inference",
    "training": "core contracts config runs data model inference",
    "testing": "core contracts config data model cli",
    "cli": "core config runs data model inference interop training",
}
"""Folder of `xlm_plugins` -> the folders that it may import from, besides itself."""

ROOMS = {
    "data": "prepare dataset batches",
    "model": "nn generation",
    "interop": "xlm huggingface",
    "training": "engines optim distributed warm_start pretraining finetuning",
}
"""Folder -> its sub-folders, which import each other and the folder's own files without circles."""

LIGHT = ("core", "config", "runs", "cli")
"""Folders whose modules load neither torch nor numpy when they are imported."""

LIGHT_MODULES = (
    "xlm_plugins",
    "xlm_plugins.testing",
    "xlm_plugins.testing.checks",
    "xlm_plugins.testing.fixtures",
    "xlm_plugins.testing.promises",
)
HEAVY = {"torch", "numpy", "deepspeed", "matplotlib"}
FILE_LINES = 400
FUNCTION_LINES = 40
FOLDER_FILES = 15
ANY_NUMBER = {"cli", "testing"}
"""Folders with one file for each command, and for each promise of the contract."""


class Source:
    """One Python file: its name as a module and what it imports."""

    def __init__(self, path: str, text: str) -> None:
        self.path = path
        self.n_lines = text.count("\n")
        self.tree = ast.parse(text)

    def imports(self) -> set[str]:
        """Dotted names imported; ``from a import b`` gives ``a.b``.  Never those for types only."""
        return set(_imports(self.tree))

    def functions(self) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
        for node in ast.walk(self.tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield node


def _imports(node: ast.AST) -> Iterator[str]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            module = "." * child.level + (child.module or "")
            yield from (f"{module}.{alias.name}" for alias in child.names)
        elif not (isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"):
            yield from _imports(child)


def sources(folder: Path, pattern: str = "**/*.py") -> list[Source]:
    """The files that a pattern finds; one that finds nothing would hold nothing to any rule."""
    found = sorted(folder.glob(pattern))
    assert found, f"there is no {pattern} in {folder}"
    return [Source(path.relative_to(ROOT).as_posix(), path.read_text("utf-8")) for path in found]


def folders_of_the_core() -> set[str]:
    """Every folder with code below `xlm_plugins`, such as ``data/batches``."""
    paths = {path.parent.relative_to(CORE).as_posix() for path in CORE.rglob("*.py")}
    return {path for path in paths if path.partition("/")[0] != "template"} - {"."}


def room_of(module: str) -> str:
    """The folder that a module of `xlm_plugins` lies in: ``data/batches``; nothing for the top."""
    folder, room = [*module.split("."), "", ""][1:3]
    if room in ROOMS.get(folder, "").split():
        return f"{folder}/{room}"
    return folder if folder in BELOW else ""


def rooms_imported(source: Source) -> tuple[str, set[str]]:
    """The folder of a file, and those that it imports from."""
    found = {room_of(name) for name in source.imports() if name.startswith("xlm_plugins.")}
    return room_of(source.path.removesuffix(".py").replace("/", ".")), found - {""}


def faults_of_arrows(source: Source) -> list[str]:
    """Imports of `xlm_plugins` by itself that run against the arrows, or are relative."""
    faults = [f"{source.path}: relative import" for name in source.imports() if name[0] == "."]
    room, imported = rooms_imported(source)
    owner = room.partition("/")[0]
    if not owner:
        return faults
    allowed = {owner, *BELOW[owner].split()}
    faults += [f"{source.path} imports {n}" for n in imported if n.partition("/")[0] not in allowed]
    return faults


def circle_of_rooms(folder: str, found: list[Source]) -> list[str]:
    """A circle of imports among a folder's sub-folders and its own files, if there is one."""
    graph: dict[str, set[str]] = {}
    for source in found:
        room, imported = rooms_imported(source)
        if room.partition("/")[0] == folder:
            inside = {name for name in imported if name.partition("/")[0] == folder}
            graph.setdefault(room, set()).update(inside - {room})
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


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


def plugin_sources() -> tuple[list[Source], set[str]]:
    packages = {path.name for path in PLUGINS.glob("*/*/src/*") if path.is_dir()}
    packages = {name for name in packages if not name.endswith(".egg-info")}
    return sources(PLUGINS, "*/*/src/**/*.py"), packages


def test_every_folder_is_known() -> None:
    known = {*BELOW, *(f"{folder}/{room}" for folder in ROOMS for room in ROOMS[folder].split())}
    assert folders_of_the_core() == known
    undocumented = [
        name
        for name in known
        if not ast.get_docstring(ast.parse((CORE / name / "__init__.py").read_text()))
    ]
    assert undocumented == []


def test_folders_are_small_enough_to_be_read() -> None:
    sizes = {name: len(sources(CORE / name, "*.py")) for name in folders_of_the_core()}
    assert [name for name, n in sizes.items() if n > FOLDER_FILES and name not in ANY_NUMBER] == []


def test_the_arrows_of_the_core_run_one_way() -> None:
    assert [fault for source in sources(CORE) for fault in faults_of_arrows(source)] == []


@pytest.mark.parametrize("folder", ROOMS)
def test_sub_folders_import_each_other_without_circles(folder: str) -> None:
    assert circle_of_rooms(folder, sources(CORE / folder)) == []


def test_the_document_has_every_folder_and_arrow() -> None:
    document = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    tree = re.search(r"^xlm_plugins/\n((?:  .*\n)+)", document, re.M)
    assert tree
    folders, owner = set(), ""
    for indent, name in re.findall(r"^( +)(\w+)/  ", tree[1], re.M):
        owner = name if len(indent) == 2 else owner
        folders.add(name if owner == name else f"{owner}/{name}")
    assert folders == {*folders_of_the_core(), "template"}
    rows = re.findall(r"^\| `(\w+)` \| (.*) \|$", document, re.M)
    assert {name: cell.replace("`", "") for name, cell in rows} == {
        name: below or "nothing" for name, below in BELOW.items()
    }


def test_only_tests_import_the_testing_of_plugins() -> None:
    users = {
        source.path
        for source in [*sources(CORE), *plugin_sources()[0]]
        if any(name.startswith("xlm_plugins.testing") for name in source.imports())
    }
    assert {path.split("/")[1] for path in users} == {"testing"}


def test_plugins_use_public_names_only_and_not_each_other() -> None:
    found, packages = plugin_sources()
    assert [fault for source in found for fault in faults_of_plugin(source, packages)] == []


def test_one_file_imports_deepspeed() -> None:
    users = {
        source.path
        for source in [*sources(CORE), *plugin_sources()[0]]
        if any(name.split(".")[0] == "deepspeed" for name in source.imports())
    }
    assert users == {"xlm_plugins/training/engines/deepspeed_engine.py"}


def test_files_and_functions_are_short() -> None:
    folders = (CORE, PLUGINS, *(ROOT / name for name in ("tests", "benchmarks", "tools")))
    every = (source for folder in folders for source in sources(folder))
    assert [fault for source in every for fault in faults_of_length(source)] == []


def test_nothing_is_called_utils() -> None:
    paths = [path for folder in (CORE, PLUGINS) for path in folder.rglob("util*.py")]
    assert paths == []


def test_light_modules_load_nothing_heavy() -> None:
    paths = [CORE.parent / source.path for name in LIGHT for source in sources(CORE / name)]
    modules = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in paths]
    program = (
        "import importlib, sys\n"
        f"heavy = {HEAVY!r}\n"
        f"for name in {[*LIGHT_MODULES, *modules]!r}:\n"
        "    importlib.import_module(name)\n"
        "    if found := heavy & set(sys.modules):\n"
        "        sys.exit(f'{name} loads {found}')\n"
    )
    command = [sys.executable, "-c", program]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (shown.returncode, shown.stderr) == (0, "")


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


def test_every_public_name_exists() -> None:
    missing = [name for name in xlm_plugins.__all__ if not hasattr(xlm_plugins, name)]
    assert missing == []


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("xlm_plugins/core/x.py", "from xlm_plugins.contracts import batch"),
        ("xlm_plugins/data/prepare/x.py", "import xlm_plugins.model.model"),
        (
            "xlm_plugins/model/nn/x.py",
            "def f():\n    from xlm_plugins.data.batches.loader import x",
        ),
        ("xlm_plugins/training/x.py", "from xlm_plugins.cli.main import main"),
        ("xlm_plugins/training/x.py", "from . import y"),
    ],
)
def test_the_check_of_arrows_finds_faults(path: str, text: str) -> None:
    assert len(faults_of_arrows(Source(path, text))) == 1
    allowed = f"from __future__ import annotations\nif TYPE_CHECKING:\n    {text.splitlines()[-1]}"
    assert faults_of_arrows(Source(path, allowed)) == []


def test_the_check_of_circles_finds_them() -> None:
    below = Source("xlm_plugins/training/engines/x.py", "import xlm_plugins.training.trainer")
    above = Source("xlm_plugins/training/y.py", "from xlm_plugins.training.engines import x")
    assert circle_of_rooms("training", [below]) == circle_of_rooms("training", [above]) == []
    assert set(circle_of_rooms("training", [below, above])) == {"training", "training/engines"}


def test_a_pattern_that_finds_nothing_is_a_fault() -> None:
    with pytest.raises(AssertionError, match="there is no"):
        sources(CORE, "nowhere/*.py")


@pytest.mark.parametrize(
    ("text", "n_faults"),
    [
        ("from xlm_plugins import Layer, hookimpl\nfrom xlm_a.x import y", 0),
        ("from xlm_plugins.contracts.batch import Batch", 1),
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
