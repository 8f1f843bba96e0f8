"""Denoising auto-encoding: the encoder reads noisy sentences, the decoder writes clean ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from xlm_ae import NoiseOptions
from xlm_ae.objective import DenoisingAutoEncoding

from xlm_plugins import Batch, Layout, Model, OptionError, Ragged, Samples, Step, Vocabulary
from xlm_plugins.config.model import ModelOptions
from xlm_plugins.testing import check_objective

EOS, MASK = 1, 5
ROLES = {"bos": 0, "eos": EOS, "pad": 2, "unk": 3, "mask": MASK, "sep": 4}
VOCABULARY = Vocabulary(40, ROLES, tuple(range(6)))
FR = Step(("fr",))
QUIET = {"word_shuffle": 0.0, "word_dropout": 0.0, "word_blank": 0.0}


def ae(**options: float) -> DenoisingAutoEncoding:
    return DenoisingAutoEncoding(NoiseOptions(**options), VOCABULARY, {"en": 0, "fr": 1})


def batch_of(objective: DenoisingAutoEncoding, samples: Samples, seed: int = 0) -> Batch:
    return objective.make_batch(samples, FR, np.random.default_rng(seed))


def sentences(n: int) -> Samples:
    rng = np.random.default_rng(0)
    rows = [rng.permutation(np.arange(6, 40))[:length] for length in rng.integers(1, 12, size=n)]
    return Samples(np.arange(n) + 100, (Ragged.of(rows),))


def read(batch: Batch) -> list[list[int]]:
    """What the encoder reads, sentence by sentence."""
    assert batch.source is not None
    return [
        part.tolist() for part in batch.source.tokens.split(batch.source.offsets.diff().tolist())
    ]


def test_the_contract() -> None:
    check_objective("ae")


def test_layout_and_steps() -> None:
    assert ae().layout(FR) is Layout.SENTENCE
    assert ae().steps(["en", "fr"], [("en", "fr")]) == [Step(("en",)), FR]
    assert ae().translations(FR) == ()
    with pytest.raises(OptionError, match="2 language"):
        ae().parse_step("en-fr")


def test_the_noise_has_the_usual_size() -> None:
    options = NoiseOptions()
    assert (options.word_shuffle, options.word_dropout, options.word_blank) == (3, 0.1, 0.1)


def test_without_noise_a_sentence_is_copied() -> None:
    batch = batch_of(ae(**QUIET), Samples(np.array([9, 2]), (Ragged.of([[7, 8], [9]]),)))
    assert batch.tokens.tolist() == [EOS, 7, 8, EOS, 9]
    assert batch.targets.tolist() == [7, 8, EOS, 9, EOS]
    assert batch.predicted.tolist() == [0, 1, 2, 3, 4]
    assert batch.positions.tolist() == [0, 1, 2, 0, 1]
    assert batch.languages.tolist() == [1] * 5
    assert batch.offsets.tolist() == [0, 3, 5]
    assert batch.sample_ids.tolist() == [9, 2]
    assert batch.source is not None
    assert batch.source.tokens.tolist() == [EOS, 7, 8, EOS, EOS, 9, EOS]
    assert batch.source.positions.tolist() == [0, 1, 2, 3, 0, 1, 2]
    assert batch.source.languages.tolist() == [1] * 7
    assert batch.source.offsets.tolist() == [0, 4, 7]
    assert batch.source.n_targets == 0


def test_the_encoder_reads_noise_and_the_decoder_writes_the_clean_sentence() -> None:
    samples = sentences(300)
    noisy, clean = batch_of(ae(), samples), batch_of(ae(**QUIET), samples)
    for name in ("tokens", "positions", "offsets", "targets", "predicted"):
        assert torch.equal(getattr(noisy, name), getattr(clean, name))
    assert sum(one != other for one, other in zip(read(noisy), read(clean), strict=True)) > 200


def test_noise_stays_between_the_two_eos() -> None:
    samples = sentences(300)
    rows = read(batch_of(ae(word_shuffle=9.0, word_dropout=0.9, word_blank=0.9), samples))
    for row, clean in zip(rows, samples.sides[0].rows, strict=True):
        assert row[0] == row[-1] == EOS
        assert 3 <= len(row) <= len(clean) + 2
        assert set(row[1:-1]) <= {MASK, *clean.tolist()}


def test_tokens_are_left_out_before_they_are_blanked() -> None:
    """So blanking everything does not change the share that is dropped."""
    samples = sentences(2000)
    rows = read(batch_of(ae(word_dropout=0.2, word_blank=1.0), samples))
    assert {token for row in rows for token in row} == {EOS, MASK}
    n_kept, n_clean = sum(map(len, rows)) - 2 * len(rows), len(samples.sides[0].values)
    assert 0.78 < n_kept / n_clean < 0.83  # over 0.8: a sentence keeps one at least


def test_evaluation_has_the_same_noise_each_time() -> None:
    samples = sentences(20)
    one, same = (
        ae().evaluation_batches(samples, FR, np.random.default_rng(4))[""] for _ in range(2)
    )
    assert read(one) == read(same) != read(batch_of(ae(), samples))


def test_one_batch_can_be_memorized() -> None:
    torch.manual_seed(0)
    options = ModelOptions(dim=16, n_layers=1, n_heads=2, max_positions=32, dropout=0.0)
    model = Model(options, VOCABULARY.size, 2, ["encoder", "decoder"], ROLES["pad"])
    objective = ae()
    batch = batch_of(objective, sentences(6))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(100):
        loss, n_targets, n_correct = model(objective, batch)
        optimizer.zero_grad()
        (loss / n_targets).backward()
        optimizer.step()
    assert int(n_correct) == int(n_targets) > 20
    assert float(loss.detach() / n_targets) < 0.2
