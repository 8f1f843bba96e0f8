"""Settings inherited through ``--init``: the model's shape, its layers and their options.

Whatever the user sets neither by flag nor in a TOML file is as in the models that ``--init`` names.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

from xlm_plugins.config.model import ModelOptions
from xlm_plugins.core.errors import BundleError, OptionError, PluginError
from xlm_plugins.core.files import read_json
from xlm_plugins.core.options import build, to_mapping
from xlm_plugins.core.plugins import Plugins
from xlm_plugins.core.recorded_components import PLUGINS_NAME, resolve_options, resolve_recorded
from xlm_plugins.core.selection import LayerSelection, Position, StackName, parse_positions
from xlm_plugins.runs.find import find_bundle
from xlm_plugins.runs.layout import BUNDLE_FORMAT, MODEL_NAME, absolute_reference, split_reference

_OWNER = "the model of --init"
"""What needs a plugin that is missing, for the error."""


@dataclass(frozen=True)
class RecordedModel:
    """A model as its bundle describes it; its plugins need not be installed.

    :param languages: id of each language.
    :param layers: component, options and position of each layer, as in model.json.
    :param made_with: ``distribution version`` by ``kind/name``.
    """

    options: ModelOptions
    languages: Mapping[str, int]
    stacks: tuple[str, ...]
    layers: tuple[Mapping[str, Any], ...]
    made_with: Mapping[str, str]

    @classmethod
    def read(cls, path: Path) -> RecordedModel:
        """Read the description in a bundle folder.

        :raises BundleError: the folder is not a bundle, is damaged, or has another format.
        """
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


@dataclass(frozen=True)
class InitModel:
    """A model that ``--init`` names.

    :param text: as the user wrote it.
    :param stack: the stack that it initialises; empty for the whole model.
    """

    text: str
    stack: str
    model: RecordedModel

    @classmethod
    def read(cls, text: str) -> InitModel:
        """Read the description of the model, which all bundles of a run have in common.

        :raises BundleError: there is no such model.
        """
        stack, reference = split_init(text)
        path, _ = split_reference(reference)
        for found in (path / MODEL_NAME, *sorted(path.glob(f"*/[!.]*/{MODEL_NAME}"))):
            try:
                return cls(text, stack, RecordedModel.read(found.parent))
            except BundleError:
                continue  # damaged, or no longer there
        return cls(text, stack, RecordedModel.read(find_bundle(reference)))


def split_init(text: str) -> tuple[str, str]:
    """Split one ``--init``: ``RUN`` for the whole model, ``encoder=RUN`` for one stack of it.

    :returns: the stack, empty for the whole model, and the run.
    """
    stack, _, reference = text.partition("=")
    return (stack, reference) if stack in get_args(StackName) and reference else ("", text)


def absolute_init(text: str) -> str:
    """One ``--init`` in a form that holds from any folder."""
    stack, reference = split_init(text)
    absolute = absolute_reference(reference)
    return f"{stack}={absolute}" if stack else absolute


def inherited_shape(inits: Sequence[InitModel], set_by_user: Collection[str]) -> dict[str, Any]:
    """The options of the models, by key; they must agree on all that the user does not set.

    :raises OptionError: two models differ in such an option; both are named.
    """
    if not inits:
        return {}
    first, *others = (to_mapping(with_ffn_dim(init.model.options)) for init in inits)
    for init, other in zip(inits[1:], others, strict=True):
        differing = [key for key in first if key not in set_by_user and first[key] != other[key]]
        if differing:
            a, b = (
                ", ".join(f"{key} = {values[key]}" for key in differing)
                for values in (first, other)
            )
            raise OptionError(
                f"--init {inits[0].text} has {a}, and --init {init.text} has {b}",
                expected="models of the same shape",
                remedy=f"set them for the new model: {', '.join(f'--{key}' for key in differing)}",
            )
    return first


def with_ffn_dim(options: ModelOptions) -> ModelOptions:
    """The options with the width of the feed-forward layers as a number."""
    return replace(options, ffn_dim=options.ffn_dim or 4 * options.dim)


def inherited_layers(
    inits: Sequence[InitModel],
    stacks: Sequence[str],
    layers: Sequence[str] | None,
    plugins: Plugins,
) -> dict[str, Any]:
    """A TOML tree of the layers to inherit and of their options.

    :param stacks: of the new model.
    :param layers: as the user selects them, which then inherit their options alone; None where
        the user selects none and the models' own layers are inherited.
    :raises OptionError: layers of one component have different options.
    :raises PluginError: the plugin of a layer is missing.
    """
    placed = _placed(inits, stacks)
    return _all_layers(placed, plugins) if layers is None else _options(placed, layers, plugins)


@dataclass(frozen=True)
class _Layer:
    """A layer of a model of ``--init``, at its position in the new model."""

    position: Position
    options: Mapping[str, Any]
    origin: str


def _placed(inits: Sequence[InitModel], stacks: Sequence[str]) -> dict[str, list[_Layer]]:
    """The layers that come with the new model's weights, by the component's full name.

    A decoder is initialised from the encoder, layers included, of a model that has no decoder.
    """
    placed: dict[str, list[_Layer]] = {}
    for stack in stacks:
        matching = [init.model for init in inits if init.stack in ("", stack)]
        for item in matching[-1].layers if matching else ():
            source = stack if stack in matching[-1].stacks else "encoder"
            distribution, _, name = item["component"].rpartition("/")
            origin = matching[-1].made_with.get(f"layer/{name}", distribution)
            for position in parse_positions(item["position"]):
                if position.stack == source:
                    layer = _Layer(replace(position, stack=stack), item["options"], origin)
                    placed.setdefault(item["component"], []).append(layer)
    return placed


def _all_layers(placed: Mapping[str, Sequence[_Layer]], plugins: Plugins) -> dict[str, Any]:
    tree: dict[str, Any] = {"train": {"layer": []}}
    for full_name, found in placed.items():
        if not _are_alike(found):
            raise OptionError(
                f"the layers {full_name} of --init have different options",
                expected="--layer, with the options of the new model's layers",
            )
        name, options = _installed(full_name, found[0], plugins)
        positions = ",".join(str(layer.position) for layer in found)
        tree["train"]["layer"].append(f"{name}:{positions}")
        tree[name] = options
    return tree


def _options(
    placed: Mapping[str, Sequence[_Layer]], layers: Sequence[str], plugins: Plugins
) -> dict[str, Any]:
    """Options alone; none where the models' own layers of a component differ."""
    tree = {}
    for name in (LayerSelection.parse(text).name for text in layers):
        component = plugins.get("layer", name)
        found = placed.get(component.full_name)
        if found and _are_alike(found):
            options = dict(found[0].options)
            tree[name] = to_mapping(resolve_options(component, options, found[0].origin, _OWNER))
    return tree


def _are_alike(layers: Sequence[_Layer]) -> bool:
    return all(layer.options == layers[0].options for layer in layers)


def _installed(full_name: str, layer: _Layer, plugins: Plugins) -> tuple[str, dict[str, Any]]:
    """The shortest name of a layer's component, and its options as the installed one reads them."""
    try:
        component = resolve_recorded(plugins, "layer", full_name, layer.origin, _OWNER)
        options = resolve_options(component, dict(layer.options), layer.origin, _OWNER)
    except PluginError as error:
        raise PluginError(
            error.problem,
            expected='its plugin, or other layers by --layer; --layer "" for none',
            remedy=error.remedy,
        ) from error
    is_unique = len(plugins.registry.named("layer", component.name)) == 1
    return component.name if is_unique else full_name, to_mapping(options)
