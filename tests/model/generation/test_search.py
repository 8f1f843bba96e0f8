"""Generation: pool, compaction and cache do not change what is generated."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor

from xlm_plugins.config.model import GenerationOptions, ModelOptions
from xlm_plugins.contracts.batch import Batch, Vocabulary
from xlm_plugins.core.errors import OptionError
from xlm_plugins.model.generation import search as generation
from xlm_plugins.model.generation.incremental import GROWTH, Decoding
from xlm_plugins.model.generation.search import (
    Hypotheses,
    beam_search,
    generate,
    length_limits,
    read_source,
)
from xlm_plugins.model.model import Model
from xlm_plugins.model.nn.transformer import Source

EOS, SIZE = 1, 12
UNK = 4
VOCABULARY = Vocabulary(SIZE, {"eos": EOS, "unk": UNK}, (0, EOS, 2, 3))  # text encodes to UNK
LENGTHS = [3, 9, 5, 5, 14, 2]


@pytest.fixture(scope="module")
def model() -> Model:
    """Two languages, and scores so far apart that some sentences end early."""
    torch.manual_seed(3)
    options = ModelOptions(dim=16, n_layers=2, n_heads=4, max_positions=64)
    model = Model(options, SIZE, 2, {"encoder", "decoder"}, pad=2).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.4 * torch.randn_like(parameter)
    return model


def sources(*which: int) -> Batch:
    generator = torch.Generator().manual_seed(5)
    rows = [torch.randint(5, SIZE, (length,), generator=generator) for length in LENGTHS]
    rows = [rows[i] for i in which or range(len(rows))]
    nothing = torch.empty(0, dtype=torch.long)
    return Batch(
        tokens=torch.cat(rows),
        positions=torch.cat([torch.arange(len(row)) for row in rows]),
        languages=torch.zeros(sum(map(len, rows)), dtype=torch.long),
        offsets=torch.tensor([0, *np.cumsum([len(row) for row in rows])]),
        predicted=nothing,
        targets=nothing,
        sample_ids=torch.arange(len(rows)),
    )


def written(model: Model, source: Batch, **options: object) -> Hypotheses:
    return generate(model, source, 1, VOCABULARY, GenerationOptions(**options))


@torch.no_grad()
def log_probability(model: Model, source: Batch, row: list[int]) -> Tensor:
    """Of every token of one translation and of its end, by a forward pass over all of it."""
    tokens = torch.tensor([EOS, *row])
    batch = Batch(
        tokens,
        torch.arange(len(tokens)),
        torch.ones_like(tokens),
        torch.tensor([0, len(tokens)]),
        *[torch.empty(0)] * 3,
    )
    states = Source(model.encoder(source), source.offsets)
    log_probs = model.decoder.scores(model.decoder(batch, causal=True, source=states)).log_softmax(
        1
    )
    return log_probs.gather(1, torch.tensor([*row, EOS])[:, None])[:, 0]


def test_cached_keys_and_values_agree_with_a_full_pass(model: Model) -> None:
    source = sources(0, 4)
    tokens = torch.randint(5, SIZE, (2, GROWTH + 3))
    states = Source(model.encoder(source), source.offsets)
    decoding = Decoding(model.decoder, 2, language=1, source=states)
    stepwise = torch.stack([decoding.append(column) for column in tokens.T], 1)
    batch = Batch(
        tokens.flatten(),
        torch.arange(tokens.shape[1]).repeat(2),
        torch.ones(tokens.numel(), dtype=torch.long),
        torch.arange(3) * tokens.shape[1],
        *[torch.empty(0)] * 3,
    )
    whole = model.decoder(batch, causal=True, source=states)
    torch.testing.assert_close(stepwise.flatten(0, 1), whole)


@pytest.mark.parametrize("beam", [1, 3])
def test_scores_are_the_models_log_probabilities(model: Model, beam: int) -> None:
    limits = length_limits(sources(), 64)
    found = written(model, sources(), beam=beam, length_penalty=0.7)
    for rank, index in itertools.product(range(beam), range(len(LENGTHS))):
        row = found.rows(rank)[index]
        gained = log_probability(model, sources(index), row)
        at_limit = len(row) + 2 == limits[index]
        # At its limit a beam's hypothesis loses its last word, but not that word's probability.
        if not at_limit:
            expected = gained.sum() / (len(row) + 1) ** 0.7
            torch.testing.assert_close(found.scores[index, rank], expected)


@pytest.mark.parametrize("options", [{}, {"beam": 3}, {"beam": 4, "early_stopping": True}])
def test_other_rows_of_the_batch_do_not_matter(model: Model, options: dict[str, object]) -> None:
    together = written(model, sources(), **options)
    turned = written(model, sources(4, 1, 0, 2, 5, 3), **options)
    for rank in range(together.tokens.shape[1]):
        alone = [written(model, sources(i), **options).rows(rank)[0] for i in range(len(LENGTHS))]
        assert together.rows(rank) == alone
        assert [turned.rows(rank)[i] for i in (2, 1, 3, 5, 0, 4)] == alone


@pytest.mark.parametrize("beam", [1, 3])
def test_dropping_finished_sentences_changes_nothing(
    model: Model, beam: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = written(model, sources(), beam=beam)
    assert len(set(expected.lengths[:, 0].tolist())) > 2  # otherwise nothing is dropped early
    for share in (0.0, 1.1):
        monkeypatch.setattr(generation, "COMPACT_BELOW", share)
        found = written(model, sources(), beam=beam)
        assert found.rows() == expected.rows()
        torch.testing.assert_close(found.scores, expected.scores)


def test_a_wide_beam_finds_the_best_of_all_short_translations(model: Model) -> None:
    """With a beam as wide as the space of translations, the search misses nothing."""
    source, ordinary = sources(0), range(5, SIZE)
    every = [[], *([a] for a in ordinary), *([a, b] for a in ordinary for b in ordinary)]
    scores = [log_probability(model, source, row).sum().item() for row in every]
    options = GenerationOptions(beam=60, length_penalty=0.0)
    closed = torch.tensor([5])  # three words at most, the third only as the price of the limit
    decoding, begin = read_source(model, source, 1, width=60), torch.tensor([EOS])
    found = beam_search(decoding, begin, VOCABULARY, options, closed)
    ours = {tuple(row): s for row, s in zip(
        (found.rows(rank)[0] for rank in range(60)), found.scores[0].tolist(), strict=True
    ) if len(row) < 3}  # fmt: skip
    best = max(range(len(every)), key=scores.__getitem__)
    assert max(ours, key=ours.__getitem__) == tuple(every[best])
    assert max(ours.values()) == pytest.approx(scores[best], abs=1e-5)


@pytest.mark.parametrize("options", [{}, {"beam": 3}, {"sample": True, "temperature": 3.0}])
def test_special_tokens_are_never_generated_and_limits_hold(
    model: Model, options: dict[str, object]
) -> None:
    torch.manual_seed(1)
    found = written(model, sources(), **options)
    for row, limit in zip(found.rows(), length_limits(sources(), 64).tolist(), strict=True):
        assert set(row) <= set(range(5, SIZE))
        assert len(row) + 2 <= limit


def test_limits_follow_the_source_and_the_models_positions() -> None:
    assert length_limits(sources(), 20).tolist() == [8, 16, 11, 11, 20, 7]


def test_samples_follow_the_seed_and_their_options(model: Model) -> None:
    def sampled(seed: int, **options: object) -> list[list[int]]:
        torch.manual_seed(seed)
        return written(model, sources(), sample=True, **options).rows()

    greedy = written(model, sources()).rows()
    assert sampled(1, temperature=2.0) == sampled(1, temperature=2.0)
    assert sampled(1, temperature=2.0) != sampled(2, temperature=2.0)
    assert sampled(1, temperature=1e-3) == greedy
    assert sampled(1, temperature=5.0, top_k=1) == greedy
    assert sampled(1, temperature=2.0, top_p=1e-6) == greedy


def test_tokens_are_sampled_with_their_probability() -> None:
    log_probs = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log().expand(20_000, -1)
    torch.manual_seed(0)
    for options, expected in (
        ({}, [0.5, 0.3, 0.15, 0.05]),
        ({"top_k": 2}, [0.625, 0.375, 0, 0]),
        ({"top_p": 0.7}, [0.625, 0.375, 0, 0]),  # 0.5 alone is not enough
        ({"temperature": 0.5}, [0.6849, 0.2466, 0.0616, 0.0068]),
    ):
        drawn = generation._choose(log_probs, GenerationOptions(sample=True, **options))
        shares = torch.bincount(drawn, minlength=4) / len(drawn)
        torch.testing.assert_close(shares, torch.tensor(expected), atol=0.015, rtol=0)


def test_sampling_and_a_beam_exclude_each_other() -> None:
    with pytest.raises(OptionError, match="mutually exclusive"):
        GenerationOptions(beam=2, sample=True)
