"""Parallel classification: which pairs are false, how pairs are laid out, and learning."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from xlm_pc.objective import ParallelClassification

from xlm_plugins import Batch, Layout, Model, OptionError, Ragged, Samples, Step, Vocabulary
from xlm_plugins.config.model import ModelOptions
from xlm_plugins.contracts.framing import encode_texts
from xlm_plugins.testing import check_objective
from xlm_plugins.testing.words import WordTokenizer

EOS = 1
ROLES = {"bos": 0, "eos": EOS, "pad": 2, "unk": 3, "mask": 5, "sep": 4}
VOCABULARY = Vocabulary(46, ROLES, tuple(range(6)))
STEP = Step(("fr", "en"))


def pc() -> ParallelClassification:
    return ParallelClassification(None, VOCABULARY, {"en": 0, "fr": 1})


def batch_of(samples: Samples, seed: int = 0) -> Batch:
    return pc().make_batch(samples, STEP, np.random.default_rng(seed))


def numbered(n: int) -> Samples:
    """Pairs of one token per side: pair i is (6 + i, 26 + i)."""
    french = Ragged.of([[6 + i] for i in range(n)])
    return Samples(np.arange(n) + 100, (french, Ragged(french.values + 20, french.offsets)))


def sides(batch: Batch) -> list[tuple[int, int]]:
    """The pairs of a batch of `numbered`, as numbers."""
    rows = batch.tokens.view(-1, 5)
    assert (rows[:, ::2] == EOS).all()
    return [(first - 6, second - 26) for first, second in rows[:, 1::2].tolist()]


def tiny_model(dim: int = 16, n_layers: int = 1) -> Model:
    options = ModelOptions(dim=dim, n_layers=n_layers, n_heads=2, max_positions=32, dropout=0.0)
    heads = {"pc": pc().modules(options)}
    return Model(options, VOCABULARY.size, 2, ["encoder"], ROLES["pad"], heads=heads)


def test_the_contract() -> None:
    check_objective("pc")


def test_layout_and_steps_take_both_orders() -> None:
    assert pc().layout(STEP) is Layout.PAIR
    assert pc().steps(["en", "fr"], [("en", "fr")]) == [Step(("en", "fr")), STEP]
    assert pc().stacks == {"encoder"}
    with pytest.raises(OptionError, match="1 language"):
        pc().parse_step("en")


def test_a_pair_shares_the_eos_in_its_middle_and_counts_on() -> None:
    batch = batch_of(Samples(np.array([3]), (Ragged.of([[7, 8]]), Ragged.of([[27]]))))
    assert batch.tokens.tolist() == [EOS, 7, 8, EOS, 27, EOS]
    assert batch.positions.tolist() == [0, 1, 2, 3, 4, 5]
    assert batch.languages.tolist() == [1, 1, 1, 1, 0, 0]
    assert batch.offsets.tolist() == [0, 6]
    assert batch.predicted.tolist() == [0]
    assert batch.targets.tolist() == [1]
    assert batch.sample_ids.tolist() == [3]


@pytest.mark.parametrize("begin_role", ["eos", "bos"])
def test_a_pair_is_framed_as_downstream_tasks_frame_two_texts(begin_role: str) -> None:
    """With BOS before sentences, as RoBERTa has it, a second EOS begins the second side."""
    tokenizer = WordTokenizer("abcde")
    tokenizer.begin_role = begin_role
    first, second = (tokenizer.encode_batch([text]) for text in ("a b", "c"))
    objective = ParallelClassification(None, tokenizer.vocabulary(), {"en": 0, "fr": 1})
    samples = Samples(np.arange(1), (first, second))
    batch = objective.make_batch(samples, STEP, np.random.default_rng(0))
    expected, _ = encode_texts(tokenizer, [["a b"], ["c"]], 100)
    assert batch.tokens.tolist() == expected.values.tolist()
    assert batch.tokens[0] == tokenizer.special(begin_role)
    assert batch.positions.tolist() == list(range(len(expected.values)))
    n_second = len(expected.values) - 4
    assert batch.languages.tolist() == [1] * 4 + [0] * n_second
    assert n_second == {"eos": 2, "bos": 3}[begin_role]


def test_a_false_pair_takes_the_whole_of_another_second_side() -> None:
    samples = Samples(np.array([3, 4]), (Ragged.of([[7, 8], [9]]), Ragged.of([[27], [28, 29, 30]])))
    batch = batch_of(samples)
    false = int(batch.targets.argmin())
    firsts, seconds = [[7, 8], [9]], [[27], [28, 29, 30]]
    taken = seconds[1 - false]
    rows = [[EOS, *first, EOS, *taken, EOS] for first in firsts]
    assert batch.tokens.tolist() == rows[0] + rows[1]
    assert batch.predicted.tolist() == [0, len(rows[0])]
    assert batch.languages.tolist() == [
        language for first in firsts for language in [1] * (len(first) + 2) + [0] * (len(taken) + 1)
    ]


@pytest.mark.parametrize("n", [1, 2, 3, 8, 19])
def test_half_of_the_pairs_are_false_and_none_of_those_is_true(n: int) -> None:
    for seed in range(20):
        batch = batch_of(numbered(n), seed)
        assert batch.targets.tolist() == [int(one == other) for one, other in sides(batch)]
        assert int((batch.targets == 0).sum()) == n // 2
        assert [one for one, _ in sides(batch)] == list(range(n))
        assert batch.sample_ids.tolist() == [100 + i for i in range(n)]


def test_any_pair_may_be_false_and_any_other_its_partner() -> None:
    found = {pair for seed in range(200) for pair in sides(batch_of(numbered(4), seed))}
    assert len(found) == 16


def test_evaluation_has_the_same_pairs_each_time() -> None:
    first, second = (
        pc().evaluation_batches(numbered(10), STEP, np.random.default_rng(7))[""] for _ in range(2)
    )
    assert sides(first) == sides(second) != sides(batch_of(numbered(10)))


def test_the_loss_is_the_cross_entropy_of_the_heads_logits() -> None:
    model, batch = tiny_model(), batch_of(numbered(8))
    logits = model.head("pc", "pair")(model.encoder(batch)[batch.predicted])[:, 0]
    shares = logits.sigmoid()
    right = torch.where(batch.targets > 0, shares, 1 - shares)
    output = model(pc(), batch)
    torch.testing.assert_close(output.loss, -right.log().sum())
    assert int(output.n_targets) == 8
    assert int(output.n_correct) == int((right > 0.5).sum())


def test_a_batch_of_pairs_can_be_memorized() -> None:
    torch.manual_seed(0)
    model, objective, batch = tiny_model(), pc(), batch_of(numbered(16))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(60):
        loss, n_targets, n_correct = model(objective, batch)
        optimizer.zero_grad()
        (loss / n_targets).backward()
        optimizer.step()
    assert int(n_correct) == int(n_targets) == 16
    assert float(loss.detach() / n_targets) < 0.2


@pytest.mark.slow
def test_pairs_that_were_never_seen_together_are_recognised() -> None:
    """Sentences of three of ten words; a word's translation is the word 20 ids later."""
    torch.manual_seed(0)
    model, objective = tiny_model(dim=32, n_layers=2), pc()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)

    def pairs(n: int, seed: int) -> Samples:
        words = np.random.default_rng(seed).integers(6, 16, size=(n, 3))
        return Samples(np.arange(n), (Ragged.of(list(words)), Ragged.of(list(words + 20))))

    for update in range(500):
        loss, n_targets, _ = model(objective, batch_of(pairs(64, update), update))
        optimizer.zero_grad()
        (loss / n_targets).backward()
        optimizer.step()
    with torch.no_grad():
        output = model(objective, batch_of(pairs(400, 10_000), 10_000))
    assert int(output.n_correct) > 0.9 * 400
