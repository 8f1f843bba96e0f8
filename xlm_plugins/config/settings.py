"""Settings of a training run, from TOML and flags, in one checked object.

The TOML form has a section for each part of the core, ``[model]``, ``[optimizer]``, ``[train]``
and ``[generation]``, and one for each selected component, under the name by which it was selected:
``[tlm]``, ``[pkm]``.  Flags override TOML, TOML overrides the defaults.

A run's ``config.toml`` omits ``out`` and ``resume``: they belong to one run, not to a repetition.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, get_args

from xlm_plugins.config.inherited import InitModel, inherited_layers, inherited_shape
from xlm_plugins.config.model import GenerationOptions, ModelOptions
from xlm_plugins.config.training import OptimizerOptions, TrainOptions
from xlm_plugins.core.catalogue import default_of
from xlm_plugins.core.errors import OptionError, PluginError, RunError, raise_together
from xlm_plugins.core.messages import LOG
from xlm_plugins.core.options import build, to_mapping
from xlm_plugins.core.plugins import Plugins, require
from xlm_plugins.core.recorded_components import recorded_plugins, resolve_recorded
from xlm_plugins.core.registry import Component
from xlm_plugins.core.selection import LayerSelection, ObjectiveSelection, StackName
from xlm_plugins.runs.layout import CONFIG_NAME

OptionsT = TypeVar("OptionsT")
Values = Mapping[str, Any]

CORE_SECTIONS: dict[str, type] = {
    "model": ModelOptions,
    "optimizer": OptimizerOptions,
    "train": TrainOptions,
    "generation": GenerationOptions,
}
NOT_REPEATED = ("out", "resume")
AUTO = "auto"
"""``--resume auto``: resume the run in ``--out``, if there is one."""

_SELECTING = ("objective", "layer", "init", "resume", "out", "data")
"""The options of `TrainOptions` that decide which components there are."""


@dataclass(frozen=True)
class Settings:
    """The settings of one run.

    :param components: the options object of each selected component, by the name by which the
        user selected it (`ObjectiveSelection.name`, `LayerSelection.name`).
    :param settings_from: where each was given (`config.origins.Origins`), if that is known.
    """

    model: ModelOptions = field(default_factory=ModelOptions)
    optimizer: OptimizerOptions = field(default_factory=OptimizerOptions)
    train: TrainOptions = field(default_factory=TrainOptions)
    generation: GenerationOptions = field(default_factory=GenerationOptions)
    components: Mapping[str, Any] = field(default_factory=dict)
    settings_from: Mapping[str, str] = field(default_factory=dict, compare=False)

    @property
    def sections(self) -> dict[str, Any]:
        """All options objects, by their section of the TOML form."""
        return {**{name: getattr(self, name) for name in CORE_SECTIONS}, **self.components}


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
        train = _selecting(config, flags)
        given = flags.get("train", {})
        _check_installed(train, plugins)
        is_layer_given = "layer" in given or "layer" in config.get("train", {})
        layers = train.layer if is_layer_given else None
        inits, inherited = _inherited(train, layers, plugins)
        if layers is None:
            layers = merged_options(TrainOptions, "train", inherited, {}).layer
        made_with = recorded_plugins(Path(train.resume)) if train.resume else {}
        components = selected_components(train.objective, layers, plugins, made_with)
        return cls(_over(config, inherited, layers), inits, components)

    def resolve(self, flags: Mapping[str, Values], plugins: Plugins) -> Settings:
        """Merge the flags with what they override, and check the result.

        :param flags: all flags that were given: by section, then by option name.
        :raises OptionError: as `resolve`; or two models of --init differ in shape.
        """
        own = self.config.get("model", {})
        set_by_user = {key.replace("_", "-") for key in (*own, *flags.get("model", {}))}
        model = {**inherited_shape(self.inits, set_by_user), **own}
        return resolve({**self.config, "model": model}, flags, plugins)


def resolve(config: Values, flags: Mapping[str, Values], plugins: Plugins) -> Settings:
    """Check a TOML tree, override it with the flags, and build the settings.

    :param config: the TOML tree; empty for none.
    :param flags: the flags that were given: by section, then by option name.
    :raises OptionError: an unknown section or option, a value outside its limits, or no objective.
    :raises PluginError: a selected component is missing, broken or ambiguous.
    """
    check_tables(config)
    selecting = _selecting(config, flags)
    if not selecting.objective:
        installed = ", ".join(c.name for c in plugins.registry.of("objective"))
        raise OptionError(
            "no objective is selected, so there is nothing to train on",
            expected=f"one of {installed}" if installed else "an installed objective",
            remedy="xlm train --objective tlm",
        )
    selected = selected_components(selecting.objective, selecting.layer, plugins)
    sections = {**CORE_SECTIONS, **{name: c.options for name, c in selected.items()}}
    unknown = [_not_selected(name, plugins) for name in {**config, **flags} if name not in sections]
    built = merged_sections(sections, config, flags, unknown)
    model, optimizer, train, generation = (built.pop(name) for name in CORE_SECTIONS)
    return Settings(model, optimizer.for_run(train), train, generation, built)


def _selecting(config: Values, flags: Mapping[str, Values]) -> TrainOptions:
    """The options of the run that decide which components there are; others have their defaults."""
    config, flags = (
        {"train": {key: v for key, v in tree.get("train", {}).items() if key in _SELECTING}}
        for tree in (config, flags)
    )
    return merged_options(TrainOptions, "train", config, flags)


def _check_installed(train: TrainOptions, plugins: Plugins) -> None:
    """Say in one message which built-in plugins are missing, the embedded corpus's included."""
    needed = [("objective", ObjectiveSelection.parse(text).name) for text in train.objective]
    needed += [("layer", LayerSelection.parse(text).name) for text in train.layer]
    if train.data is None:
        needed.append(("tokenizer", default_of("tokenizer")))
    require(needed, plugins)


def _inherited(
    train: TrainOptions, layers: Sequence[str] | None, plugins: Plugins
) -> tuple[tuple[InitModel, ...], Values]:
    """The models of --init, and a TOML tree of what the run inherits.

    A run to resume has its own settings, and needs none of the models.
    """
    if not train.init or train.resume not in (None, AUTO):
        return (), {}
    started = Path(train.out or "", CONFIG_NAME)
    if train.resume == AUTO and train.out and started.is_file():
        return (), read_toml(started)
    inits = tuple(map(InitModel.read, train.init))
    stacks = trained_stacks(train.objective, plugins)
    return inits, inherited_layers(inits, stacks, layers, plugins)


def _over(config: Values, inherited: Values, layers: Sequence[str]) -> dict[str, Any]:
    """A TOML tree with what is inherited of the model, these layers and their options."""
    tree = {**config, "train": {**config.get("train", {}), "layer": list(layers)}}
    for name in ("model", *(LayerSelection.parse(text).name for text in layers)):
        tree[name] = {**inherited.get(name, {}), **config.get(name, {})}
    return tree


def selected_components(
    objectives: Iterable[str],
    layers: Iterable[str],
    plugins: Plugins,
    made_with: Mapping[str, str] | None = None,
) -> dict[str, Component]:
    """The components that ``--objective`` and ``--layer`` select, by the name written there.

    :param made_with: `recorded_plugins` of the run to resume, for the error.
    :raises OptionError: a selection that cannot be read.
    :raises PluginError: no such component, or two that would share one section of options.
    """
    found: dict[str, Component] = {}
    named = [("objective", ObjectiveSelection.parse(text).name) for text in objectives]
    named += [("layer", LayerSelection.parse(text).name) for text in layers]
    for kind, name in named:
        origin = (made_with or {}).get(f"{kind}/{name.rpartition('/')[2]}")
        if origin:
            component = resolve_recorded(plugins, kind, name, origin, "the run")
        else:
            component = plugins.get(kind, name)
        if name in CORE_SECTIONS:
            raise PluginError(
                f"the {kind} {name!r} clashes with the core's section [{name}]",
                remedy=f"use its full name: --{kind} {component.full_name}",
            )
        other = found.setdefault(name, component)
        if other != component:
            raise PluginError(
                f"the {other.kind} and the {kind} {name!r} would share the section [{name}]",
                remedy=f"use the full name of one: --{kind} {component.full_name}",
            )
    return found


def trained_stacks(objectives: Iterable[str], plugins: Plugins) -> tuple[StackName, ...]:
    """The stacks that objectives need, in their order.

    :param objectives: as ``--objective`` names them.
    :raises PluginError: there is no such objective, or it cannot be loaded.
    """
    names = (ObjectiveSelection.parse(text).name for text in objectives)
    needed = set().union(*(plugins.get("objective", name).load().stacks for name in names))
    return tuple(name for name in get_args(StackName) if name in needed)


def read_toml(path: Path) -> dict[str, Any]:
    """Read a settings file.

    :raises OptionError: it cannot be read, or is not TOML (with the file and the line).
    """
    LOG.debug("reading %s", path)
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise OptionError(
            f"the settings file {path} cannot be read: {error.strerror}",
            expected="a TOML file such as a run's config.toml",
        ) from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise OptionError(f"{path}, line {line}: not UTF-8", expected="a TOML file") from error
    except tomllib.TOMLDecodeError as error:
        raise OptionError(f"{path}: {error}", expected="a TOML file") from error


def read_config(file: Path | None, resume: str | None) -> dict[str, Any]:
    """The TOML tree under the flags: that of --config, else that of the run to resume.

    :param file, resume: the values of --config and --resume.
    :raises RunError: there is no such run.
    """
    if file is None:
        if resume is None or resume == AUTO:
            return {}
        file = Path(resume) / CONFIG_NAME
        if not file.is_file():
            raise RunError(
                f"--resume {resume} holds no run: it has no {CONFIG_NAME}",
                expected="the folder of a run, or auto",
            )
    return read_toml(file)


def to_toml(settings: Settings) -> str:
    """The text of ``config.toml``: every resolved option, defaults included."""
    import tomli_w

    tree = {name: to_mapping(options) for name, options in settings.sections.items()}
    for key in NOT_REPEATED:
        tree["train"].pop(key, None)
    return f"# Repeat this run: xlm train --config THIS_FILE\n{tomli_w.dumps(tree)}"


def check_tables(config: Values) -> None:
    """Refuse a TOML tree with a value outside any section.

    :raises OptionError: there is one.
    """
    for name, value in config.items():
        if not isinstance(value, Mapping):
            raise OptionError(
                f"{name} = {value!r} is outside any section",
                expected=f"{name} in a section such as [train]",
            )


def merged_options(
    options: type[OptionsT], name: str, config: Values, flags: Mapping[str, Values]
) -> OptionsT:
    """One section's options: flags over TOML over defaults.

    :raises OptionError: an unknown option, or a value outside its limits.
    """
    merged = {key.replace("_", "-"): value for key, value in config.get(name, {}).items()}
    merged |= {key.replace("_", "-"): value for key, value in flags.get(name, {}).items()}
    return build(options, merged, name)


def merged_sections(
    sections: Mapping[str, type],
    config: Values,
    flags: Mapping[str, Values],
    errors: Sequence[OptionError] = (),
) -> dict[str, Any]:
    """The options of several sections, by section.

    :param errors: found before; they are raised with those of the sections.
    :raises OptionError: everything that is wrong, at once.
    """
    built: dict[str, Any] = {}
    found = list(errors)
    for name, options in sections.items():
        try:
            built[name] = merged_options(options, name, config, flags)
        except OptionError as error:
            found.append(error)
    raise_together(found)
    return built


def _not_selected(section: str, plugins: Plugins) -> OptionError:
    for kind in ("objective", "layer"):
        for component in plugins.registry.of(kind):
            if section in (component.name, component.full_name):
                return OptionError(
                    f"[{section}] has options of the {kind} {section}, which is not selected",
                    remedy=f"select it with --{kind} {section}, or remove [{section}]",
                )
    return OptionError(
        f"unknown section [{section}]",
        expected=", ".join(f"[{name}]" for name in CORE_SECTIONS) + " or a selected plugin's name",
        remedy="`xlm plugins` lists what is installed",
    )
