"""Machine translation: what is read, what is written, and that the source determines it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from xlm_mt.objective import MachineTranslation

from xlm_plugins import (
    Batch,
    GenerationOptions,
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
VOCABULARY = Vocabulary(26, ROLES, tuple(range(6)))
STEP = Step(("fr", "en"))


def mt() -> MachineTranslation:
    return MachineTranslation(None, VOCABULARY, {"en": 0, "fr": 1})


def batch_of(samples: Samples) -> Batch:
    return mt().make_batch(samples, STEP, np.random.default_rng(0))


def random_pairs(n: int) -> Samples:
    """Random words, each translated by the word 10 ids later, in reverse order."""
    rng = np.random.default_rng(0)
    french = [rng.integers(6, 16, size=length) for length in rng.integers(1, 6, size=n)]
    english = [row[::-1] + 10 for row in french]
    return Samples(np.arange(n), (Ragged.of(french), Ragged.of(english)))


def tiny_model() -> Model:
    options = ModelOptions(dim=16, n_layers=1, n_heads=2, max_positions=32, dropout=0.0)
    return Model(options, VOCABULARY.size, 2, ["encoder", "decoder"], ROLES["pad"])


def test_the_contract() -> None:
    check_objective("mt")


def test_layout_and_steps_take_both_orders() -> None:
    assert mt().layout(STEP) is Layout.PAIR
    assert mt().steps(["en", "fr"], [("en", "fr")]) == [Step(("en", "fr")), STEP]
    assert mt().translations(STEP) == (STEP,)
    with pytest.raises(OptionError, match="3 language"):
        mt().parse_step("en-fr-en")


def test_a_pair_is_read_and_written() -> None:
    batch = batch_of(
        Samples(np.array([30, 4]), (Ragged.of([[7, 8], [9]]), Ragged.of([[17], [18, 19, 20]])))
    )
    assert batch.tokens.tolist() == [EOS, 17, EOS, 18, 19, 20]
    assert batch.targets.tolist() == [17, EOS, 18, 19, 20, EOS]
    assert batch.predicted.tolist() == list(range(6))
    assert batch.positions.tolist() == [0, 1, 0, 1, 2, 3]
    assert batch.languages.tolist() == [0] * 6
    assert batch.offsets.tolist() == [0, 2, 6]
    assert batch.sample_ids.tolist() == [30, 4]


def test_the_source_is_framed_and_predicts_nothing() -> None:
    source = batch_of(Samples(np.array([3]), (Ragged.of([[7, 8]]), Ragged.of([[17]])))).source
    assert source is not None
    assert source.tokens.tolist() == [EOS, 7, 8, EOS]
    assert source.positions.tolist() == [0, 1, 2, 3]
    assert source.languages.tolist() == [1, 1, 1, 1]
    assert source.offsets.tolist() == [0, 4]
    assert source.sample_ids.tolist() == [3]
    assert (source.n_targets, len(source.predicted), source.source) == (0, 0, None)


def test_a_word_depends_on_the_source_and_on_earlier_words() -> None:
    """The first word's probability changes with the source, and not with later words."""
    model = tiny_model()
    first = {}
    for name, french, english in [
        ("one", [7, 8], [17, 18]),
        ("other target", [7, 8], [17, 19]),
        ("other source", [7, 9], [17, 18]),
    ]:
        whole = batch_of(Samples(np.array([0]), (Ragged.of([french]), Ragged.of([english]))))
        cut = {"predicted": whole.predicted[:1], "targets": whole.targets[:1]}
        first[name] = model(mt(), dataclasses.replace(whole, **cut)).loss.item()
    assert first["one"] == first["other target"]
    assert first["one"] != first["other source"]


def test_a_memorized_batch_is_translated_without_errors() -> None:
    torch.manual_seed(0)
    model, objective, samples = tiny_model(), mt(), random_pairs(8)
    batch = batch_of(samples)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(100):
        loss, n_targets, n_correct = model(objective, batch)
        optimizer.zero_grad()
        (loss / n_targets).backward()
        optimizer.step()
    assert int(n_correct) == int(n_targets) > 16
    assert batch.source is not None
    found = generate(model.eval(), batch.source, 0, VOCABULARY, GenerationOptions())
    assert found.rows() == [row.tolist() for row in samples.sides[1].rows]
