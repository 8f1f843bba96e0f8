"""The tokenizer: the contract, and its vocabulary."""

from __future__ import annotations

from pathlib import Path

import pytest
from xlm_plugins import DataError
from xlm_plugins.testing import check_tokenizer

from xlm_example import ExampleTokenizerOptions
from xlm_example.tokenizer import ExampleTokenizer


def test_the_contract() -> None:
    check_tokenizer("example-tokenizer", lowercase=True)


def test_the_most_frequent_characters_come_first(tmp_path: Path) -> None:
    options = ExampleTokenizerOptions(lowercase=True)
    tokenizer = ExampleTokenizer.train(["Baab", "ca"], 8, options, tmp_path, workers=1)
    assert tokenizer.tokens()[6:] == ["a", "b"]
    assert tokenizer.encode_batch(["ABC"]).values.tolist() == [6, 7, tokenizer.special("unk")]


def test_an_impossible_vocabulary_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="vocabulary of 50"):
        ExampleTokenizer.train(["abc"], 50, ExampleTokenizerOptions(), tmp_path, workers=1)
