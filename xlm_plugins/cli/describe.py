"""``xlm describe``: what a folder holds, how it was made, and what can be done with it."""

from __future__ import annotations

import json
import math
import shlex
import shutil
import textwrap
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from xlm_plugins.core.errors import BundleError, RunError
from xlm_plugins.core.files import read_json
from xlm_plugins.core.recorded_components import PLUGINS_NAME
from xlm_plugins.core.saved_tokenizers import COMPONENT_NAME, SavedTokenizer
from xlm_plugins.runs.history import read_history
from xlm_plugins.runs.layout import CONFIG_NAME, ENVIRONMENT_NAME, MODEL_NAME, WEIGHTS_NAME
from xlm_plugins.runs.overview import Overview

Facts = Iterator[tuple[str, str]]
"""Titles and what they say; commands that can be next have the title `NEXT`."""

NEXT, COMMAND = "next", "command"
_MANIFEST_NAME = "manifest.json"
_EXPORTED_NAME = "config.json"
_MODULES_NAME = "modules.json"
_DESCRIPTION_NAME = "description.json"


@click.command()
@click.argument("path", type=click.Path(path_type=Path))
def describe(path: Path) -> None:
    """Say what PATH is: a run, a model, a data set, a tokenizer or an exported model.

    Nothing is loaded, so the plugins that made it need not be installed.
    """
    what, facts = _recognised(path)
    try:
        found = list(facts(path))
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise BundleError(
            f"{path} is {what} that is damaged: {type(error).__name__}: {error}"
        ) from error
    click.echo(f"{path}: {what}")
    width = max(len(title) for title, _ in found)
    shown = ""
    for title, text in found:
        for line in _wrapped(title, text, width):
            click.echo(f"  {'' if shown == title else title:{width}}  {line}")
            shown = title


def _wrapped(title: str, text: str, width: int) -> list[str]:
    """A text in lines that fit beside titles so wide; a shell reads those of a command as one."""
    end = " \\" if title == COMMAND else ""
    room = shutil.get_terminal_size().columns - width - 4 - len(end)
    if title == NEXT or len(text) <= room:
        return [text]
    lines = textwrap.wrap(
        text, room, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
    )
    return [*(f"{line}{end}" for line in lines[:-1]), lines[-1]]


def _recognised(path: Path) -> tuple[str, Callable[[Path], Facts]]:
    """What a folder is, and the function that describes it.

    :raises RunError: it is nothing that this program knows.
    """
    for name, what, facts in (
        (CONFIG_NAME, "a run", _run),
        (MODEL_NAME, "a model", _bundle),
        (_MANIFEST_NAME, "a data set", _data_set),
        (COMPONENT_NAME, "a tokenizer", _tokenizer),
        (_EXPORTED_NAME, "a model of another library", _exported),
        (_DESCRIPTION_NAME, "weights exported for other programs", _exported_weights),
    ):
        if (path / name).is_file():
            return what, facts
    raise RunError(
        f"{path} is nothing that can be described" if path.exists() else f"{path} does not exist",
        expected="the folder of a run, a model, a data set, a tokenizer or an exported model",
        remedy="xlm runs DIR lists the runs in a folder",
    )


def _run(path: Path) -> Facts:
    seen = Overview.read(path)
    of = f" of {seen.most_steps:,}" if seen.most_steps else ""
    yield "status", f"{seen.status}, {seen.step:,}{of} steps"
    yield "trains", seen.trains
    for name, value in seen.best.items():
        step = seen.step_of(name)
        yield "best", f"{name} {value:,.2f}" + (f" at step {step:,}" if step is not None else "")
    if seen.checkpoint is not None:
        yield from _model(seen.checkpoint)
    yield from _starts(path)
    yield from _settings(path, seen.settings)
    if (path / ENVIRONMENT_NAME).is_file():
        yield from _environment(read_json(path / ENVIRONMENT_NAME))
    command = "train" if "train" in seen.settings else "finetune"
    if seen.status in ("stopped", "no checkpoint"):
        yield NEXT, f"xlm {command} --resume {path}"
    if seen.checkpoint is not None:
        yield NEXT, f"xlm plot {path}"
        yield NEXT, f"xlm evaluate {path}" if command == "train" else f"xlm predict {path}"
        yield _export(path, read_json(seen.checkpoint / MODEL_NAME))


def _starts(path: Path) -> Facts:
    try:
        starts = read_history(path)
    except RunError as error:  # the rest is worth knowing all the same
        yield "starts", f"damaged: {error.problem}"
        return
    for start in starts:
        changed = f", changed {', '.join(start.changed)}" if start.changed else ""
        yield "starts", f"{start.start} at step {start.step:,}  {start.time}{changed}"


def _settings(path: Path, tree: Mapping[str, Any]) -> Facts:
    """What differs from the defaults, and where it was given."""
    from xlm_plugins.config.changes import shown
    from xlm_plugins.config.origins import recorded_origins

    for name, origin in recorded_origins(path).items():
        section, _, key = name.rpartition(".")
        value = tree.get(section, {}).get(key)
        if value is not None:  # config.toml leaves out what belongs to one run only
            yield "given", f"{name} {shown(value)}  by {origin}"
    yield "settings", str(path / CONFIG_NAME)


def _environment(made_in: Mapping[str, Any]) -> Facts:
    program, *arguments = made_in["command"]
    name = "xlm" if Path(program).name == "__main__.py" else Path(program).name
    yield COMMAND, shlex.join([name, *arguments])
    libraries = {"xlm-plugins": made_in["xlm-plugins"], **made_in["libraries"]}
    yield "made with", ", ".join(f"{name} {number}" for name, number in libraries.items())


def _bundle(path: Path) -> Facts:
    yield from _model(path)
    yield NEXT, f"xlm evaluate {path} --data DATA"
    yield NEXT, f"xlm train --init {path} --objective NAME --data DATA"
    yield _export(path, read_json(path / MODEL_NAME))


def _export(path: Path, tree: Mapping[str, Any]) -> tuple[str, str]:
    """The export that the model of a run or bundle allows."""
    is_plain = tree["stacks"] == ["encoder"] and not tree["layers"]
    return NEXT, f"xlm export {'hf' if is_plain else 'safetensors'} {path} OUT"


def _model(path: Path) -> Facts:
    yield from _weights(path, read_json(path / MODEL_NAME))
    yield "plugins", ", ".join(sorted(set(read_json(path / PLUGINS_NAME).values())))


def _exported_weights(path: Path) -> Facts:
    yield from _weights(path, read_json(path / _DESCRIPTION_NAME))


def _weights(path: Path, tree: Mapping[str, Any]) -> Facts:
    """What a model's description and the header of its weights say."""
    from safetensors import SafetensorError, safe_open

    model, stacks = tree["model"], " and ".join(tree["stacks"])
    yield "model", f"{stacks} of {model['n-layers']} layers, {model['dim']} wide"
    try:
        with safe_open(path / WEIGHTS_NAME, framework="numpy") as weights:
            names = list(weights.keys())
            sizes = [math.prod(weights.get_slice(name).get_shape()) for name in names]
    except SafetensorError as error:
        raise BundleError(f"{path / WEIGHTS_NAME} is damaged: {error}") from error
    yield "parameters", f"{sum(sizes):,} in {(path / WEIGHTS_NAME).stat().st_size:,} bytes"
    yield "languages", ", ".join(tree["languages"])
    yield "vocabulary", f"{tree['vocabulary']['size']:,} tokens"
    for one in tree["objectives"]:
        yield "objectives", f"{one['component']}: {', '.join(one['steps'])}"
    for one in tree["layers"]:
        yield "layers", f"{one['component']} at {one['position']}"


def _data_set(path: Path) -> Facts:
    from xlm_plugins.data.dataset.manifest import Manifest

    manifest = Manifest.load(path)
    for stream in manifest.streams:
        name = f"{stream.split} {'-'.join(stream.languages)}"
        yield "text", f"{name}: {stream.n_sentences:,} sentences, {stream.n_tokens:,} tokens"
    made = manifest.tokenizer
    yield "tokenizer", f"{made.name} ({made.distribution} {made.version}), {made.size:,} tokens"
    yield NEXT, f"xlm data {path}"
    yield NEXT, f"xlm train --objective NAME --data {path}"


def _tokenizer(path: Path) -> Facts:
    made = SavedTokenizer.read(path)
    yield "kind", f"{made.name} ({made.distribution} {made.version})"
    yield "fingerprint", made.fingerprint
    yield NEXT, f"xlm prepare SOURCE OUT --tokenizer-from {path}"


def _exported(path: Path) -> Facts:
    tree = read_json(path / _EXPORTED_NAME)
    if "model_type" not in tree:
        raise BundleError(
            f"{path / _EXPORTED_NAME} describes no model: it has no model_type",
            expected="the folder of a model of transformers",
        )
    architectures = ", ".join(tree.get("architectures", []))
    yield "kind", f"{tree['model_type']} of transformers, {architectures}"
    if (path / _MODULES_NAME).is_file():  # of sentence-transformers
        modules = json.loads((path / _MODULES_NAME).read_text(encoding="utf-8"))
        yield "encodes", " > ".join(module["type"].rpartition(".")[2] for module in modules)
    for name in sorted(entry.name for entry in path.iterdir()):
        yield "files", name
    yield NEXT, f"xlm import hf {path} OUT"
