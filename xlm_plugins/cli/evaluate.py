"""``xlm evaluate``: a model's metrics on a split of a data set."""

from __future__ import annotations

import json
from pathlib import Path

import click


@click.command()
@click.argument("run", metavar="RUN")
@click.option("--data", type=click.Path(path_type=Path), help="Data set; the run's own if unset.")
@click.option("--split", default="test", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="The metrics as one JSON object.")
@click.pass_context
def evaluate(
    context: click.Context, run: str, data: Path | None, split: str, as_json: bool
) -> None:
    """Measure a model: perplexity and accuracy per objective, language and pair.

    RUN is a run folder (its best model), RUN@last, RUN@step-N, or a bundle.
    """
    from rich.console import Console
    from rich.table import Table

    from xlm_plugins.training.evaluation import evaluate_run

    metrics = evaluate_run(run, data, split, context.obj.plugins)
    if as_json:
        click.echo(json.dumps(metrics))
        return
    table = Table("metric", "value", box=None, pad_edge=False)
    for name, value in metrics.items():
        table.add_row(name, f"{value:,.3f}")
    Console().print(table)
