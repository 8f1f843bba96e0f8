"""The documents: what they say of the contract, of files and of each other is so."""

from __future__ import annotations

import ast
import inspect
import io
import re
import tokenize
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

import xlm_plugins
from xlm_plugins import testing
from xlm_plugins.cli import new_plugin
from xlm_plugins.core import hookspecs
from xlm_plugins.model.nn.transformer import Stack

ROOT = Path(__file__).resolve().parents[2]
TEMPLATE = ROOT / "tests" / "example_plugin"
PLACES = (ROOT, ROOT / "xlm_plugins", TEMPLATE)
"""What the names of files are relative to."""

TEXTS = {".md", ".py", ".toml", ".ipynb"}
PLUGINS_MD = (ROOT / "docs" / "plugins.md").read_text(encoding="utf-8")
DOCUMENTS = [
    path
    for pattern in ("*.md", "docs/*.md", "recipes/*.md", "benchmarks/results/*.md", "tests/*/*.md")
    for path in sorted(ROOT.glob(pattern))
] + sorted(ROOT.glob("plugins/*/*/README.md"))

NAMES = [name for name in xlm_plugins.__all__ if name != "__version__"]
CLASSES = {name: found for name in NAMES if inspect.isclass(found := getattr(xlm_plugins, name))}
FUNCTIONS = {
    name: found
    for name in NAMES
    if inspect.isfunction(found := getattr(xlm_plugins, name)) and name != "hookimpl"
}
HOOKS = {name: hook for name, hook in vars(hookspecs).items() if name.startswith("xlm_")}
ERRORS = {name for name, found in CLASSES.items() if issubclass(found, xlm_plugins.XLMError)}


def bare(text: str) -> str:
    """Text without what may differ between a document and Python: spaces, line ends, quotes."""
    return re.sub(r"[\s'\"]", "", text)


def signature(name: str, function: Any, *, bound: bool = False) -> str:
    """A function as the documents write it: ``name(argument: type = default) -> type``.

    :param bound: leave ``self`` or ``cls`` out.
    """
    found = inspect.signature(getattr(function, "__func__", function))
    parameters = list(found.parameters.values())[1 if bound else 0 :]
    return f"{name}{found.replace(parameters=parameters)}"


def members(owner: type) -> Iterator[str]:
    """The public members of a class as the documents write them.

    Those of its bases are included where these are ours and no public names themselves.
    """
    for base in owner.__mro__:
        ours = base.__module__.partition(".")[0] == "xlm_plugins" and base.__name__ not in NAMES
        if base is owner or ours:
            yield from _own_members(base)


def _own_members(owner: type) -> Iterator[str]:
    annotations = {
        name: getattr(hint, "__forward_arg__", hint)
        for name, hint in vars(owner).get("__annotations__", {}).items()
    }
    yield from (f"{name}: {hint}" for name, hint in annotations.items() if name[0] != "_")
    for name, member in vars(owner).items():
        if name.startswith("_") or name in annotations:
            continue
        if isinstance(member, property | cached_property):
            getter = member.fget if isinstance(member, property) else member.func
            yield f"{name}: {getter.__annotations__['return']}"
        elif inspect.isfunction(getattr(member, "__func__", member)):
            yield signature(name, member, bound=not isinstance(member, staticmethod))
        else:
            yield name


def section(title: str) -> str:
    """The part of plugins.md under a heading, up to the next heading of any level."""
    match = re.search(rf"^##+ `{title}`\n(.*?)(?=^##? |^### |\Z)", PLUGINS_MD, re.M | re.S)
    assert match, f"docs/plugins.md has no heading `{title}`"
    return match[1]


def missing(wanted: Iterator[str] | list[str], text: str) -> list[str]:
    """What is not in the text between ``**`` and backticks."""
    return [one for one in wanted if f"**`{bare(one)}`**" not in bare(text)]


@pytest.mark.parametrize("name", HOOKS)
def test_every_hook_is_documented(name: str) -> None:
    assert missing([signature(name, HOOKS[name])], PLUGINS_MD) == []


@pytest.mark.parametrize("name", NAMES)
def test_every_public_name_is_documented(name: str) -> None:
    assert re.search(rf"`{name}[`(]", PLUGINS_MD)


def test_what_helps_to_test_is_documented() -> None:
    assert [name for name in testing.__all__ if f"`{name}`" not in PLUGINS_MD] == []


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_public_function_is_documented(name: str) -> None:
    assert missing([signature(name, FUNCTIONS[name])], PLUGINS_MD) == []


@pytest.mark.parametrize("name", [name for name in CLASSES if name not in ERRORS])
def test_every_public_member_is_documented(name: str) -> None:
    assert missing(members(CLASSES[name]), section(name)) == []


@pytest.mark.parametrize("name", ["Objective", "Layer", "Task"])
def test_how_the_runtime_makes_one_is_documented(name: str) -> None:
    made = bare(signature(name, CLASSES[name].__init__, bound=True)).removesuffix("->None")
    assert missing([made], section(name)) == []


def test_no_member_is_documented_that_there_is_not() -> None:
    """Of `Stack`, which is no public name, only what objectives need is documented."""
    for name, owner in {**CLASSES, "Stack": Stack}.items():
        if name in ERRORS:
            continue
        known = {bare(member) for member in members(owner)}
        written = re.findall(r"\*\*`([a-z_]\w*[(:][^`]*)`\*\*", section(name))
        assert {bare(text) for text in written} <= known, name


QUOTED = re.findall(r"^\*\*`([\w./]+)`\*\*\n\n```\w+\n(.*?)^```$", PLUGINS_MD, re.M | re.S)


def test_quoted_code_is_that_of_the_files() -> None:
    assert {path for path, _ in QUOTED} > {"pyproject.toml", "src/xlm_example/layer.py"}
    for path, text in QUOTED:
        whole = "\n" + (TEMPLATE / path).read_text(encoding="utf-8")
        assert "\n" + text in whole, f"docs/plugins.md quotes {path} otherwise than it is"


def test_the_quick_start_is_what_new_tells_to_type() -> None:
    start = "    xlm plugins new gate --kind layer\n"
    told = new_plugin._next_commands("gate", ("layer",), Path("xlm-gate"))
    assert start + "".join(f"    {command}\n" for command in told) in PLUGINS_MD


def test_all_code_of_the_template_is_shown() -> None:
    sources = {path.relative_to(TEMPLATE).as_posix() for path in TEMPLATE.glob("src/*/*.py")}
    assert sources <= {path for path, _ in QUOTED}


def links(document: Path) -> Iterator[tuple[Path, str]]:
    """File and anchor of the relative links of a document; code is left out."""
    text = re.sub(r"^```.*?^```$|`[^`\n]*`", "", document.read_text("utf-8"), flags=re.M | re.S)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not re.match(r"\w+:", target):
            path, _, anchor = target.partition("#")
            yield (document.parent / path).resolve() if path else document, anchor


def anchors(document: Path) -> set[str]:
    """The anchors that a code host makes of a document's headings."""
    headings = re.findall(r"^#+ (.*)$", document.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", text).strip().lower().replace(" ", "-") for text in headings}


def prose(path: Path) -> str:
    """A document, or the docstrings and comments of a Python file."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".py":
        return text
    values = (node.value for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Expr))
    docstrings = [str(v.value) for v in values if isinstance(v, ast.Constant)]
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    return "\n".join([*docstrings, *(t.string for t in tokens if t.type == tokenize.COMMENT)])


def files_named(text: str) -> set[str]:
    """The files of ours that a text names by their folder: ``data/batches/loader.py``."""
    paths = re.findall(r"(?<![\w/.*-])(?:[\w-]+/)+[\w.-]+\.(?:py|md|toml|ipynb)\b", text)
    return {path for path in paths if any((p / path.split("/")[0]).is_dir() for p in PLACES)}


@pytest.mark.parametrize("folder", ["", "docs", "recipes", "xlm_plugins", "plugins", "tests"])
def test_files_named_in_documents_and_docstrings_exist(folder: str) -> None:
    pattern = "**/*" if folder else "*"
    every = [path for path in ROOT.joinpath(folder).glob(pattern) if path.suffix in TEXTS]
    assert every
    gone = {
        f"{path.relative_to(ROOT)}: {name}"
        for path in every
        for name in files_named(prose(path))
        if not any((place / name).exists() for place in (*PLACES, path.parent))
    }
    assert gone == set()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_point_somewhere(document: Path) -> None:
    for path, anchor in links(document):
        assert path.exists(), f"{document} links to {path}"
        assert not anchor or anchor in anchors(path), f"{document} links to {path}#{anchor}"


def test_every_plugin_has_a_readme() -> None:
    projects = [path.parent for path in ROOT.glob("plugins/*/*/pyproject.toml")]
    assert projects
    for folder in projects:
        text = (folder / "README.md").read_text(encoding="utf-8")
        assert text.startswith(f"# xlm-{folder.name}\n")


def test_the_checks_find_faults(tmp_path: Path) -> None:
    assert missing(["f(a: int) -> str"], "**`f(a: int)\n-> str`**") == []
    assert missing(["f(a: int) -> str"], "**`f(a: float) -> str`**, `f(a: int) -> str`") != []

    class Owner:
        limit: int = 3

        def method(self, x: list[int], *, y: str = "") -> None: ...
        @classmethod
        def build(cls) -> Owner: ...
        def _hidden(self) -> None: ...

    written = [bare(member) for member in members(Owner)]
    assert written == ["limit:int", "method(x:list[int],*,y:str=)->None", "build()->Owner"]

    document = tmp_path / "a.md"
    document.write_text("# A b\n[x](gone.md) `[y](z)` [s](#a-b) [t](https://u)\n```\n[c](d)\n```\n")
    assert list(links(document)) == [(tmp_path / "gone.md", ""), (document, "a-b")]
    assert anchors(document) == {"a-b"}

    source = tmp_path / "a.py"
    source.write_text('"""In core/x.py."""\ny = "core/y.py"  # as tests/z.md and RUN/config.toml\n')
    assert files_named(prose(source)) == {"core/x.py", "tests/z.md"}
