"""``xlm evaluate``: measure a model on one split of a data set."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from xlm_plugins.cli.options import Section, SectionedCommand, given
from xlm_plugins.cli.values import run_argument
from xlm_plugins.config.model import GenerationOptions
from xlm_plugins.core.messages import is_quiet
from xlm_plugins.core.options import build

CORE = (Section("generation", "Generation (for models that translate)", GenerationOptions),)


@click.command(cls=SectionedCommand, core=CORE)
@run_argument
@click.option("--data", help="Data set, a folder or URL; that of the run if unset.")
@click.option("--split", default="test", show_default=True, help="Split to measure on.")
@click.option(
    "--sentences",
    type=click.IntRange(min=0),
    help="Translate this many sentences per direction, evenly spread.  [default: all]",
)
@click.option(
    "--hypotheses",
    type=click.Path(path_type=Path),
    help="Folder to write translations to, with the signatures of their scores.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the metrics as one JSON object.")
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads.  [default: all]")
@click.pass_context
def evaluate(
    context: click.Context,
    run: str,
    data: str | None,
    split: str,
    sentences: int | None,
    hypotheses: Path | None,
    as_json: bool,
    threads: int | None,
) -> None:
    """Measure a model: perplexity and accuracy per objective, language and pair, and BLEU and chrF
    of its translations.

    RUN is a run folder (its best model), RUN@last, RUN@step-N, or a bundle.
    """
    options = build(GenerationOptions, given(context).get("generation", {}), "generation")
    from rich.console import Console

    from xlm_plugins.model.nn.cpu_tuning import tune_host
    from xlm_plugins.runs.evaluation_table import evaluation_tables
    from xlm_plugins.training.pretraining.evaluation import evaluate_run

    tune_host(threads)
    with _bar() as on_progress:
        metrics = evaluate_run(
            run, data, split, context.obj.plugins,
            generation=options, n_sentences=sentences, keep=hypotheses, on_progress=on_progress,
        )  # fmt: skip
    if as_json:
        click.echo(json.dumps(metrics))
        return
    console = Console()
    for line in evaluation_tables(metrics, console.width):
        console.print(line, soft_wrap=True)


@contextmanager
def _bar() -> Iterator[Callable[[str, float], None]]:
    """While entered, a terminal shows on standard error how far an evaluation is."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

    console = Console(stderr=True)
    if is_quiet() or not console.is_terminal:
        yield lambda activity, share: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=1.0)

        def report(activity: str, share: float) -> None:
            progress.update(task, description=activity, completed=share)

        yield report
