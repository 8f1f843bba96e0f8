"""``xlm plugins new``: create a plugin from the template that comes with the core.

The template is a working distribution, `tests/example_plugin`.  What belongs to one kind alone is
a file named after it, or lies between ``region KIND`` and ``endregion`` comments; ``region KIND``
at the end of a line of code applies to that line.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

import click

from xlm_plugins.core.errors import OptionError
from xlm_plugins.core.files import whole_folder
from xlm_plugins.core.registry import KINDS, RESERVED_NAMES

TEMPLATE = Path(__file__).resolve().parents[1] / "template"
FILES = ("pyproject.toml", "README.md", "src/*/*.py", "src/*/py.typed", "tests/*.py")
"""The files of the template, as opposed to what tools leave beside them; as in package-data."""

PARTS = {*KINDS, "command"}
_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_MARKER = re.compile(r"(?P<code>.*?)\s*(#|<!--) (region (?P<part>\w+)|endregion)( -->)?")
_OLD_NAMES = re.compile(rf"example-(?P<kind>{'|'.join(KINDS)})|xlm_example|Example|example")


@click.command()
@click.argument("name")
@click.option(
    "--kind",
    "kinds",
    type=click.Choice(KINDS),
    multiple=True,
    required=True,
    help="What the plugin provides; repeatable.",
)
@click.option(
    "--out", type=click.Path(path_type=Path), help="Folder to create.  [default: ./xlm-NAME]"
)
def new(name: str, kinds: tuple[str, ...], out: Path | None) -> None:
    """Create a plugin: the distribution xlm-NAME, a working example with tests that pass."""
    _check_name(name)
    folder = out or Path(f"xlm-{name}")
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise OptionError(f"{folder} already exists", expected="a new or empty folder for --out")
    _write(plugin_files(name, kinds), folder)
    click.echo(f"{folder}: a new plugin ({', '.join(dict.fromkeys(kinds))}).  Next:\n")
    for command in _next_commands(name, kinds, folder):
        click.echo(f"  {command}")


def plugin_files(name: str, kinds: Collection[str]) -> dict[str, str]:
    """The text of every file of a new plugin, by its path in the distribution.

    A component is called ``name`` if it is the plugin's only one, else ``name-layer`` and so on.
    """
    files = {}
    for path in _template_files():
        if path.stem.removeprefix("test_") in PARTS - set(kinds):
            continue
        n_blank_lines = 2 if path.suffix == ".py" else 1
        text = _reduced(path.read_text(encoding="utf-8"), kinds, n_blank_lines)
        where = path.relative_to(TEMPLATE).as_posix()
        files[_renamed(where, name, kinds)] = _renamed(text, name, kinds)
    return files


def _template_files() -> Iterator[Path]:
    for pattern in FILES:
        yield from sorted(TEMPLATE.glob(pattern))


def _reduced(text: str, kinds: Collection[str], n_blank_lines: int) -> str:
    """The text without the regions of other kinds, and without region comments.

    :param n_blank_lines: the most blank lines in a row that remain.
    """
    lines = []
    is_kept = True
    for line in text.splitlines():
        marker = _MARKER.fullmatch(line)
        if marker is None:
            lines += [line] if is_kept else []
        elif marker["code"]:
            lines += [marker["code"]] if marker["part"] in kinds else []
        else:
            is_kept = marker["part"] is None or marker["part"] in kinds
    reduced = "\n".join(lines).strip("\n") + "\n" if lines else ""
    most = "\n" * (n_blank_lines + 1)
    return re.sub(f"{most}\n+", most, reduced)


def _renamed(text: str, name: str, kinds: Collection[str]) -> str:
    """The text with the template's names replaced by the plugin's."""
    words = name.split("-")

    def new_name(match: re.Match[str]) -> str:
        if match["kind"]:
            return _component(name, match["kind"], kinds)
        return {
            "xlm_example": "_".join(["xlm", *words]),
            "Example": "".join(word.capitalize() for word in words),
            "example": name,
        }[match[0]]

    return _OLD_NAMES.sub(new_name, text)


def _component(name: str, kind: str, kinds: Collection[str]) -> str:
    return name if len(set(kinds)) == 1 else f"{name}-{kind}"


def _check_name(name: str) -> None:
    """Check that a name can name a new plugin.

    :raises OptionError: it is malformed, reserved, or taken by an installed package.
    """
    if not _NAME.fullmatch(name):
        raise OptionError(
            f"{name!r} is not a plugin name",
            expected="lower-case letters, digits and single dashes, such as gated-memory",
        )
    if name.startswith("xlm-"):
        short = name.removeprefix("xlm-")
        raise OptionError(
            f"the plugin would be called xlm-{name}: the prefix xlm- is added",
            remedy=f"xlm plugins new {short}",
        )
    if name in RESERVED_NAMES:
        raise OptionError(
            f"{name!r} is not a plugin name: [{name}] is a section of the core's options",
            expected="another name",
        )
    module = f"xlm_{name.replace('-', '_')}"
    if find_spec(module) is not None:
        raise OptionError(
            f"a package {module} is already installed, and yours would shadow it",
            expected="an unused name; `xlm plugins` lists those in use",
        )


def _write(files: dict[str, str], folder: Path) -> None:
    with whole_folder(folder, shared=True) as partial:
        for where, text in files.items():
            path = partial / where
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")


def _next_commands(name: str, kinds: Sequence[str], folder: Path) -> list[str]:
    """The next commands to type: install, test, and use each kind once."""
    place = str(folder) if folder.is_absolute() else f"./{folder}"
    commands = [f"pip install --editable {shlex.quote(place + '[dev]')}"]
    commands += [f"pytest {shlex.quote(place)}"]
    component = {kind: _component(name, kind, kinds) for kind in kinds}
    data = ""
    if "tokenizer" in kinds:
        data = f" --data {name}-data"
        commands += [
            f"xlm prepare embedded {name}-data --tokenizer {component['tokenizer']} --vocab-size 60"
        ]
    train = f"xlm train --objective {component.get('objective', 'mlm')}"
    layer = f" --layer {component['layer']}" if "layer" in kinds else ""
    if set(kinds) != {"task"}:
        commands += [f"{train}{layer}{data} --steps 20"]
    if "task" in kinds:
        task = component["task"]
        commands += [f"xlm finetune {task} --from RUN --{task}.data FOLDER"]
    return commands
