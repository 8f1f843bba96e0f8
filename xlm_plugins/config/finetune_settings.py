"""Settings of a fine-tuning run, from TOML and flags, in one checked object.

The TOML form has the sections ``[finetune]`` and ``[optimizer]``, and one under the task's name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from xlm_plugins.config.settings import NOT_REPEATED, Values, check_tables, merged_sections
from xlm_plugins.config.training import FinetuneOptimizerOptions, FinetuneOptions
from xlm_plugins.core.errors import OptionError
from xlm_plugins.core.options import to_mapping, with_absolute_paths
from xlm_plugins.core.plugins import Plugins
from xlm_plugins.core.registry import Component
from xlm_plugins.runs.layout import absolute_reference

CORE_SECTIONS = ("finetune", "optimizer")


@dataclass(frozen=True)
class FinetuneSettings:
    """The settings of one fine-tuning run.

    :param selected: the task as the user named it, which is also the name of its section.
    :param component: the task.
    :param task: the task's options object.
    :param settings_from: where each was given (`config.origins.Origins`), if that is known.
    """

    selected: str
    component: Component
    finetune: FinetuneOptions
    optimizer: FinetuneOptimizerOptions
    task: Any
    settings_from: Mapping[str, str] = field(default_factory=dict, compare=False)

    @property
    def sections(self) -> dict[str, Any]:
        """All options objects, by their section of the TOML form."""
        return {
            "finetune": self.finetune,
            "optimizer": self.optimizer,
            self.selected: self.task,
        }


def task_of(config: Values) -> str | None:
    """The task of a settings file: the only section that is not the core's."""
    own = [name for name in config if name not in CORE_SECTIONS]
    return own[0] if len(own) == 1 else None


def resolve_finetune(
    task: str, config: Values, flags: Mapping[str, Values], plugins: Plugins
) -> FinetuneSettings:
    """Check a TOML tree, override it with the flags, and build the settings.

    :param task: as the user named it.
    :param config: the TOML tree; empty for none.
    :param flags: the flags that were given: by section, then by option name.
    :raises OptionError: an unknown section or option, or a value outside its limits.
    :raises PluginError: the task is missing, broken or ambiguous.
    """
    check_tables(config)
    component = plugins.get("task", task)
    sections = {
        "finetune": FinetuneOptions,
        "optimizer": FinetuneOptimizerOptions,
        task: component.options,
    }
    expected = f"[finetune], [optimizer] or [{task}]"
    unknown = [
        OptionError(f"unknown section [{name}]", expected=expected)
        for name in config
        if name not in sections
    ]
    built = merged_sections(sections, config, flags, unknown)
    return FinetuneSettings(task, component, *built.values())


def to_toml(settings: FinetuneSettings) -> str:
    """The text of ``config.toml``: every resolved option, with absolute paths."""
    import tomli_w

    options = settings.finetune
    if options.from_ is not None:
        options = replace(options, from_=absolute_reference(options.from_))
    tree = {"finetune": to_mapping(options), "optimizer": to_mapping(settings.optimizer)}
    for key in NOT_REPEATED:
        tree["finetune"].pop(key, None)
    tree[settings.selected] = to_mapping(with_absolute_paths(settings.task))
    return f"# Repeat this run: xlm finetune --config THIS_FILE\n{tomli_w.dumps(tree)}"
