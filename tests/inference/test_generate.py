"""Continuing text, against plain loops, independently of other prompts."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from xlm_plugins.config.model import GenerationOptions
from xlm_plugins.contracts.ragged import Ragged
from xlm_plugins.core.errors import OptionError
from xlm_plugins.inference.common import sentence_batch
from xlm_plugins.inference.generate import Continuation, TextGenerator
from xlm_plugins.model.bundle import Bundle

PROMPTS = ["a b c", "", "l k j i h", "g", "d e f", "c", "a b"]
EOS = 1


@pytest.fixture(scope="module", params=[("clm",), ("clm", "mt")], ids=["encoder", "decoder"])
def bundle(request: pytest.FixtureRequest, random_bundle: Callable[..., Bundle]) -> Bundle:
    """A causal encoder, and a decoder that reads no source."""
    return random_bundle(*request.param)


def written(
    bundle: Bundle, prompts: list[str], own: dict[str, Any] | None = None, **options: Any
) -> list[list[Continuation]]:
    generator = TextGenerator(
        bundle, "fr", GenerationOptions(**options), **{"max_tokens": 9, **(own or {})}
    )
    return generator.generate(prompts, generator.encode(prompts))


def texts_of(found: list[list[Continuation]]) -> list[list[str]]:
    return [[continuation.text for continuation in continuations] for continuations in found]


@torch.no_grad()
def log_probs_after(bundle: Bundle, row: list[int]) -> torch.Tensor:
    """The log-probabilities of the next token, by a forward pass over the whole row."""
    batch = sentence_batch(bundle, Ragged.of([row]), 1)
    stack = bundle.model.causal_stack
    return stack.scores(stack(batch, causal=True)).log_softmax(1)[len(row)]


def greedy_by_hand(bundle: Bundle, prompt: str, max_tokens: int) -> tuple[str, float]:
    row = bundle.tokenizer.encode_batch([prompt]).rows[0].tolist()
    n_prompt, total = len(row), 0.0
    while len(row) < n_prompt + max_tokens:
        log_probs = log_probs_after(bundle, row)
        allowed = log_probs.clone()
        allowed[[0, 2, 3, 4, 5]] = -torch.inf
        token = int(allowed.argmax())
        total += log_probs[token].item()
        if token == EOS:
            break
        row.append(token)
    else:
        total += log_probs_after(bundle, row)[EOS].item()
    return bundle.tokenizer.decode_batch([row])[0], total / (len(row) - n_prompt + 1)


def test_greedy_search_takes_the_most_probable_token(bundle: Bundle) -> None:
    found = written(bundle, PROMPTS)
    for prompt, (continuation,) in zip(PROMPTS, found, strict=True):
        text, score = greedy_by_hand(bundle, prompt, 9)
        assert continuation.text == text
        assert continuation.score == pytest.approx(score, rel=1e-4)
    assert len({len(text.split()) for (text,) in texts_of(found)}) > 2  # some end before the limit


@pytest.mark.parametrize("options", [{}, {"beam": 3}])
def test_other_rows_of_the_batch_do_not_matter(bundle: Bundle, options: dict[str, Any]) -> None:
    own = {"number": options.get("beam", 1)}
    expected = [written(bundle, [prompt], own, **options)[0] for prompt in PROMPTS]
    for batch_tokens in (1, 100, 10_000):
        found = written(bundle, PROMPTS, {**own, "batch_tokens": batch_tokens}, **options)
        assert texts_of(found) == texts_of(expected)
        scores = [[[c.score for c in row] for row in rows] for rows in (found, expected)]
        np.testing.assert_allclose(*scores, rtol=1e-4)


def test_a_beams_scores_are_the_models_log_probabilities(bundle: Bundle) -> None:
    (found,) = written(bundle, ["a b"], {"number": 4}, beam=4, length_penalty=0.0)
    assert [c.score for c in found] == sorted((c.score for c in found), reverse=True)
    assert len({c.text for c in found}) == 4
    for continuation in found:
        row = bundle.tokenizer.encode_batch([continuation.text]).rows[0].tolist()
        gained = [
            log_probs_after(bundle, row[:n])[token].item() for n, token in enumerate(row) if n >= 2
        ]
        if len(row) < 2 + 9:  # at its limit a hypothesis is closed without a word
            gained.append(log_probs_after(bundle, row)[EOS].item())
            assert continuation.score == pytest.approx(sum(gained), rel=1e-4)


def test_samples_follow_the_seed_and_differ(bundle: Bundle) -> None:
    def sampled(seed: int, **options: Any) -> list[list[str]]:
        torch.manual_seed(seed)
        return texts_of(written(bundle, PROMPTS, {"number": 3}, sample=True, **options))

    assert sampled(1, temperature=3.0) == sampled(1, temperature=3.0) != sampled(2, temperature=3.0)
    assert any(len({*texts}) > 1 for texts in sampled(1, temperature=3.0))
    greedy = texts_of(written(bundle, PROMPTS))
    assert sampled(1, top_k=1) == [texts * 3 for texts in greedy]


def test_tokens_are_sampled_with_their_probability(bundle: Bundle) -> None:
    torch.manual_seed(0)
    (found,) = written(bundle, ["a b"], {"number": 4000, "max_tokens": 1}, sample=True)
    row = bundle.tokenizer.encode_batch(["a b"]).rows[0].tolist()
    probabilities = log_probs_after(bundle, row).exp()
    probabilities[[0, 2, 3, 4, 5]] = 0
    probabilities /= probabilities.sum()
    token = int(probabilities.argmax())
    text = "a b" if token == EOS else f"a b {bundle.tokenizer.tokens()[token]}"
    share = sum(continuation.text == text for continuation in found) / 4000
    spread = math.sqrt(probabilities[token] * (1 - probabilities[token]) / 4000)
    assert abs(share - probabilities[token].item()) < 4 * spread + 1e-9


def test_the_prompt_is_kept_verbatim(bundle: Bundle) -> None:
    """Even what the tokenizer drops or does not know."""
    for prompt, read in (("  A-b,  b! ", "A b b"), ("a \r b", "a b"), ("z z?", "z z")):
        (((text,),), ((plain,),)) = (texts_of(written(bundle, [p])) for p in (prompt, read))
        assert text.startswith(prompt.rstrip().replace("\r", " "))
        assert text.removeprefix(prompt.rstrip().replace("\r", " ")) == plain.removeprefix(read)


def test_the_end_of_a_long_prompt_is_read(bundle: Bundle) -> None:
    generator = TextGenerator(bundle, "fr", max_tokens=9)
    assert generator.longest == 32 - 1 - 9
    begin, end = " ".join("l" * 22), " ".join("abcdefghijkabcdefghijk")
    found = written(bundle, [begin, end, f"{begin} {end}"])
    of_begin, of_end, of_both = (continuation.score for (continuation,) in found)
    assert of_both == pytest.approx(of_end, rel=1e-4)
    assert of_both != pytest.approx(of_begin, rel=1e-4)
    assert found[2][0].text.startswith(f"{begin} {end} ")
    everything = TextGenerator(bundle, "fr", max_tokens=31)
    assert everything.longest == 0
    assert len(everything.generate(["a b"], everything.encode(["a b"]))[0]) == 1
    assert TextGenerator(bundle, "fr").longest == 15  # half of the positions


def test_progress_counts_every_prompt_once(bundle: Bundle) -> None:
    counts: list[int] = []
    generator = TextGenerator(bundle, "fr", batch_tokens=1)
    assert len(generator.generate(PROMPTS, generator.encode(PROMPTS), counts.append)) == len(
        PROMPTS
    )
    assert counts == [1] * len(PROMPTS)
    assert generator.generate([], generator.encode([])) == []


@pytest.mark.parametrize(
    ("own", "options", "told"),
    [
        ({"number": 2}, {}, r"beam of 1 does not find 2 (.|\n)*--sample, or --beam 2"),
        ({"max_tokens": 32}, {}, "no positions for 32 tokens\nexpected: at most 31"),
        ({}, {"beam": 8}, "a beam of 8 is more than the model's vocabulary"),
    ],
)
def test_what_is_refused(bundle: Bundle, own: Any, options: Any, told: str) -> None:
    with pytest.raises(OptionError, match=told):
        written(bundle, ["a"], own, **options)


def test_models_that_cannot_generate_say_what_to_train(
    random_bundle: Callable[..., Bundle],
) -> None:
    for name in ("mlm", "mt"):
        with pytest.raises(OptionError, match=rf"on {name}\n(.|\n)*--init my-run --objective clm"):
            written(random_bundle(name), ["a"])
    with pytest.raises(OptionError, match="does not know the language 'xx'"):
        TextGenerator(random_bundle("clm"), "xx")
