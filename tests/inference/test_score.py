"""Scores of sentences, against a plain computation, independently of other sentences."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from xlm_plugins.contracts.batch import Samples, Step
from xlm_plugins.contracts.ragged import Ragged
from xlm_plugins.core.errors import OptionError
from xlm_plugins.inference.common import sentence_batch
from xlm_plugins.inference.score import Scorer, SentenceScore, kinds_of_score
from xlm_plugins.model.bundle import Bundle

TEXTS = ["a b c", "f", "c c c c c", "", "e d z", "l k j i h g f e d c b a", "?!", "a b c"]
EOS, MASK = 1, 4


def scored(bundle: Bundle, texts: list[str], language: str = "fr", **options: object):
    scorer = Scorer(bundle, language, **options)
    return scorer.score(scorer.encode(texts))


@torch.no_grad()
def pseudo_by_hand(bundle: Bundle, text: str) -> list[float]:
    """One mask at a time, one sentence at a time, all scores of all positions."""
    gained = []
    (row,) = bundle.tokenizer.encode_batch([text]).rows
    for place, token in enumerate(row.tolist()):
        batch = sentence_batch(bundle, Ragged.of([row]), 1)
        batch.tokens[1 + place] = bundle.tokenizer.special("mask")
        encoder = bundle.model.encoder
        log_probs = encoder.scores(encoder(batch)).log_softmax(1)
        gained.append(log_probs[1 + place, token].item())
    return gained


@pytest.mark.parametrize("batch_tokens", [1, 60, 10_000])
def test_a_pseudo_log_likelihood_masks_each_token_in_turn(
    random_bundle: Callable[..., Bundle], batch_tokens: int
) -> None:
    bundle = random_bundle("mlm")
    for text, found in zip(TEXTS, scored(bundle, TEXTS, batch_tokens=batch_tokens), strict=True):
        expected = pseudo_by_hand(bundle, text)
        np.testing.assert_allclose(found.log_probabilities, expected, rtol=1e-4, atol=1e-5)
        assert found.score == pytest.approx(sum(expected), rel=1e-4)
    assert scored(bundle, ["", "e d z"])[0] == SentenceScore(0.0, (), ())
    assert scored(bundle, ["e d z"])[0].tokens == ("e", "d", "<unk>")


@pytest.mark.parametrize("objectives", [("clm",), ("clm", "mt")])
def test_a_causal_score_is_the_negative_loss_of_clm(
    random_bundle: Callable[..., Bundle], objectives: tuple[str, ...]
) -> None:
    """If there is a decoder, it is the decoder that learns clm."""
    bundle = random_bundle(*objectives)
    clm = bundle.objectives["clm"]
    for text, found in zip(TEXTS, scored(bundle, TEXTS), strict=True):
        row = bundle.tokenizer.encode_batch([text]).framed(EOS, EOS)
        batch = clm.make_batch(Samples(np.arange(1), (row,)), Step(("fr",)), None)
        with torch.no_grad():
            loss = bundle.model(clm, batch).loss.item()
        assert found.score == pytest.approx(-loss, rel=1e-4)
        assert found.tokens[-1] == "<eos>"
        assert sum(found.log_probabilities) == pytest.approx(found.score)


@pytest.mark.parametrize("kind", ["causal", "pseudo"])
def test_batches_and_chunks_change_nothing(
    random_bundle: Callable[..., Bundle], monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    bundle = random_bundle("clm", "tlm", max_positions=128)
    expected = [found.score for found in scored(bundle, TEXTS, kind=kind)]
    monkeypatch.setattr("xlm_plugins.inference.score.rows_per_chunk", lambda *_: 3)
    for batch_tokens in (1, 60):
        counts: list[int] = []
        scorer = Scorer(bundle, "fr", kind=kind, batch_tokens=batch_tokens)
        found = [s.score for s in scorer.score(scorer.encode(TEXTS), counts.append)]
        np.testing.assert_allclose(found, expected, rtol=1e-4)
        assert sum(counts) == len(TEXTS)
        assert len(counts) > 1
    assert scored(bundle, [], kind=kind) == []


def test_the_kind_is_what_the_model_was_trained_for(random_bundle: Callable[..., Bundle]) -> None:
    both = random_bundle("clm", "mlm")
    assert kinds_of_score(both) == ("causal", "pseudo")
    assert scored(both, ["a"]) == scored(both, ["a"], kind="causal")
    assert scored(both, ["a"]) != scored(both, ["a"], kind="pseudo")
    assert kinds_of_score(random_bundle("tlm")) == ("pseudo",)
    with pytest.raises(OptionError, match=r"no causal score.*on mlm\nexpected: --kind pseudo"):
        scored(random_bundle("mlm"), ["a"], kind="causal")
    told = (
        r"trained on mt\nexpected: .*the next token.*or masked tokens.*\n"
        r"hint: .*--init my-run --objective mlm"
    )
    with pytest.raises(OptionError, match=told):
        scored(random_bundle("mt"), ["a"])


@pytest.mark.parametrize("kind", ["causal", "pseudo"])
def test_long_sentences_are_cut(random_bundle: Callable[..., Bundle], kind: str) -> None:
    bundle = random_bundle("clm", "mlm", max_positions=8)
    whole, cut = scored(bundle, ["a b c d e f", "a b c d e f g h"], kind=kind)
    assert cut.tokens == whole.tokens
    assert cut.score == pytest.approx(whole.score, rel=1e-5)
    with pytest.raises(OptionError, match="does not know the language 'xx'"):
        scored(bundle, ["a"], "xx", kind=kind)
