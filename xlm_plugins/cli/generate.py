"""``xlm generate``: prompts continued by a causal language model."""

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
@click.argument("prompts", nargs=-1, metavar="[PROMPT]...")
@click.option(
    "--number",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Lines per prompt: that many samples, or the best of --beam.",
)
@click.option(
    "--max-length",
    type=click.IntRange(min=1),
    help="Most tokens to generate.  [default 100, or half of the model's positions]",
)
@scores_option
@seed_option
@pipe_options("language", "strict", "batch_tokens")
@click.pass_context
def generate(
    context: click.Context,
    run: str,
    prompts: tuple[str, ...],
    number: int,
    max_length: int | None,
    scores: bool,
    seed: int,
    language: str | None,
    strict: bool,
    batch_tokens: int | None,
    threads: int | None,
    errors: str,
) -> None:
    """Continue the PROMPTs, or the lines of standard input.

    RUN is a run folder (its best model), RUN@last, RUN@step-N, or a bundle; the model must have
    been trained to predict the next token, as by clm.

    Every line holds the prompt and its continuation; an empty prompt starts a new text.  Of a
    prompt that is too long, the model reads the end.
    """
    options = generation_options(context)

    import torch

    from xlm_plugins.inference.generate import TextGenerator

    torch.manual_seed(seed)
    bundle = open_model(context, run, threads)
    generator = TextGenerator(
        bundle, language, options, number=number, max_tokens=max_length, batch_tokens=batch_tokens
    )
    with progress("continued") as advance:
        for texts, tokens in encoded_chunks(generator, errors, prompts, strict=strict):
            found = generator.generate(texts, tokens, advance)
            write_generated(found, with_scores=scores)
