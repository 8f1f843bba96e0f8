"""``xlm translate``: text in one language in, text in another out."""

from __future__ import annotations

import click

from xlm_plugins.cli.pipes import (
    encoded_chunks,
    generation_command,
    generation_options,
    open_model,
    pipe_options,
    progress,
    scores_option,
    seed_option,
    write_generated,
)
from xlm_plugins.cli.values import run_argument


@generation_command()
@run_argument
@click.option("--from", "source", required=True, metavar="LANGUAGE", help="Language of the text.")
@click.option(
    "--to", "target", required=True, metavar="LANGUAGE", help="Language to translate into."
)
@click.option(
    "--n-best",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Translations per line, best first; up to --beam.",
)
@scores_option
@seed_option
@click.option(
    "--batch-tokens",
    type=click.IntRange(min=1),
    help="Tokens per batch, each times --beam; bounds memory.  [default 4096]",
)
@pipe_options("strict")
@click.pass_context
def translate(
    context: click.Context,
    run: str,
    source: str,
    target: str,
    n_best: int,
    scores: bool,
    seed: int,
    batch_tokens: int | None,
    strict: bool,
    threads: int | None,
    errors: str,
) -> None:
    """Translate standard input, line by line.

    RUN is a run folder (its best model), RUN@last, RUN@step-N, or a bundle.

    Writes one line per line, in order; an empty line stays empty.  Text is UTF-8 in and out.
    Lines are read and written in chunks of some thousands: after an error nothing of its chunk,
    or of later ones, is written.
    """
    options = generation_options(context)

    import torch

    from xlm_plugins.inference.translate import Translator, check_direction

    torch.manual_seed(seed)
    bundle = open_model(context, run, threads)
    check_direction(bundle, source, target)
    translator = Translator(
        bundle, source, target, options, n_best=n_best, batch_tokens=batch_tokens
    )
    with progress("translated") as advance:
        for _, sentences in encoded_chunks(translator, errors, strict=strict):
            write_generated(translator.translate(sentences, advance), with_scores=scores)
