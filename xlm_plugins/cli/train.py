"""``xlm train``: resolve the settings, then train."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click

from xlm_plugins.cli.options import Section, SectionedCommand, config_option, given, given_by
from xlm_plugins.config.changes import not_repeated
from xlm_plugins.config.model import GenerationOptions, ModelOptions
from xlm_plugins.config.origins import origins, origins_below
from xlm_plugins.config.settings import UnresolvedSettings, read_config
from xlm_plugins.config.training import OptimizerOptions, TrainOptions
from xlm_plugins.core.messages import warn

_TRANSLATION = "Translation during evaluation"
CORE = (
    Section("train", "Run", TrainOptions),
    Section("model", "Model", ModelOptions),
    Section("optimizer", "Optimizer", OptimizerOptions),
    Section("generation", _TRANSLATION, GenerationOptions, "generation.", advanced=True),
)
_CONFIG = f"{__name__}.config"
_SETTINGS = f"{__name__}.settings"


def select(first: click.Context) -> list[Section]:
    """One section for each component that flags, the TOML file or --init select."""
    flags = given(first)
    resume = flags.get("train", {}).get("resume")
    config = first.meta[_CONFIG] = read_config(first.params["config"], resume)
    settings = UnresolvedSettings.read(config, flags, first.obj.plugins)
    first.meta[_SETTINGS] = settings
    return [Section.of(component, name) for name, component in settings.components.items()]


@click.command(
    cls=SectionedCommand,
    core=CORE,
    select=select,
    epilog="Options of a plugin appear once it is selected: --objective tlm --layer pkm --help.",
)
@config_option
@click.option(
    "--dry-run", is_flag=True, help="Show what would be trained; train nothing, write no run."
)
@click.pass_context
def train(context: click.Context, config: Path | None, dry_run: bool) -> int:
    """Train a model with the objectives and layers that you select.

    With --resume RUN alone, the settings are those of RUN.
    """
    # `select` has read the file.
    plugins = context.obj.plugins
    settings = context.meta[_SETTINGS].resolve(given(context), plugins)
    below = origins_below(config, context.meta[_CONFIG], settings.train.resume)
    inherits = bool(settings.train.init)
    settings = replace(
        settings,
        settings_from=origins(settings.sections, given_by(context), below, inherits=inherits),
    )

    from xlm_plugins.core.errors import RESUMABLE_STATUS
    from xlm_plugins.training.distributed.process_group import World
    from xlm_plugins.training.pretraining.job import dry_run as run_dry
    from xlm_plugins.training.pretraining.job import train as run_training

    if config is not None and World.from_environment().rank == 0:
        for line in not_repeated(config):
            warn(line)
    if dry_run:
        run_dry(settings, plugins)
        return 0
    outcome = run_training(settings, plugins)
    was_stopped = outcome.reason.startswith("SIG")
    if World.from_environment().rank == 0:
        click.echo(outcome.path)
        if was_stopped:
            warn(
                f"{outcome.reason}: saved and stopped after {outcome.update:,} steps\n"
                f"to resume: xlm train --resume {outcome.path}"
            )
    return RESUMABLE_STATUS if was_stopped else 0
