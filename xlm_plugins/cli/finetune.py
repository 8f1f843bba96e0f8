"""``xlm finetune``: fine-tune an encoder on a downstream task."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from xlm_plugins.cli.options import Section, SectionedCommand, config_option, given, given_by
from xlm_plugins.cli.values import components
from xlm_plugins.config.changes import not_repeated
from xlm_plugins.config.finetune_settings import resolve_finetune, task_of
from xlm_plugins.config.origins import origins, origins_below
from xlm_plugins.config.settings import read_config
from xlm_plugins.config.training import FinetuneOptimizerOptions, FinetuneOptions
from xlm_plugins.core.errors import OptionError
from xlm_plugins.core.messages import is_quiet, note, note_on, warn

if TYPE_CHECKING:
    from xlm_plugins.training.finetuning.seeds import Results

CORE = (
    Section("finetune", "Run", FinetuneOptions),
    Section("optimizer", "Optimizer", FinetuneOptimizerOptions),
)
_CONFIG = f"{__name__}.config"


def select(first: click.Context) -> list[Section]:
    """The section of the task, which an argument or the TOML file names."""
    plugins = first.obj.plugins
    resume = given(first).get("finetune", {}).get("resume")
    config = first.meta[_CONFIG] = read_config(first.params["config"], resume)
    task = _task_argument(first) or task_of(config)
    return [Section.of(plugins.get("task", task), task)] if task else []


def _task_argument(first: click.Context) -> str | None:
    """The first argument that names a task.

    A task's own flags are still unknown, so they and their values are among the arguments.
    """
    tasks = first.obj.plugins.registry.of("task")
    names = {name for task in tasks for name in (task.name, task.full_name)}
    arguments: tuple[str, ...] = ("", first.params["task"], *first.args)
    for before, argument in itertools.pairwise(arguments):
        is_value = before.startswith("--") and "=" not in before
        if argument in names and not is_value:
            return argument
    return None


@click.command(
    cls=SectionedCommand,
    core=CORE,
    select=select,
    epilog="Options of a task appear once it is named: xlm finetune classify --help.",
)
@click.argument("task", required=False, metavar="TASK", shell_complete=components("task"))
@config_option
@click.option(
    "--dry-run", is_flag=True, help="Show what would be trained; train nothing, write no run."
)
@click.pass_context
def finetune(context: click.Context, task: str | None, config: Path | None, dry_run: bool) -> int:
    """Fine-tune the encoder of a model, with a new head, on TASK.

    With --resume RUN alone, the task and the settings are those of RUN.

    The best model by the first validation metric is evaluated on all validation and test rows:
    metrics go to RUN/results.json, predictions for test rows to RUN/predictions.
    """
    # `select` has read the file.
    plugins, tree = context.obj.plugins, context.meta[_CONFIG]
    name = task or task_of(tree)
    if name is None:
        installed = ", ".join(c.name for c in plugins.registry.of("task"))
        raise OptionError(
            "no task is named to fine-tune on",
            expected=f"one of {installed}" if installed else "an installed task",
            remedy="xlm finetune classify --from RUN ...",
        )
    settings = resolve_finetune(name, tree, given(context), plugins)
    below = origins_below(config, tree, settings.finetune.resume)
    settings = replace(settings, settings_from=origins(settings.sections, given_by(context), below))

    from xlm_plugins.core.errors import RESUMABLE_STATUS
    from xlm_plugins.training.distributed.process_group import World
    from xlm_plugins.training.finetuning.seeds import dry_run as run_dry
    from xlm_plugins.training.finetuning.seeds import finetune as run_finetuning

    if config is not None and World.from_environment().rank == 0:
        for line in not_repeated(config):
            warn(line)
    if dry_run:
        run_dry(settings, plugins)
        return 0
    results = run_finetuning(settings, plugins)
    was_stopped = results.reason.startswith("SIG")
    if World.from_environment().rank == 0:
        _show(results, len(results.by_seed))
        click.echo(results.path)
        if was_stopped:
            warn(
                f"{results.reason}: saved and stopped\n"
                f"to resume: xlm finetune --resume {results.path}"
            )
    return RESUMABLE_STATUS if was_stopped else 0


def _show(results: Results, n_seeds: int) -> None:
    """Print the metrics as a table, and the remarks, on standard error."""
    from rich.console import Console
    from rich.table import Table

    console = Console(stderr=True, quiet=is_quiet())
    if results.means:
        title = f"mean and deviation over {n_seeds} seeds" if n_seeds > 1 else ""
        table = Table("metric", "value", box=None, pad_edge=False, title=title or None)
        deviations = results.deviations
        for name, value in results.means.items():
            spread = f" ± {deviations[name]:.1f}" if n_seeds > 1 else ""
            table.add_row(name, f"{value:.1f}{spread}")
            note_on(None, f"{name} {value:.1f}{spread}")
        console.print(table)
    for remark in results.remarks:
        note(remark)
