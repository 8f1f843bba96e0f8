"""``xlm train``: read the settings, then train."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from xlm_plugins.cli.options import Section, SectionedCommand, all_given, given
from xlm_plugins.core.errors import RunError
from xlm_plugins.core.made_with import recorded_plugins
from xlm_plugins.core.plugins import Plugins
from xlm_plugins.model.config import GenerationOptions, ModelOptions
from xlm_plugins.training.config import OptimizerOptions, TrainOptions
from xlm_plugins.training.settings import read_toml, resolve, selected_components

CORE = (
    Section("model", "Model", ModelOptions),
    Section("optimizer", "Optimizer", OptimizerOptions),
    Section("train", "Run", TrainOptions),
    Section(
        "generation", "Translations that an evaluation makes", GenerationOptions, "generation."
    ),
)
AUTO = "auto"


def sections(plugins: Plugins, arguments: Sequence[str]) -> list[Section]:
    """The core's sections, and one for each component that flags or the TOML file select."""
    resume = all_given(arguments, "--resume")
    config = _config(all_given(arguments, "--config"), resume)
    selections = {}
    for key in ("objective", "layer"):
        written = config.get("train", {}).get(key, [])
        written = [written] if isinstance(written, str) else written
        selections[f"{key}s"] = all_given(arguments, f"--{key}") or written
    made_with = recorded_plugins(Path(resume[-1])) if resume else {}
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
    tree = _config([str(config)] if config else [], [resume] if resume else [])
    settings = resolve(tree, flags, plugins)

    from xlm_plugins.training.launch import World
    from xlm_plugins.training.signals import RESUMABLE_STATUS
    from xlm_plugins.training.start import train as run_training

    outcome = run_training(settings, plugins)
    was_stopped = outcome.reason.startswith("SIG")
    if World.from_environment().rank == 0:
        click.echo(outcome.path)
        if was_stopped:
            told = f"{outcome.reason}: saved and stopped after {outcome.update:,} steps"
            click.echo(f"{told}\nto go on: xlm train --resume {outcome.path}", err=True)
    return RESUMABLE_STATUS if was_stopped else 0


def _config(config: Sequence[str], resume: Sequence[str]) -> dict[str, Any]:
    """The TOML tree under the flags: --config's, else that of the run to go on with.

    :raises RunError: there is no such run.
    """
    if config:
        return read_toml(Path(config[-1]))
    if not resume or resume[-1] == AUTO:
        return {}
    recorded = Path(resume[-1]) / "config.toml"
    if not recorded.is_file():
        raise RunError(
            f"--resume {resume[-1]}: it holds no run, for it has no config.toml",
            expected="a folder that `xlm train` wrote, or auto",
        )
    return read_toml(recorded)
