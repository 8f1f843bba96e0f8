"""The objective: the contract, and which tokens it hides."""

from __future__ import annotations

import numpy as np
import pytest
from xlm_plugins import Ragged, Samples, Step, Vocabulary
from xlm_plugins.testing import check_objective

from xlm_example import ExampleObjectiveOptions
from xlm_example.objective import ExampleObjective


def test_the_contract() -> None:
    check_objective("example-objective", share=0.3)


@pytest.mark.parametrize("begin", [0, 1], ids=["framed by BOS and EOS", "framed by EOS"])
def test_the_end_of_each_sentence_is_hidden(begin: int) -> None:
    roles = {"bos": 0, "eos": 1, "pad": 2, "unk": 3, "mask": 4, "sep": 5, "begin": begin}
    vocabulary = Vocabulary(size=20, roles=roles, reserved=tuple(range(6)))
    objective = ExampleObjective(ExampleObjectiveOptions(share=0.5), vocabulary, {"en": 0})
    samples = Samples(np.arange(2), (Ragged.of([[7, 8, 9], [10]]),))
    batch = objective.make_batch(samples, Step(("en",)), np.random.default_rng(0))
    assert batch.tokens.tolist() == [begin, 7, 4, 4, 1, begin, 4, 1]
    assert batch.targets.tolist() == [8, 9, 10]
