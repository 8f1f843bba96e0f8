"""Settings of ``xlm train`` as far as they are known before the flags of its components are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xlm_plugins.config.inherited import InitModel, inherited_layers, inherited_shape
from xlm_plugins.config.settings import (
    AUTO,
    Settings,
    Values,
    check_tables,
    merged_options,
    read_toml,
    resolve,
    selected_components,
    trained_stacks,
)
from xlm_plugins.config.training import TrainOptions
from xlm_plugins.core.plugins import Plugins
from xlm_plugins.core.recorded_components import recorded_plugins
from xlm_plugins.core.registry import Component
from xlm_plugins.core.selection import LayerSelection
from xlm_plugins.runs.layout import CONFIG_NAME

_SELECTING = ("objective", "layer", "init", "resume", "out")
"""The options of `TrainOptions` that decide which components there are."""


@dataclass(frozen=True)
class UnresolvedSettings:
    """What is selected and inherited; the settings follow once all flags are known.

    :param config: the TOML tree under the flags, inherited layers included.
    :param inits: the models of --init that settings are inherited from.
    :param components: the selected components, by the name by which the user selected each.
    """

    config: Values
    inits: tuple[InitModel, ...]
    components: Mapping[str, Component]

    @classmethod
    def read(
        cls, config: Values, flags: Mapping[str, Values], plugins: Plugins
    ) -> UnresolvedSettings:
        """Read the models of --init, and look up what is selected.

        :param config: what `read_config` returned.
        :param flags: the core's flags that were given: by section, then by option name.
        :raises BundleError: --init names no model.
        :raises OptionError: a selection that cannot be read, or layers that cannot be inherited.
        :raises PluginError: a component, or the plugin of an inherited layer, is missing.
        """
        check_tables(config)
        given = {key: v for key, v in flags.get("train", {}).items() if key in _SELECTING}
        train = merged_options(TrainOptions, "train", config, {"train": given})
        is_layer_given = "layer" in given or "layer" in config.get("train", {})
        layers = train.layer if is_layer_given else None
        inits: tuple[InitModel, ...] = ()
        inherited: Values = {}
        if train.init and train.resume in (None, AUTO):
            inherited = _started_run(train)
            if not inherited:
                inits = tuple(map(InitModel.read, train.init))
                stacks = trained_stacks(train.objective, plugins)
                inherited = inherited_layers(inits, stacks, layers, plugins)
        if layers is None:
            layers = merged_options(TrainOptions, "train", inherited, {}).layer
        made_with = recorded_plugins(Path(train.resume)) if train.resume else {}
        components = selected_components(train.objective, layers, plugins, made_with)
        return cls(_over(config, inherited, layers), inits, components)

    def resolve(self, flags: Mapping[str, Values], plugins: Plugins) -> Settings:
        """The settings.

        :param flags: all flags that were given: by section, then by option name.
        :raises OptionError: as `resolve`; or two models of --init differ in shape.
        """
        own = self.config.get("model", {})
        set_by_user = {key.replace("_", "-") for key in (*own, *flags.get("model", {}))}
        model = {**inherited_shape(self.inits, set_by_user), **own}
        return resolve({**self.config, "model": model}, flags, plugins)


def _started_run(train: TrainOptions) -> Values:
    """The settings of the run that ``--resume auto`` resumes; empty if it has not started."""
    path = Path(train.out or "", CONFIG_NAME)
    return read_toml(path) if train.resume and train.out and path.is_file() else {}


def _over(config: Values, inherited: Values, layers: Sequence[str]) -> dict[str, Any]:
    """A TOML tree with what is inherited of the model, these layers and their options."""
    tree = {**config, "train": {**config.get("train", {}), "layer": list(layers)}}
    for name in ("model", *(LayerSelection.parse(text).name for text in layers)):
        tree[name] = {**inherited.get(name, {}), **config.get(name, {})}
    return tree
