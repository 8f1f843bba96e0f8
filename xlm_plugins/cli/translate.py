"""``xlm translate``: text in one language to text in another, by pipe."""

from __future__ import annotations

import click

from xlm_plugins.cli.options import Section, SectionedCommand, errors_option, given
from xlm_plugins.cli.pipes import (
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
@click.option("--from", "source", required=True, metavar="LANGUAGE", help="Language of the text.")
@click.option("--to", "target", required=True, metavar="LANGUAGE", help="Language to write.")
@click.option(
    "--n-best",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Lines to write for each line, the best first; up to --beam.",
)
@click.option("--scores", is_flag=True, help="Put its score and a tab before each line.")
@strict_option
@click.option(
    "--batch-tokens",
    type=click.IntRange(min=1),
    help="Tokens read together, each times --beam; bounds memory.  [default 4096]",
)
@click.option(
    "--seed", type=click.IntRange(min=0), default=1, show_default=True, help="Of --sample."
)
@threads_option
@errors_option
@click.pass_context
def translate(
    context: click.Context,
    run: str,
    source: str,
    target: str,
    n_best: int,
    scores: bool,
    strict: bool,
    batch_tokens: int | None,
    seed: int,
    threads: int | None,
    errors: str,
) -> None:
    """Translate standard input, line by line.

    RUN is a run folder (its best model), RUN@last, RUN@step-N, or a bundle.

    Every line gives one, in order, an empty line an empty one.  Text is UTF-8 in and out.
    Lines are read and written some thousands at a time: an error leaves out those of its lot
    and all that follow.
    """
    options = build(GenerationOptions, given(context).get("generation", {}), "generation")

    import torch

    from xlm_plugins.inference.translate import Translator

    torch.manual_seed(seed)
    bundle = open_model(context, run, threads)
    translator = Translator(
        bundle, source, target, options, n_best=n_best, batch_tokens=batch_tokens
    )
    lots = with_tokens(lots_of_lines(errors), translator.encode, translator.longest, strict=strict)
    with progress("translated") as advance:
        for _, sentences in lots:
            found = translator.translate(sentences, advance)
            every = (translation for translations in found for translation in translations)
            write_lines(f"{t.score:.4f}\t{t.text}" if scores else t.text for t in every)
