"""The command: how many parameters a run's model has, and where."""

from __future__ import annotations

import click


@click.command("example-parameters")
@click.argument("run", metavar="RUN")
@click.pass_context
def parameters(context: click.Context, run: str) -> None:
    """Count the parameters of RUN's model by part."""
    # Imported here, since these names import torch, and `xlm --help` imports this file.
    from xlm_plugins import Bundle, find_bundle

    model = Bundle.load(find_bundle(run), context.obj.plugins).model
    counts: dict[str, int] = {}
    for name, parameter in model.named_parameters():
        part = ".".join(name.split(".")[:2])
        counts[part] = counts.get(part, 0) + parameter.numel()
    for part, n_parameters in counts.items():
        click.echo(f"{part}\t{n_parameters}")
