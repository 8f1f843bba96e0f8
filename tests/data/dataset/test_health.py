"""What is warned of, from a manifest alone, and what is not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from xlm_plugins.data.dataset.health import findings, unused_files
from xlm_plugins.data.dataset.manifest import Block, Manifest, Stream, TokenizerRecord

RECORD = TokenizerRecord("words", "tests", "1", "abc", 100, {"unk": 3}, [])


def manifest(**streams: tuple[list[int], list[int], list[int]]) -> Manifest:
    """Streams by name, `__` for a dot and `_to_` for a dash.

    For each, of every language: characters, tokens and unknown tokens.
    """
    built, counts = [], {}
    for key, (n_characters, n_tokens, n_unknown) in streams.items():
        name = key.replace("__", ".").replace("_to_", "-")
        split, languages = name.split(".")
        lengths = np.array([[1, sum(n_tokens), sum(n_tokens)]], np.int32)
        block = Block(0, name, {}, sum(n_tokens), lengths)
        built.append(Stream(split, tuple(languages.split("-")), [block]))
        counts[name] = {
            "n_characters": n_characters, "n_tokens": n_tokens, "n_unknown": n_unknown
        }  # fmt: skip
    return Manifest(RECORD, built, [], {"streams": counts})


def problems(found: Manifest) -> list[str]:
    assert all(finding.hint for finding in findings(found))
    return [finding.problem for finding in findings(found)]


GOOD = ([400], [100], [1])


def test_nothing_is_said_of_good_text() -> None:
    pair = ([400, 400], [100, 299], [1, 1])
    good = manifest(
        train__en=GOOD, valid__en=GOOD, train__en_to_ru=pair, test__en_to_ru=pair,
        valid__ru=([400], [299], [0]),
    )  # fmt: skip
    assert problems(good) == []


@pytest.mark.parametrize(
    ("split", "meant"),
    [("dev", "valid"), ("validation", "valid"), ("trian", "train"), ("testset", "test")],
)
def test_a_split_that_nothing_uses(split: str, meant: str) -> None:
    (found,) = findings(manifest(train__en=GOOD, **{f"{split}__en": GOOD}))
    assert f"nothing uses the split {split} ({split}.en)" in found.problem
    assert f"did you mean {meant}?" in found.hint


def test_held_out_text_without_training_text() -> None:
    pair = ([400, 400], [100, 100], [0, 0])
    told = problems(manifest(train__en=GOOD, valid__ru=GOOD, test__ru=GOOD, valid__en_to_ru=pair))
    assert told == [
        "en-ru has held-out pairs (valid.en-ru) and no training pairs",
        "ru has held-out text (valid.ru, test.ru) and no training text",
    ]


def test_a_language_with_three_times_the_tokens_of_the_others() -> None:
    languages = {"train__en": GOOD, "train__fr": GOOD, "train__de": ([400], [600], [0])}
    assert problems(manifest(**languages, train__ru=([400], [300], [0]))) == [
        "the tokenizer spends 1.50 tokens on a character of de, and 0.25 on one of the other "
        "languages (median): it spells de out"
    ]
    (told,) = problems(manifest(train__en=GOOD, train__ru=([400], [301], [0])))
    assert "of ru" in told


def test_unknown_tokens_above_one_percent() -> None:
    pair = ([400, 400], [100, 200], [1, 3])
    good = manifest(train__en=GOOD, train__ru=GOOD, train__en_to_ru=pair, valid__en=GOOD)
    assert problems(good) == ["many tokens of ru are unknown to the tokenizer: 1.5% of train.en-ru"]


def test_what_an_older_version_did_not_count_is_not_missed() -> None:
    old = manifest(train__en=GOOD, valid__ru=([400], [900], [90]))
    for counts in old.source["streams"].values():
        del counts["n_tokens"], counts["n_unknown"]
    assert [told.split()[0] for told in problems(old)] == ["ru", "the"]
    assert unused_files(old) == []
    assert len(problems(replace(old, source={}))) == 1


def test_prepare_counts_the_tokens_of_each_language(tiny_data: Path) -> None:
    now = Manifest.load(tiny_data)
    for name, counts in now.source["streams"].items():
        stream = next(stream for stream in now.streams if stream.name == name)
        assert sum(counts["n_tokens"]) == stream.n_tokens
        assert len(counts["n_unknown"]) == len(stream.languages)
