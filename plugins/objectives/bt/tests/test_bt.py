"""Back-translation: loops, and a source that the model itself has generated."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from xlm_bt.objective import BackTranslation, _as_source

from xlm_plugins import (
    Batch,
    DataError,
    GenerationOptions,
    Hypotheses,
    Layout,
    Model,
    OptionError,
    Ragged,
    Samples,
    Step,
    Vocabulary,
    generate,
)
from xlm_plugins.config.model import ModelOptions
from xlm_plugins.testing import check_objective

EOS = 1
ROLES = {"bos": 0, "eos": EOS, "pad": 2, "unk": 3, "mask": 5, "sep": 4}
VOCABULARY = Vocabulary(16, ROLES, tuple(range(6)))
LOOP = Step(("en", "fr", "en"))
EN, FR = 0, 1


def bt(**options: object) -> BackTranslation:
    return BackTranslation(GenerationOptions(**options), VOCABULARY, {"en": EN, "fr": FR})


@pytest.fixture(scope="module")
def model() -> Model:
    """Scores so far apart that it ends its sentences at different lengths."""
    torch.manual_seed(3)
    options = ModelOptions(dim=16, n_layers=1, n_heads=2, max_positions=32, dropout=0.1)
    model = Model(options, VOCABULARY.size, 2, ["encoder", "decoder"], ROLES["pad"]).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.4 * torch.randn_like(parameter)
    return model


def sentences(n: int) -> Samples:
    rng = np.random.default_rng(0)
    rows = [rng.integers(6, 16, size=length) for length in rng.integers(1, 9, size=n)]
    return Samples(np.arange(n) + 100, (Ragged.of(rows),))


def batch_of(samples: Samples) -> Batch:
    return bt().make_batch(samples, LOOP, np.random.default_rng(0))


def source_of(batch: Batch) -> Batch:
    assert batch.source is not None
    return batch.source


def test_the_contract() -> None:
    check_objective("bt")


def test_two_languages_give_both_loops() -> None:
    assert bt().layout(LOOP) is Layout.SENTENCE
    assert bt().steps(["en", "fr"], []) == [LOOP, Step(("fr", "en", "fr"))]


def test_three_languages_give_a_loop_for_each_two_in_order() -> None:
    found = [str(step) for step in bt().steps(["de", "en", "fr"], [("en", "fr")])]
    assert found == ["de-en-de", "de-fr-de", "en-de-en", "en-fr-en", "fr-de-fr", "fr-en-fr"]


@pytest.mark.parametrize(("have", "said"), [(["en"], "in en alone"), ([], "in no language")])
def test_one_language_is_not_enough(have: list[str], said: str) -> None:
    with pytest.raises(DataError, match=said) as raised:
        bt().steps(have, [("en", "fr")])
    assert "two languages" in raised.value.expected
    assert raised.value.remedy


@pytest.mark.parametrize(
    ("text", "problem", "expected"),
    [
        ("en-fr", "2 language", "a loop en-fr-en"),
        ("en-fr-de", "does not go .* and back", "en-fr-en"),
        ("fr-fr-fr", "does not go .* and back", "another in between"),
        ("en-xx-en", "by way of xx", "fr"),
    ],
)
def test_steps_that_are_not_loops_are_refused(text: str, problem: str, expected: str) -> None:
    with pytest.raises(OptionError, match=problem) as raised:
        bt().parse_step(text)
    assert expected in raised.value.expected
    assert bt().parse_step("en-fr-en") == LOOP


def test_a_beam_that_the_vocabulary_cannot_fill_is_refused() -> None:
    """With ten words, the first step of a search has ten candidates."""
    with pytest.raises(OptionError, match=r"--bt\.beam 6") as raised:
        bt(beam=6)
    assert "at most 5" in raised.value.expected
    assert bt(beam=5).options.beam == 5


def test_a_loop_trains_the_direction_back() -> None:
    assert bt().translations(LOOP) == (Step(("fr", "en")), LOOP)


def test_true_sentences_are_the_target_and_are_to_be_translated() -> None:
    batch = batch_of(Samples(np.array([9, 2]), (Ragged.of([[7, 8], [9]]),)))
    assert batch.tokens.tolist() == [EOS, 7, 8, EOS, 9]
    assert batch.targets.tolist() == [7, 8, EOS, 9, EOS]
    assert batch.predicted.tolist() == [0, 1, 2, 3, 4]
    assert batch.positions.tolist() == [0, 1, 2, 0, 1]
    assert batch.languages.tolist() == [EN] * 5
    assert batch.sample_ids.tolist() == [9, 2]
    source = source_of(batch)
    assert source.tokens.tolist() == [EOS, 7, 8, EOS, EOS, 9, EOS]
    assert source.positions.tolist() == [0, 1, 2, 3, 0, 1, 2]
    assert source.languages.tolist() == [EN] * 7
    assert source.offsets.tolist() == [0, 4, 7]
    assert source.n_targets == 0


@pytest.mark.parametrize("options", [{}, {"beam": 3}])
def test_the_source_becomes_the_models_translation(
    model: Model, options: dict[str, object]
) -> None:
    batch = batch_of(sentences(12))
    prepared = bt(**options).prepare(model, batch, LOOP)
    told = GenerationOptions(**options)
    rows = generate(model, source_of(batch), FR, VOCABULARY, told).rows()
    assert len({len(row) for row in rows}) > 2
    framed = Ragged.of(rows).framed(EOS, EOS)
    source = source_of(prepared)
    assert source.tokens.tolist() == framed.values.tolist()
    assert source.positions.tolist() == framed.positions().values.tolist()
    assert source.offsets.tolist() == framed.offsets.tolist()
    assert source.languages.tolist() == [FR] * len(framed.values)
    assert source.sample_ids.tolist() == batch.sample_ids.tolist()


def test_the_target_does_not_change(model: Model) -> None:
    batch = batch_of(sentences(12))
    prepared = bt().prepare(model, batch, LOOP)
    for name in ("tokens", "positions", "languages", "offsets", "predicted", "targets"):
        assert torch.equal(getattr(prepared, name), getattr(batch, name))


def test_an_empty_translation_is_an_empty_sentence() -> None:
    """Anywhere in a batch, or alone; tokens beyond a hypothesis's length do not count."""
    batch = source_of(batch_of(Samples(np.arange(3), (Ragged.of([[7], [8], [9]]),))))
    tokens = torch.tensor([[[9, 9]], [[8, 7]], [[9, EOS]]])
    scores = torch.zeros(3, 1)
    some = Hypotheses(tokens, torch.tensor([[0], [2], [1]]), scores)
    found = _as_source(some, batch, FR, (EOS, EOS))
    assert found.tokens.tolist() == [EOS, EOS, EOS, 8, 7, EOS, EOS, 9, EOS]
    assert found.positions.tolist() == [0, 1, 0, 1, 2, 3, 0, 1, 2]
    assert found.offsets.tolist() == [0, 2, 6, 9]
    none = Hypotheses(tokens[:, :, :0], torch.zeros(3, 1, dtype=torch.long), scores)
    assert _as_source(none, batch, FR, (EOS, EOS)).tokens.tolist() == [EOS] * 6


def test_an_empty_translation_can_be_read(model: Model) -> None:
    batch = batch_of(Samples(np.arange(2), (Ragged.of([[7], [8]]),)))
    silent = Hypotheses(
        torch.full((2, 1, 1), EOS), torch.zeros(2, 1, dtype=torch.long), torch.zeros(2, 1)
    )
    source = _as_source(silent, source_of(batch), FR, (EOS, EOS))
    assert model(bt(), Batch(**{**vars(batch), "source": source})).loss.isfinite()


def test_greedy_translation_draws_nothing_and_sampling_draws_from_torch(model: Model) -> None:
    batch = batch_of(sentences(12))

    def source(seed: int, **options: object) -> list[int]:
        torch.manual_seed(seed)
        return source_of(bt(**options).prepare(model, batch, LOOP)).tokens.tolist()

    assert source(1) == source(2)
    assert source(1, sample=True) == source(1, sample=True) != source(2, sample=True)
    assert source(1, sample=True, top_k=1) == source(1)


def test_no_gradient_flows_through_generation(model: Model) -> None:
    batch = batch_of(sentences(4))
    with torch.enable_grad():
        prepared = bt().prepare(model, batch, LOOP)
    for part in (prepared, source_of(prepared)):
        assert not any(getattr(part, name).requires_grad for name in ("tokens", "targets"))
    bt().loss(model, prepared).loss.backward()
    embedded = model.encoder.embeddings.languages.weight.grad
    assert embedded[FR].any()
    assert not embedded[EN].any()  # the encoder read English in `prepare` alone
    model.zero_grad()


def test_one_batch_can_be_memorized() -> None:
    """Although the source changes with the model."""
    torch.manual_seed(0)
    options = ModelOptions(dim=16, n_layers=1, n_heads=2, max_positions=32, dropout=0.0)
    model = Model(options, VOCABULARY.size, 2, ["encoder", "decoder"], ROLES["pad"])
    objective, batch = bt(), batch_of(sentences(5))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    losses = []
    for _ in range(80):
        prepared = objective.prepare(model.eval(), batch, LOOP)
        loss, n_targets, _ = model.train()(objective, prepared)
        losses.append((loss / n_targets).item())
        optimizer.zero_grad()
        (loss / n_targets).backward()
        optimizer.step()
    assert losses[-1] < 0.25 * losses[0]
