"""What all uses of raw text share: languages, framed batches, batches of similar length."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from xlm_plugins.contracts.ragged import Ragged
from xlm_plugins.core.errors import OptionError
from xlm_plugins.inference.common import batches_by_length, language_id, one_line, sentence_batch
from xlm_plugins.model.bundle import Bundle

EOS = 1


def test_the_language_must_be_one_that_the_model_knows(
    random_bundle: Callable[..., Bundle],
) -> None:
    bundle = random_bundle("mlm")
    assert language_id(bundle, "fr") == 1
    with pytest.raises(OptionError, match=r"'xx'\n.*en, fr"):
        language_id(bundle, "xx")
    with pytest.raises(OptionError, match=r"none was named\n.*en, fr"):
        language_id(bundle, None)
    assert language_id(random_bundle("mlm", languages=("en",)), None) == 0


def test_sentences_stand_between_two_eos_and_are_cut(random_bundle: Callable[..., Bundle]) -> None:
    batch = sentence_batch(
        random_bundle("mlm", max_positions=5), Ragged.of([[7, 8], [], [9] * 4]), 1
    )
    assert batch.tokens.tolist() == [EOS, 7, 8, EOS, EOS, EOS, EOS, 9, 9, 9, EOS]
    assert batch.offsets.tolist() == [0, 4, 6, 11]
    assert batch.positions.tolist() == [0, 1, 2, 3, 0, 1, 0, 1, 2, 3, 4]
    assert set(batch.languages.tolist()) == {1}


def test_batches_hold_every_row_once_longest_first() -> None:
    lengths = np.array([3, 9, 0, 3, 20, 1, 4])
    batches = [which.tolist() for which in batches_by_length(lengths, 12)]
    assert batches == [[4], [1], [6, 0, 3], [5, 2]]
    assert [len(which) for which in batches_by_length(lengths, 12, shortest=6)] == [1, 1, 2, 2, 1]
    assert list(batches_by_length(np.array([], int), 12)) == []


def test_line_ends_become_spaces() -> None:
    assert one_line("a\r\nb\n") == "a  b "
