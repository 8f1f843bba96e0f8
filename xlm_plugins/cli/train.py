"""``xlm train``: read the settings, then train."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from xlm_plugins.cli.options import Section, SectionedCommand, all_given, given, last_given
from xlm_plugins.config.inherited import with_their_layers, with_their_model
from xlm_plugins.config.model import GenerationOptions, ModelOptions
from xlm_plugins.config.settings import recorded_settings, resolve, selected_components
from xlm_plugins.config.training import OptimizerOptions, TrainOptions
from xlm_plugins.core.plugins import Plugins
from xlm_plugins.core.recorded_components import recorded_plugins

CORE = (
    Section("model", "Model", ModelOptions),
    Section("optimizer", "Optimizer", OptimizerOptions),
    Section("train", "Run", TrainOptions),
    Section(
        "generation", "Translations that an evaluation makes", GenerationOptions, "generation."
    ),
)


def sections(plugins: Plugins, arguments: Sequence[str]) -> list[Section]:
    """The core's sections, and one for each component that flags or the TOML file select."""
    resume = last_given(arguments, "--resume")
    flags: dict[str, Any] = {"resume": resume, "out": last_given(arguments, "--out")}
    for key in ("objective", "layer", "init"):
        if written := all_given(arguments, f"--{key}"):
            flags[key] = [text for text in written if text]
    config = recorded_settings(last_given(arguments, "--config"), resume)
    config = with_their_layers(config, {"train": flags}, plugins)
    selections = {}
    for key in ("objective", "layer"):
        written = flags.get(key, config.get("train", {}).get(key, []))
        selections[f"{key}s"] = [written] if isinstance(written, str) else written
    made_with = recorded_plugins(Path(resume)) if resume else {}
    selected = selected_components(**selections, plugins=plugins, made_with=made_with)
    return [*CORE, *(Section.of(component, name) for name, component in selected.items())]


@click.command(
    cls=SectionedCommand,
    sections=sections,
    epilog="Options of a plugin show once it is selected: --objective tlm --layer pkm --help.",
)
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    help="TOML file with any of these options; flags win.  RUN/config.toml repeats a run.",
)
@click.pass_context
def train(context: click.Context, config: Path | None) -> int:
    """Train a model with the objectives and layers that you select.

    With --resume RUN alone, the settings are those of RUN.
    """
    plugins, flags = context.obj.plugins, given(context)
    resume = flags.get("train", {}).get("resume")
    tree = recorded_settings(str(config) if config else None, resume)
    tree = with_their_model(with_their_layers(tree, flags, plugins), flags)
    settings = resolve(tree, flags, plugins)

    from xlm_plugins.core.errors import RESUMABLE_STATUS
    from xlm_plugins.training.distributed.process_group import World
    from xlm_plugins.training.pretraining.job import train as run_training

    outcome = run_training(settings, plugins)
    was_stopped = outcome.reason.startswith("SIG")
    if World.from_environment().rank == 0:
        click.echo(outcome.path)
        if was_stopped:
            told = f"{outcome.reason}: saved and stopped after {outcome.update:,} steps"
            click.echo(f"{told}\nto go on: xlm train --resume {outcome.path}", err=True)
    return RESUMABLE_STATUS if was_stopped else 0
