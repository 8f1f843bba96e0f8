"""``xlm score``: the log-probability of each line of text."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from xlm_plugins.cli.pipes import encoded_chunks, open_model, pipe_options, progress, write_lines
from xlm_plugins.cli.values import run_argument

if TYPE_CHECKING:
    from xlm_plugins.inference.score import SentenceScore


@click.command()
@run_argument
@click.option(
    "--kind",
    type=click.Choice(["causal", "pseudo"]),
    help="Which score, if the model was trained for both.  [default causal]",
)
@click.option("--json-lines", is_flag=True, help="One JSON object per line, with every token.")
@pipe_options("language", "strict", "batch_tokens")
@click.pass_context
def score(
    context: click.Context,
    run: str,
    kind: str | None,
    json_lines: bool,
    language: str | None,
    strict: bool,
    batch_tokens: int | None,
    threads: int | None,
    errors: str,
) -> None:
    """Put a log-probability and a tab before each line of standard input.

    RUN is a run folder (its best model), RUN@last, RUN@step-N, or a bundle.

    A model trained to predict the next token, as by clm, gives that of the sentence and its end
    (causal); one trained to predict masked tokens, as by mlm or tlm, the sum over its tokens, each
    masked in turn (pseudo-log-likelihood).  Natural logarithms; longer lines score lower.
    """
    from xlm_plugins.inference.score import Scorer

    bundle = open_model(context, run, threads)
    scorer = Scorer(bundle, language, kind=kind, batch_tokens=batch_tokens)
    show = _as_json if json_lines else _before_text
    with progress("scored") as advance:
        for texts, sentences in encoded_chunks(scorer, errors, strict=strict):
            write_lines(map(show, texts, scorer.score(sentences, advance)))


def _before_text(text: str, found: SentenceScore) -> str:
    return f"{found.score:.4f}\t{text}"


def _as_json(text: str, found: SentenceScore) -> str:
    tokens = zip(found.tokens, found.log_probabilities, strict=True)
    tree = {
        "text": text,
        "score": found.score,
        "n_tokens": len(found.tokens),
        "tokens": [{"token": token, "log_probability": log_prob} for token, log_prob in tokens],
    }
    return json.dumps(tree, ensure_ascii=False)
