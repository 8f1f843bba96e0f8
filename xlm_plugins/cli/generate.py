"""``xlm generate``: what a causal language model writes behind prompts."""

from __future__ import annotations

import click

from xlm_plugins.cli.options import Section, SectionedCommand, errors_option, given
from xlm_plugins.cli.pipes import (
    batch_tokens_option,
    language_option,
    lots_of_lines,
    open_model,
    progress,
    strict_option,
    threads_option,
    with_tokens,
    write_lines,
)
from xlm_plugins.config.model import GenerationOptions
from xlm_plugins.core.options import build

CORE = (Section("generation", "Generation", GenerationOptions),)


@click.command(cls=SectionedCommand, core=CORE)
@click.argument("run", metavar="RUN")
@click.argument("prompts", nargs=-1, metavar="[PROMPT]...")
@language_option
@click.option(
    "--number",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Lines to write for each prompt: so many samples, or the best of --beam.",
)
@click.option(
    "--max-length",
    type=click.IntRange(min=1),
    help="Tokens to write at most.  [default 100, or half of the model's positions]",
)
@click.option("--scores", is_flag=True, help="Put its score and a tab before each line.")
@click.option(
    "--seed", type=click.IntRange(min=0), default=1, show_default=True, help="Of --sample."
)
@strict_option
@batch_tokens_option
@threads_option
@errors_option
@click.pass_context
def generate(
    context: click.Context,
    run: str,
    prompts: tuple[str, ...],
    language: str | None,
    number: int,
    max_length: int | None,
    scores: bool,
    seed: int,
    strict: bool,
    batch_tokens: int | None,
    threads: int | None,
    errors: str,
) -> None:
    """Go on with the PROMPTs, or with the lines of standard input.

    RUN is a run folder (its best model), RUN@last, RUN@step-N, or a bundle; the model must have
    been trained on clm.

    Every line holds the prompt and what follows; an empty prompt begins a new text.  Of a prompt
    that is too long the model reads the end.
    """
    options = build(GenerationOptions, given(context).get("generation", {}), "generation")

    import torch

    from xlm_plugins.inference.generate import Writer

    torch.manual_seed(seed)
    bundle = open_model(context, run, threads)
    writer = Writer(
        bundle, language, options, number=number, max_tokens=max_length, batch_tokens=batch_tokens
    )
    lots = with_tokens(
        lots_of_lines(errors, prompts),
        writer.encode,
        writer.longest,
        strict=strict,
        name="prompt" if prompts else "standard input, line",
    )
    with progress("written") as advance:
        for texts, sentences in lots:
            found = writer.write(texts, sentences, advance)
            every = (continuation for of_text in found for continuation in of_text)
            write_lines(f"{c.score:.4f}\t{c.text}" if scores else c.text for c in every)
