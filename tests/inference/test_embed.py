"""Sentence embeddings: what is pooled, independently of other sentences."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from xlm_plugins.contracts.ragged import Ragged
from xlm_plugins.core.errors import OptionError
from xlm_plugins.inference.common import sentence_batch
from xlm_plugins.inference.embed import Embedder, embed
from xlm_plugins.model.bundle import Bundle

TEXTS = ["a b c", "f", "c c c c c", "", "e d", "l k j i h g f e d c b a", "?!", "a b c"]


@pytest.fixture(scope="module")
def bundle(random_bundle: Callable[..., Bundle]) -> Bundle:
    return random_bundle("mlm", max_positions=128)


def states_of(bundle: Bundle, text: str, language: int, **options: Any) -> list[torch.Tensor]:
    """Each layer's states of one sentence alone."""
    batch = sentence_batch(bundle, bundle.tokenizer.encode_batch([text]), language)
    with torch.no_grad():
        return bundle.model.encoder.hidden_states(batch, **options)


@pytest.mark.parametrize("layer", [0, 1, 2, 3, -1, -4])
def test_an_embedding_is_the_mean_over_the_tokens_of_a_sentence(bundle: Bundle, layer: int) -> None:
    found = embed(bundle, TEXTS, "fr", layer=layer)
    for text, vector in zip(TEXTS, found, strict=True):
        states = states_of(bundle, text, 1)[layer]
        n_words = len(states) - 2
        expected = states[1:-1].mean(0) if n_words else states[1]  # the closing EOS
        np.testing.assert_allclose(vector, expected, rtol=1e-4, atol=1e-5)
    assert np.abs(embed(bundle, TEXTS, "en", layer=layer) - found).max() > 0.01


@pytest.mark.parametrize("layer", [0, 2, -1])
def test_pooling_by_the_first_position(bundle: Bundle, layer: int) -> None:
    found = embed(bundle, TEXTS, "en", layer=layer, pool="first")
    for text, vector in zip(TEXTS, found, strict=True):
        expected = states_of(bundle, text, 0)[layer][0]
        np.testing.assert_allclose(vector, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("pool", ["mean", "first"])
def test_batches_change_nothing(bundle: Bundle, pool: str) -> None:
    expected = embed(bundle, TEXTS, "en", pool=pool)
    for batch_tokens, n_batches in ((1, 8), (20, 4), (1000, 1)):
        counts: list[int] = []
        embedder = Embedder(bundle, "en", pool=pool, batch_tokens=batch_tokens)
        found = embedder.embed(embedder.encode(TEXTS), counts.append)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
        assert (len(counts), sum(counts)) == (n_batches, len(TEXTS))


def test_layers_after_the_requested_one_do_not_run(
    random_bundle: Callable[..., Bundle],
) -> None:
    bundle = random_bundle("mlm")
    expected = embed(bundle, TEXTS, "en", layer=1)
    with torch.no_grad():
        bundle.model.encoder.layers[1].attention.qkv.weight.fill_(torch.nan)
    np.testing.assert_array_equal(embed(bundle, TEXTS, "en", layer=1), expected)
    assert np.isnan(embed(bundle, TEXTS, "en", layer=2)).any()


def test_long_texts_are_cut_and_no_texts_give_no_vectors(
    random_bundle: Callable[..., Bundle],
) -> None:
    bundle = random_bundle("mlm", max_positions=8)
    assert embed(bundle, [], "en").shape == (0, 16)
    vectors = embed(bundle, ["a b c d e f", "a b c d e f a a a"], "en")
    np.testing.assert_allclose(vectors[0], vectors[1], rtol=1e-6)
    embedder = Embedder(bundle, "en")
    assert embedder.longest == 6
    assert embedder.embed(Ragged.of([])).dtype == np.float32


def test_a_causal_model_attends_causally(random_bundle: Callable[..., Bundle]) -> None:
    bundle = random_bundle("clm")
    (vector,) = embed(bundle, ["a b c"], "en")
    expected = states_of(bundle, "a b c", 0, causal=True)[-1][1:-1].mean(0)
    np.testing.assert_allclose(vector, expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(OptionError, match="its first position sees none of the sentence"):
        embed(bundle, ["a"], "en", pool="first")
    # With a decoder the encoder looks both ways; so it does where mlm trains it, too.
    for both_ways in (random_bundle("clm", "mlm"), random_bundle("clm", "mt")):
        (vector,) = embed(both_ways, ["a b c"], "en", pool="first")
        np.testing.assert_allclose(
            vector, states_of(both_ways, "a b c", 0)[-1][0], rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"layer": 4}, r"no layer 4\nexpected: 0 \(the embeddings\) to 3, or -1 \(.*\) to -4"),
        ({"layer": -5}, "no layer -5"),
        ({"pool": "last"}, "no pool 'last'\nexpected: mean or first"),
        ({"language": "xx"}, "does not know the language 'xx'"),
        ({"language": None}, "none was named"),
    ],
)
def test_what_is_refused(bundle: Bundle, options: dict[str, Any], told: str) -> None:
    with pytest.raises(OptionError, match=told):
        embed(bundle, ["a"], **{"language": "en", **options})
