"""Masked language modelling: the contract, and what is hidden and predicted."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from xlm_mlm import MLMOptions
from xlm_mlm.objective import MaskedLanguageModelling

from xlm_plugins import (
    Batch,
    Layout,
    Model,
    OptionError,
    Ragged,
    Samples,
    Step,
    Vocabulary,
)
from xlm_plugins.config.model import ModelOptions
from xlm_plugins.testing import check_objective

ROLES = {"bos": 0, "eos": 1, "pad": 2, "unk": 3, "mask": 5, "sep": 4}
VOCABULARY = Vocabulary(40, ROLES, tuple(range(6)), np.arange(1, 41) ** 2)
FR = Step(("fr",))


def mlm(**options: float | str) -> MaskedLanguageModelling:
    return MaskedLanguageModelling(MLMOptions(**options), VOCABULARY, {"en": 0, "fr": 1})


def windows(n: int, length: int = 32) -> Samples:
    rng = np.random.default_rng(0)
    rows = Ragged.of(list(rng.integers(6, VOCABULARY.size, size=(n, length))))
    return Samples(np.arange(n) * length, (rows,))


def batch_of(objective: MaskedLanguageModelling, samples: Samples, seed: int = 0) -> Batch:
    return objective.make_batch(samples, FR, np.random.default_rng(seed))


@pytest.mark.parametrize("layout", ["stream", "sentence"])
def test_the_contract(layout: str) -> None:
    check_objective("mlm", layout=layout)


def test_layout_and_steps() -> None:
    assert mlm().layout(FR) is Layout.STREAM
    assert mlm().steps(["en", "fr"], [("en", "fr")]) == [Step(("en",)), FR]
    with pytest.raises(OptionError, match="2 language"):
        mlm().parse_step("en-fr")


def test_training_masks_tokens_and_predicts_them() -> None:
    samples = windows(200)
    batch = batch_of(mlm(mask_prob=0.2), samples)
    clean = torch.from_numpy(samples.sides[0].values)
    assert torch.equal(batch.targets, clean[batch.predicted])
    (changed,) = torch.nonzero(batch.tokens != clean, as_tuple=True)
    assert set(changed.tolist()) < set(batch.predicted.tolist())
    assert len(batch.predicted) / (200 * 31) == pytest.approx(0.2, abs=0.02)
    assert (batch.tokens[batch.predicted] == ROLES["mask"]).double().mean() == pytest.approx(
        0.8, abs=0.03
    )
    assert set(batch.languages.tolist()) == {1}
    assert batch.positions.tolist() == list(range(32)) * 200
    assert batch.sample_ids.tolist() == samples.ids.tolist()


def test_sentences_are_framed_and_never_predict_their_first_eos() -> None:
    objective = mlm(layout="sentence", mask_prob=1.0, keep_share=0.5, random_share=0.5)
    assert objective.layout(FR) is Layout.SENTENCE
    samples = Samples(np.arange(2), (Ragged.of([[7, 8], [9]]),))
    batch = batch_of(objective, samples)
    assert batch.offsets.tolist() == [0, 4, 7]
    assert batch.positions.tolist() == [0, 1, 2, 3, 0, 1, 2]
    assert batch.predicted.tolist() == [1, 2, 3, 5, 6]
    assert batch.targets.tolist() == [7, 8, 1, 9, 1]


def test_the_generator_decides_what_is_hidden() -> None:
    one, same, other = (batch_of(mlm(), windows(4), seed) for seed in (1, 1, 2))
    assert torch.equal(one.tokens, same.tokens)
    assert not torch.equal(one.predicted, other.predicted)


def test_evaluation_masks_every_predicted_token() -> None:
    samples = windows(50)
    rng = np.random.default_rng(0)
    (batch,) = mlm().evaluation_batches(samples, FR, rng).values()
    assert (batch.tokens[batch.predicted] == ROLES["mask"]).all()
    assert not {0, 31} & {int(place) % 32 for place in batch.predicted}
    assert torch.equal(batch.targets, torch.from_numpy(samples.sides[0].values)[batch.predicted])


def test_sample_alpha_hides_rare_tokens_first() -> None:
    usual, rare = (batch_of(mlm(sample_alpha=alpha), windows(200)) for alpha in (0.0, 1.0))
    assert rare.targets.double().mean() < usual.targets.double().mean() - 5


@pytest.mark.parametrize("n_windows", [1, 3])
def test_a_batch_without_predictions_has_no_loss(n_windows: int) -> None:
    samples = windows(n_windows, length=1)
    batch = batch_of(mlm(), samples)
    output = tiny_model()(mlm(), batch)
    assert (output.loss.item(), int(output.n_targets)) == (0.0, 0)
    output.loss.backward()


def tiny_model() -> Model:
    options = ModelOptions(dim=16, n_layers=1, n_heads=2, max_positions=32, dropout=0.0)
    return Model(options, VOCABULARY.size, 2, ["encoder"], ROLES["pad"])
