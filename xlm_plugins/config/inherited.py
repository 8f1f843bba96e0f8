"""What models to start from say of themselves, and what a new model takes over of it.

What the user of ``--init RUN`` says neither by flag nor in a TOML file, of the model, its layers
and their options, is as it is in RUN.  None of this imports torch before there is an ``--init``.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

from xlm_plugins.config.model import ModelOptions
from xlm_plugins.config.settings import (
    AUTO,
    Values,
    built,
    check_tables,
    read_toml,
    trained_stacks,
)
from xlm_plugins.config.training import TrainOptions
from xlm_plugins.core.errors import BundleError, OptionError, PluginError
from xlm_plugins.core.files import read_json
from xlm_plugins.core.options import build, to_mapping
from xlm_plugins.core.plugins import Plugins
from xlm_plugins.core.recorded_components import PLUGINS_NAME, find_again, options_again
from xlm_plugins.core.selection import LayerSelection, Position, parse_positions

_WHAT = "the model of --init"
"""What needs a plugin that is missing, for the error."""


@dataclass(frozen=True)
class Origin:
    """A model to start from, as it is written down; its plugins need not be installed.

    :param languages: id of each language.
    :param layers: component, options and position of each layer, as model.json holds them.
    :param made_with: ``distribution version`` by ``kind/name``.
    """

    options: ModelOptions
    languages: Mapping[str, int]
    stacks: tuple[str, ...]
    layers: tuple[Mapping[str, Any], ...]
    made_with: Mapping[str, str]

    @classmethod
    def read(cls, path: Path) -> Origin:
        """Read the description in a bundle folder.

        :raises BundleError: the folder is no bundle, is damaged, or of another format.
        """
        from xlm_plugins.runs.layout import BUNDLE_FORMAT, MODEL_NAME

        tree = read_json(path / MODEL_NAME)
        if tree.get("format") != BUNDLE_FORMAT:
            raise BundleError(
                f"{path} has bundle format {tree.get('format')}", expected=f"format {BUNDLE_FORMAT}"
            )
        try:
            return cls(
                build(ModelOptions, tree["model"], "model"),
                dict(tree["languages"]),
                tuple(tree["stacks"]),
                tuple(tree["layers"]),
                read_json(path / PLUGINS_NAME),
            )
        except (ValueError, KeyError, TypeError) as error:
            raise BundleError(
                f"{path} is a damaged bundle: {type(error).__name__}: {error}"
            ) from error


def split_stack(text: str) -> tuple[str, str]:
    """Read one ``--init``: ``RUN`` for the whole model, ``encoder=RUN`` for one stack of it.

    :returns: the stack, empty for the whole, and the run.
    """
    from xlm_plugins.core.selection import StackName

    stack, _, reference = text.partition("=")
    return (stack, reference) if stack in get_args(StackName) and reference else ("", text)


def absolute(text: str) -> str:
    """One ``--init`` in a form that holds from any folder."""
    from xlm_plugins.runs.layout import split_reference

    stack, reference = split_stack(text)
    path, which = split_reference(reference)
    found = f"{path.resolve()}{f'@{which}' if which else ''}"
    return f"{stack}={found}" if stack else found


def with_their_model(config: Values, flags: Mapping[str, Values]) -> dict[str, Any]:
    """A TOML tree in which the options of the model that nobody said are those of ``--init``.

    A run that goes on has settings of its own, and needs none of theirs.

    :param config: the TOML tree under the flags.
    :param flags: by section, then by option name: what was really given.
    :raises BundleError: there is no such model.
    :raises OptionError: two models differ in what is not said; both are named.
    """
    train = _starting(config, flags)
    if train is None:
        return dict(config)
    said = {key.replace("_", "-") for tree in (config, flags) for key in tree.get("model", {})}
    begun = _begun(train)
    theirs = _agreed(_starts(train), said) if begun is None else begun.get("model", {})
    return {**config, "model": {**theirs, **config.get("model", {})}}


def with_their_layers(
    config: Values, flags: Mapping[str, Values], plugins: Plugins
) -> dict[str, Any]:
    """A TOML tree in which the layers are those of ``--init`` if nobody said any.

    Options of layers that nobody said are theirs in any case, by the layer's name.

    :param config, flags: as for `with_their_model`.
    :raises BundleError: there is no such model.
    :raises PluginError: a plugin of a layer that is taken over is missing.
    """
    train = _starting(config, flags)
    if train is None:
        return dict(config)
    is_said = any("layer" in tree.get("train", {}) for tree in (config, flags))
    said = train.layer if is_said else None
    theirs = _begun(train)
    if theirs is None:
        placed = _placed(_starts(train), trained_stacks(train.objective, plugins))
        theirs = _taken_over(placed, plugins) if said is None else _known(placed, said, plugins)
    layers = built(TrainOptions, "train", theirs, {}).layer if said is None else said
    tree = {**config, "train": {**config.get("train", {}), "layer": list(layers)}}
    for name in (LayerSelection.parse(text).name for text in layers):
        tree[name] = {**theirs.get(name, {}), **config.get(name, {})}
    return tree


@dataclass(frozen=True)
class _Start:
    """One ``--init``, read; the stack is empty for the whole model."""

    text: str
    stack: str
    origin: Origin


def _starting(config: Values, flags: Mapping[str, Values]) -> TrainOptions | None:
    """The options of a run that starts from a model; None for others."""
    check_tables(config)
    train = built(TrainOptions, "train", config, flags)
    return train if train.init and train.resume in (None, AUTO) else None


def _begun(train: TrainOptions) -> Values | None:
    """The settings of the run that ``--resume auto`` goes on with, where it was begun."""
    path = Path(train.out or "", "config.toml")
    return read_toml(path) if train.resume and train.out and path.is_file() else None


def _starts(train: TrainOptions) -> list[_Start]:
    split = [(text, *split_stack(text)) for text in train.init]
    return [_Start(text, stack, _origin(reference)) for text, stack, reference in split]


def _origin(reference: str) -> Origin:
    """What a run's or a bundle's model is: all bundles of a run say the same of it.

    Weights are not looked at, so that this costs nothing.
    """
    from xlm_plugins.runs.find import find_bundle
    from xlm_plugins.runs.layout import MODEL_NAME, split_reference

    path, _ = split_reference(reference)
    for found in (path / MODEL_NAME, *sorted(path.glob(f"*/[!.]*/{MODEL_NAME}"))):
        try:
            return Origin.read(found.parent)
        except BundleError:
            continue  # damaged, or no longer there
    return Origin.read(find_bundle(reference))


def _agreed(starts: Sequence[_Start], said: Collection[str]) -> dict[str, Any]:
    """The options of all models, which agree wherever the user says nothing."""
    first, *others = (to_mapping(with_width(start.origin.options)) for start in starts)
    for start, other in zip(starts[1:], others, strict=True):
        differing = [key for key in first if key not in said and first[key] != other[key]]
        if differing:
            a, b = (
                ", ".join(f"{key} = {values[key]}" for key in differing)
                for values in (first, other)
            )
            raise OptionError(
                f"--init {starts[0].text} has {a}, and --init {start.text} has {b}",
                expected="models of one shape",
                remedy=f"say what the new model has: {', '.join(f'--{key}' for key in differing)}",
            )
    return first


def with_width(options: ModelOptions) -> ModelOptions:
    """The options with the width of the feed-forward layers as a number."""
    return replace(options, ffn_dim=options.ffn_dim or 4 * options.dim)


@dataclass(frozen=True)
class _Layer:
    """A layer of a model to start from, at its place in the new one."""

    position: Position
    options: Mapping[str, Any]
    origin: str


def _placed(starts: Sequence[_Start], stacks: Sequence[str]) -> dict[str, list[_Layer]]:
    """The layers that the new model's weights come with, by the component's full name.

    Where the other model has no decoder, a decoder starts from its encoder, layers included.
    """
    found: dict[str, list[_Layer]] = {}
    for stack in stacks:
        own = [start.origin for start in starts if start.stack in ("", stack)]
        for item in own[-1].layers if own else ():
            source = stack if stack in own[-1].stacks else "encoder"
            distribution, _, name = item["component"].rpartition("/")
            origin = own[-1].made_with.get(f"layer/{name}", distribution)
            for place in parse_positions(item["position"]):
                if place.stack == source:
                    layer = _Layer(replace(place, stack=stack), item["options"], origin)
                    found.setdefault(item["component"], []).append(layer)
    return found


def _taken_over(placed: Mapping[str, Sequence[_Layer]], plugins: Plugins) -> dict[str, Any]:
    """A TOML tree of layers and their options.

    :raises OptionError: layers of one component have different options.
    """
    tree: dict[str, Any] = {"train": {"layer": []}}
    for full_name, found in placed.items():
        if not _are_alike(found):
            raise OptionError(
                f"the layers {full_name} of --init have different options",
                expected="--layer, and the options of the new model's layers",
            )
        name, options = _again(full_name, found[0], plugins)
        places = ",".join(str(layer.position) for layer in found)
        tree["train"]["layer"].append(f"{name}:{places}")
        tree[name] = options
    return tree


def _known(
    placed: Mapping[str, Sequence[_Layer]], said: Sequence[str], plugins: Plugins
) -> dict[str, Any]:
    """A TOML tree of the options that layers which the user said have there."""
    tree = {}
    for name in (LayerSelection.parse(text).name for text in said):
        component = plugins.get("layer", name)
        found = placed.get(component.full_name)
        if found and _are_alike(found):
            options = dict(found[0].options)
            tree[name] = to_mapping(options_again(component, options, found[0].origin, _WHAT))
    return tree


def _are_alike(layers: Sequence[_Layer]) -> bool:
    return all(layer.options == layers[0].options for layer in layers)


def _again(full_name: str, layer: _Layer, plugins: Plugins) -> tuple[str, dict[str, Any]]:
    """What users call a layer's component, and its options as the installed one reads them."""
    try:
        component = find_again(plugins, "layer", full_name, layer.origin, _WHAT)
        options = options_again(component, dict(layer.options), layer.origin, _WHAT)
    except PluginError as error:
        raise PluginError(
            error.problem,
            expected='its plugin, or --layer and the layers wanted; --layer "" for none',
            remedy=error.remedy,
        ) from error
    alone = len(plugins.registry.named("layer", component.name)) == 1
    return component.name if alone else full_name, to_mapping(options)
