"""``xlm score``: how probable each line of text is, by pipe."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from xlm_plugins.cli.options import errors_option
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

if TYPE_CHECKING:
    from xlm_plugins.inference.score import SentenceScore


@click.command()
@click.argument("run", metavar="RUN")
@language_option
@click.option(
    "--kind",
    type=click.Choice(["causal", "pseudo"]),
    help="Which score, where the model was trained for both.  [default causal]",
)
@click.option("--json-lines", is_flag=True, help="One JSON object a line, with every token.")
@strict_option
@batch_tokens_option
@threads_option
@errors_option
@click.pass_context
def score(
    context: click.Context,
    run: str,
    language: str | None,
    kind: str | None,
    json_lines: bool,
    strict: bool,
    batch_tokens: int | None,
    threads: int | None,
    errors: str,
) -> None:
    """Put a log-probability and a tab before each line of standard input.

    RUN is a run folder (its best model), RUN@last, RUN@step-N, or a bundle.

    From a model trained on clm it is that of the sentence and its end (causal); from one trained
    on mlm or tlm the sum over its tokens, each masked in turn (pseudo-log-likelihood).  Natural
    logarithms; longer lines have lower ones.
    """
    from xlm_plugins.inference.score import Scorer

    bundle = open_model(context, run, threads)
    scorer = Scorer(bundle, language, kind=kind, batch_tokens=batch_tokens)
    lots = with_tokens(lots_of_lines(errors), scorer.encode, scorer.longest, strict=strict)
    show = _as_json if json_lines else _before_text
    with progress("scored") as advance:
        for texts, sentences in lots:
            found = scorer.score(sentences, advance)
            write_lines(map(show, texts, found))


def _before_text(text: str, found: SentenceScore) -> str:
    return f"{found.score:.4f}\t{text}"


def _as_json(text: str, found: SentenceScore) -> str:
    tokens = zip(found.tokens, found.log_probabilities, strict=True)
    tree = {
        "text": text,
        "score": found.score,
        "n_tokens": len(found.tokens),
        "tokens": [{"token": token, "log_probability": share} for token, share in tokens],
    }
    return json.dumps(tree, ensure_ascii=False)
