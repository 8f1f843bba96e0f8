"""Packing, the pair layout and masking."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from xlm_plugins.contracts.batch import (
    Batch,
    Step,
    Vocabulary,
    choose_for_evaluation,
    choose_masked,
    join_pair,
    pack,
    pack_translation,
)
from xlm_plugins.contracts.masking_options import MaskingOptions
from xlm_plugins.contracts.ragged import Ragged

EOS, PAD, MASK, N_RESERVED, SIZE = 1, 2, 5, 6, 50
ROLES = {"bos": 0, "eos": EOS, "pad": PAD, "unk": 3, "mask": MASK, "sep": 4}
VOCABULARY = Vocabulary(SIZE, ROLES, tuple(range(N_RESERVED)))


def random_rows(n_rows: int, longest: int = 30) -> Ragged:
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, longest, size=n_rows)
    return Ragged.of([rng.integers(N_RESERVED, SIZE, size=n) for n in lengths]).framed(EOS, EOS)


def packed(rows: Ragged, first_id: int = 0) -> Batch:
    predicted = np.arange(1, len(rows.values), 3)
    ids = np.arange(first_id, first_id + rows.n_rows)
    positions, languages = rows.positions(), rows.filled(0)
    return pack(rows, positions, languages, predicted, rows.values[predicted], ids)


@pytest.mark.parametrize("text", ["en", "en-fr", "en-fr-en", "zh_Hans-en"])
def test_a_step_is_written_as_it_is_parsed(text: str) -> None:
    assert str(Step.parse(text)) == text


def test_pack_makes_int64_tensors() -> None:
    rows = Ragged.of([[7, 8], [9]])
    narrow = Ragged(rows.values.astype(np.uint16), rows.offsets.astype(np.uint32))
    batch = packed(narrow)
    assert batch.tokens.tolist() == [7, 8, 9]
    assert batch.positions.tolist() == [0, 1, 0]
    assert batch.offsets.tolist() == [0, 2, 3]
    assert batch.predicted.tolist() == [1]
    assert batch.targets.tolist() == [8]
    assert (batch.n_tokens, batch.n_targets) == (3, 1)
    assert {t.dtype for t in (batch.tokens, batch.offsets, batch.predicted)} == {torch.int64}


def test_cat_shifts_offsets_and_predicted() -> None:
    rows = random_rows(9)
    parts = [rows.take(np.arange(0, 4)), rows.take(np.arange(4, 5)), rows.take(np.arange(5, 9))]
    whole = Batch.cat([packed(parts[0]), packed(parts[1], 4), packed(parts[2], 5)])
    assert whole.tokens.tolist() == rows.values.tolist()
    assert whole.offsets.tolist() == rows.offsets.tolist()
    assert whole.sample_ids.tolist() == list(range(9))
    assert torch.equal(whole.tokens[whole.predicted], whole.targets)
    assert whole.n_targets == sum(packed(part).n_targets for part in parts)


def test_cat_accepts_a_part_without_sequences() -> None:
    empty, full = packed(Ragged.of([])), packed(random_rows(3))
    whole = Batch.cat([empty, full, empty])
    assert torch.equal(whole.offsets, full.offsets)
    assert torch.equal(whole.predicted, full.predicted)


def test_cat_joins_sources_sequence_by_sequence() -> None:
    pair = dataclasses.replace(packed(random_rows(2)), source=packed(random_rows(2, 9)))
    whole = Batch.cat([pair, pair])
    assert whole.source is not None
    assert len(whole.source.offsets) == len(whole.offsets) == 5
    assert whole.n_tokens == 2 * pair.n_tokens


def test_join_pair_is_the_layout_of_tlm() -> None:
    first, second = Ragged.of([[10, 11], [12]]), Ragged.of([[20], [21, 22, 23]])
    tokens, positions, languages = join_pair((first, second), (4, 7), VOCABULARY)
    assert [row.tolist() for row in tokens.rows] == [
        [EOS, 10, 11, EOS, EOS, 20, EOS],
        [EOS, 12, EOS, EOS, 21, 22, 23, EOS],
    ]
    assert positions.rows[0].tolist() == [0, 1, 2, 3, 0, 1, 2]
    assert languages.rows[1].tolist() == [4, 4, 4, 7, 7, 7, 7, 7]
    assert positions.offsets.tolist() == languages.offsets.tolist() == tokens.offsets.tolist()


def test_masking_follows_the_shares() -> None:
    rows = random_rows(4000)
    options = MaskingOptions(mask_prob=0.3, keep_share=0.2, random_share=0.1)
    shown, predicted = choose_masked(rows, options, VOCABULARY, np.random.default_rng(1))
    n_candidates = len(rows.values) - rows.n_rows
    assert len(predicted) / n_candidates == pytest.approx(0.3, abs=0.01)
    clean, seen = rows.values[predicted], shown.values[predicted]
    assert np.mean(seen == MASK) == pytest.approx(0.7, abs=0.02)
    assert np.mean(seen == clean) == pytest.approx(0.2, abs=0.02)
    untouched = np.delete(np.arange(len(rows.values)), predicted)
    assert (shown.values[untouched] == rows.values[untouched]).all()


def test_masking_spares_first_positions_and_padding() -> None:
    rows = Ragged.of([[7, PAD, 8, 9], [PAD, PAD, 10]])
    everything = MaskingOptions(1.0)
    _, predicted = choose_masked(rows, everything, VOCABULARY, np.random.default_rng(1))
    assert predicted.tolist() == [2, 3, 6]


def test_random_tokens_are_ordinary_ones() -> None:
    options = MaskingOptions(1.0, keep_share=0.0, random_share=1.0)
    rows = random_rows(500)
    shown, predicted = choose_masked(rows, options, VOCABULARY, np.random.default_rng(1))
    seen = shown.values[predicted]
    assert set(np.unique(seen)) == set(VOCABULARY.ordinary.tolist())


def test_masking_is_repeatable_and_does_not_modify_its_input() -> None:
    rows = random_rows(20)
    before = rows.values.copy()
    one, two = (
        choose_masked(rows, MaskingOptions(0.5), VOCABULARY, np.random.default_rng(3)) for _ in "ab"
    )
    assert (one[0].values == two[0].values).all()
    assert (one[1] == two[1]).all()
    assert (rows.values == before).all()


def test_sample_alpha_prefers_rare_tokens_and_never_masks_special_ones() -> None:
    rows = random_rows(2000)
    counts = np.ones(SIZE, np.int64)
    counts[: SIZE // 2] = 10_000
    vocabulary = Vocabulary(SIZE, ROLES, tuple(range(N_RESERVED)), counts)
    options = MaskingOptions(0.15, sample_alpha=0.5)
    _, predicted = choose_masked(rows, options, vocabulary, np.random.default_rng(1))
    chosen = rows.values[predicted]
    assert len(chosen) == round(0.15 * len(rows.values))
    assert len(set(predicted.tolist())) == len(predicted)
    assert not np.isin(chosen, range(N_RESERVED)).any()
    assert np.mean(chosen >= SIZE // 2) > 0.9


def test_sample_alpha_needs_counts() -> None:
    with pytest.raises(ValueError, match="counts"):
        choose_masked(
            random_rows(2),
            MaskingOptions(0.15, sample_alpha=0.5),
            VOCABULARY,
            np.random.default_rng(1),
        )


def test_evaluation_predicts_inside_each_row_and_shows_mask() -> None:
    rows = random_rows(300)
    shown, predicted = choose_for_evaluation(rows, VOCABULARY, np.random.default_rng(1))
    assert (shown.values[predicted] == MASK).all()
    assert not np.isin(predicted, rows.offsets[:-1]).any()
    assert not np.isin(predicted, rows.offsets[1:] - 1).any()
    row = np.searchsorted(rows.offsets, predicted, side="right") - 1
    assert set(row.tolist()) == set(range(300))


def test_evaluation_predicts_nothing_in_rows_of_fewer_than_three() -> None:
    rows = Ragged.of([[EOS, EOS], [EOS], [EOS, 9, EOS]])
    _, predicted = choose_for_evaluation(rows, VOCABULARY, np.random.default_rng(1))
    assert predicted.tolist() == [4]


@pytest.mark.parametrize(
    ("targets", "kind"), [([0.25, -1.5], torch.float32), ([3, 7], torch.int64)]
)
def test_targets_are_ids_or_numbers(targets: list[float], kind: torch.dtype) -> None:
    rows, ids = Ragged.of([[1, 2]]), np.array([0])
    batch = pack(rows, rows.positions(), rows.filled(0), np.array([0, 1]), np.array(targets), ids)
    assert batch.targets.dtype == kind
    assert batch.targets.tolist() == targets


def test_a_translation_is_written_after_an_eos_and_read_between_two():
    vocabulary = Vocabulary(10, {"eos": 1}, (1,))
    source, target = Ragged.of([[7, 8], [9]]), Ragged.of([[5], [6, 7, 8]])
    batch = pack_translation(source, target, (0, 1), vocabulary, np.array([4, 2]))
    assert batch.tokens.tolist() == [1, 5, 1, 6, 7, 8]
    assert batch.targets.tolist() == [5, 1, 6, 7, 8, 1]
    assert batch.predicted.tolist() == [0, 1, 2, 3, 4, 5]
    assert batch.positions.tolist() == [0, 1, 0, 1, 2, 3]
    assert batch.languages.tolist() == [1] * 6
    assert batch.offsets.tolist() == [0, 2, 6]
    assert batch.source.tokens.tolist() == [1, 7, 8, 1, 1, 9, 1]
    assert batch.source.languages.tolist() == [0] * 7
    assert batch.source.offsets.tolist() == [0, 4, 7]
    assert batch.source.n_targets == 0
    assert batch.sample_ids.tolist() == batch.source.sample_ids.tolist() == [4, 2]


def test_with_bos_the_source_begins_with_it_and_the_target_does_not():
    vocabulary = Vocabulary(10, {"eos": 1, "bos": 0, "begin": 0}, (0, 1))
    source, target = Ragged.of([[7, 8]]), Ragged.of([[5]])
    batch = pack_translation(source, target, (0, 1), vocabulary, np.array([4]))
    assert batch.tokens.tolist() == [1, 5]
    assert batch.source.tokens.tolist() == [0, 7, 8, 1]
