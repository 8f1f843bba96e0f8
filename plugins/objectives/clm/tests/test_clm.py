"""Causal language modelling: the contract, and what is predicted."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import pytest
from xlm_clm import CLMOptions
from xlm_clm.objective import CausalLanguageModelling

from xlm_plugins import Batch, Layout, Model, OptionError, Ragged, Samples, Step, Vocabulary
from xlm_plugins.config.model import ModelOptions
from xlm_plugins.testing import check_objective

EOS = 1
ROLES = {"bos": 0, "eos": EOS, "pad": 2, "unk": 3, "mask": 5, "sep": 4}
VOCABULARY = Vocabulary(20, ROLES, tuple(range(6)))
EN, PAIR = Step(("en",)), Step(("en", "fr"))


def clm(context_size: int = 0) -> CausalLanguageModelling:
    return CausalLanguageModelling(CLMOptions(context_size), VOCABULARY, {"en": 0, "fr": 1})


def samples(*sides: Sequence[Sequence[int]]) -> Samples:
    return Samples(np.arange(len(sides[0])), tuple(map(Ragged.of, sides)))


def batch_of(objective: CausalLanguageModelling, given: Samples, step: Step) -> Batch:
    return objective.make_batch(given, step, np.random.default_rng(0))


@pytest.mark.parametrize("context_size", [0, 2])
def test_the_contract(context_size: int) -> None:
    check_objective("clm", context_size=context_size)


def test_layouts_and_steps() -> None:
    assert clm().layout(EN) is Layout.STREAM
    assert clm().layout(PAIR) is Layout.PAIR
    assert clm().steps(["en", "fr"], [("en", "fr")]) == [Step(("en",)), Step(("fr",))]
    assert clm().parse_step("en-fr") == PAIR
    with pytest.raises(OptionError, match="3 language"):
        clm().parse_step("en-fr-en")


def test_every_token_predicts_the_next_one_of_its_window() -> None:
    batch = batch_of(clm(), samples([[7, 8, EOS, 9], [10], [11, 12]]), EN)
    assert batch.tokens.tolist() == [7, 8, EOS, 9, 10, 11, 12]
    assert batch.predicted.tolist() == [0, 1, 2, 5]
    assert batch.targets.tolist() == [8, EOS, 9, 12]
    assert batch.positions.tolist() == [0, 1, 2, 3, 0, 0, 1]
    assert set(batch.languages.tolist()) == {0}


def test_the_context_predicts_nothing() -> None:
    batch = batch_of(clm(context_size=2), samples([[7, 8, 9, 10], [11, 12]]), EN)
    assert batch.predicted.tolist() == [2]
    assert batch.targets.tolist() == [10]


def test_a_pair_is_one_text_in_the_layout_of_tlm() -> None:
    batch = batch_of(clm(), samples([[7, 8]], [[9]]), PAIR)
    assert batch.tokens.tolist() == [EOS, 7, 8, EOS, EOS, 9, EOS]
    assert batch.languages.tolist() == [0, 0, 0, 0, 1, 1, 1]
    assert batch.predicted.tolist() == list(range(6))
    assert batch.targets.tolist() == [7, 8, EOS, EOS, 9, EOS]


def test_evaluation_measures_the_training_batches() -> None:
    given = samples([[7, 8, 9]])
    (key, batch), *others = clm().evaluation_batches(given, EN, np.random.default_rng(0)).items()
    assert (key, others) == ("", [])
    assert batch.targets.tolist() == [8, 9]


def test_no_prediction_sees_the_token_that_it_predicts() -> None:
    model = tiny_model()
    before, after = ([[7, 8, 9, 10]], [[7, 8, 9, 15]])
    losses = [
        clm().loss(model, without_last(batch_of(clm(), samples(r), EN))) for r in (before, after)
    ]
    assert losses[0].loss.item() == losses[1].loss.item()


def without_last(batch: Batch) -> Batch:
    """The batch without its last prediction."""
    return dataclasses.replace(batch, predicted=batch.predicted[:-1], targets=batch.targets[:-1])


def tiny_model() -> Model:
    options = ModelOptions(dim=16, n_layers=1, n_heads=2, max_positions=16, dropout=0.0)
    return Model(options, VOCABULARY.size, 2, ["encoder"], ROLES["pad"])
