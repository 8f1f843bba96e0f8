"""Translation language modelling: the contract, the layout, and the use of the translation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from xlm_tlm.objective import TranslationLanguageModelling

from xlm_plugins import (
    Layout,
    MaskingOptions,
    Model,
    OptionError,
    Ragged,
    Samples,
    Step,
    Vocabulary,
)
from xlm_plugins.config.model import ModelOptions
from xlm_plugins.testing import check_objective

EOS, MASK, N_RESERVED = 1, 5, 6
ROLES = {"bos": 0, "eos": EOS, "pad": 2, "unk": 3, "mask": MASK, "sep": 4}
VOCABULARY = Vocabulary(46, ROLES, tuple(range(N_RESERVED)))
STEP = Step(("fr", "en"))


def tlm(**options: float) -> TranslationLanguageModelling:
    return TranslationLanguageModelling(MaskingOptions(**options), VOCABULARY, {"en": 0, "fr": 1})


def pairs(n: int, seed: int = 0) -> Samples:
    """Random words, each translated by the word 20 ids later."""
    rng = np.random.default_rng(seed)
    french = Ragged.of([rng.integers(6, 26, size=length) for length in rng.integers(1, 9, size=n)])
    return Samples(np.arange(n) + 100, (french, Ragged(french.values + 20, french.offsets)))


def test_the_contract() -> None:
    check_objective("tlm")


def test_layout_and_steps_take_both_orders() -> None:
    assert tlm().layout(STEP) is Layout.PAIR
    assert tlm().steps(["en", "fr"], [("en", "fr")]) == [Step(("en", "fr")), STEP]
    with pytest.raises(OptionError, match="1 language"):
        tlm().parse_step("en")


def test_a_pair_is_laid_out_and_masked() -> None:
    samples = Samples(np.array([3]), (Ragged.of([[7, 8]]), Ragged.of([[27]])))
    batch = tlm(mask_prob=1.0, keep_share=0.0, random_share=0.0).make_batch(
        samples, STEP, np.random.default_rng(0)
    )
    assert batch.tokens.tolist() == [EOS, *[MASK] * 6]
    assert batch.targets.tolist() == [7, 8, EOS, EOS, 27, EOS]
    assert batch.positions.tolist() == [0, 1, 2, 3, 0, 1, 2]
    assert batch.languages.tolist() == [1, 1, 1, 1, 0, 0, 0]
    assert batch.offsets.tolist() == [0, 7]
    assert batch.sample_ids.tolist() == [3]


def test_both_sides_are_hidden() -> None:
    batch = tlm().make_batch(pairs(300), STEP, np.random.default_rng(0))
    languages = batch.languages[batch.predicted]
    assert abs(int((languages == 0).sum()) - int((languages == 1).sum())) < 0.2 * len(languages)
    assert not set(batch.predicted.tolist()) & set(batch.offsets.tolist())


def test_evaluation_compares_the_same_hidden_words_with_each_side_alone() -> None:
    samples = pairs(30)
    batches = tlm().evaluation_batches(samples, STEP, np.random.default_rng(0))
    joint, alone = batches[""], batches["alone"]
    assert list(batches) == ["", "alone"]
    for name in ("tokens", "positions", "languages", "predicted", "targets"):
        assert torch.equal(getattr(joint, name), getattr(alone, name))
    lengths = np.stack([side.lengths + 2 for side in samples.sides], axis=1).flatten()
    assert alone.offsets.diff().tolist() == lengths.tolist()
    assert alone.sample_ids.tolist() == np.repeat(samples.ids, 2).tolist()
    assert (joint.tokens[joint.predicted] == MASK).all()
    assert joint.offsets.tolist() == alone.offsets[::2].tolist()


def test_alone_no_side_sees_the_other() -> None:
    model, objective = tiny_model(), tlm()
    samples = pairs(1)
    other = Samples(
        samples.ids, (samples.sides[0], Ragged.of([[40] * samples.sides[1].lengths[0]]))
    )
    losses = {}
    for key in ("", "alone"):
        batches = [
            objective.evaluation_batches(given, STEP, np.random.default_rng(3))[key]
            for given in (samples, other)
        ]
        states = [model.encoder(batch) for batch in batches]
        n_first = int(samples.sides[0].lengths[0]) + 2
        losses[key] = float((states[0][:n_first] - states[1][:n_first]).abs().max().detach())
    assert losses["alone"] == 0.0
    assert losses[""] > 1e-4


@pytest.mark.slow
def test_a_random_word_can_be_predicted_from_the_translation_only() -> None:
    """Words are random, so one side alone leaves 20 choices; its translation leaves one."""
    torch.manual_seed(0)
    model, objective = tiny_model(dim=64, n_layers=2), tlm(mask_prob=0.3)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for update in range(300):
        rng = np.random.default_rng(update)
        loss, n_targets, _ = model(objective, objective.make_batch(pairs(32, update), STEP, rng))
        optimizer.zero_grad()
        (loss / n_targets).backward()
        optimizer.step()
    batches = objective.evaluation_batches(pairs(200, 10_000), STEP, np.random.default_rng(0))
    with torch.no_grad():
        joint, alone = (model(objective, batches[key]) for key in ("", "alone"))
    assert float(joint.loss / joint.n_targets) < 0.6 * float(alone.loss / alone.n_targets)


def tiny_model(dim: int = 16, n_layers: int = 1) -> Model:
    options = ModelOptions(dim=dim, n_layers=n_layers, n_heads=2, max_positions=32, dropout=0.0)
    return Model(options, VOCABULARY.size, 2, ["encoder"], ROLES["pad"])
