"""Batches of labelled texts: the same for any number of ranks, micro-batches and workers."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from xlm_plugins.contracts.batch import Batch
from xlm_plugins.contracts.task import LabelledTexts, Split, TaskData
from xlm_plugins.core.errors import OptionError
from xlm_plugins.data.batches.examples import ExampleBatches, Examples, encode_task, fingerprint
from xlm_plugins.data.batches.loader import load_batches
from xlm_plugins.testing.words import WordTokenizer

WORDS = "abcdefghijkl"
TOKENIZER = WordTokenizer(WORDS)
EOS = TOKENIZER.special("eos")
LANGUAGES = {"en": 0, "fr": 1}


def part(split: Split, language: str, labels: Sequence[str], *, second: bool = False):
    """Row r has r % 5 + 1 words, beginning with the r-th."""
    firsts = [" ".join((WORDS * 2)[r % 12 : r % 12 + r % 5 + 1]) for r in range(len(labels))]
    columns = (firsts, firsts[::-1]) if second else (firsts,)
    lines = range(1, len(labels) + 1)
    return LabelledTexts(split, language, columns, labels, Path(f"{split}.{language}.tsv"), lines)


def classes(n_rows: int) -> list[str]:
    return ["yes" if r % 3 else "no" for r in range(n_rows)]


@pytest.fixture(scope="module")
def data() -> TaskData:
    parts = (
        part("train", "en", classes(23)), part("train", "fr", classes(10)),
        part("valid", "fr", classes(4)),
    )  # fmt: skip
    return TaskData(parts, ("no", "yes"))


@pytest.fixture(scope="module")
def examples(data: TaskData) -> Examples:
    return Examples.cat(encode_task(data, TOKENIZER, LANGUAGES, 20)[:2])


def rows(batches: Sequence[Batch]) -> list[int]:
    return torch.cat([batch.sample_ids for batch in batches]).tolist()


def same(one: Batch, other: Batch) -> bool:
    names = ("tokens", "positions", "languages", "offsets", "predicted", "targets", "sample_ids")
    return all(torch.equal(getattr(one, name), getattr(other, name)) for name in names)


def test_a_batch_holds_each_row_as_it_was_read(data: TaskData, examples: Examples) -> None:
    chosen = np.array([30, 2, 7])
    batch = examples.batch(chosen)
    texts = [text for part in data.parts[:2] for text in part.texts[0]]
    labels = [label for part in data.parts[:2] for label in part.labels or ()]
    for number, row in enumerate(chosen.tolist()):
        begin, end = batch.offsets[number : number + 2].tolist()
        words = TOKENIZER.encode_batch([texts[row]]).rows[0].tolist()
        assert batch.tokens[begin:end].tolist() == [EOS, *words, EOS]
        assert batch.positions[begin:end].tolist() == list(range(end - begin))
        assert set(batch.languages[begin:end].tolist()) == {int(row >= 23)}
        assert batch.predicted[number] == begin
        assert ("no", "yes")[int(batch.targets[number])] == labels[row]
    assert batch.tokens.dtype == batch.targets.dtype == torch.int64
    assert batch.sample_ids.tolist() == chosen.tolist()


def test_pairs_and_numbers() -> None:
    pairs = part("train", "en", ["1.5", "-2", "3e1"], second=True)
    data = TaskData((pairs,), ())
    (examples,) = encode_task(data, TOKENIZER, LANGUAGES, 20)
    batch = examples.batch(np.arange(3))
    assert batch.targets.dtype == torch.float32
    assert batch.targets.tolist() == [1.5, -2.0, 30.0]
    assert (batch.tokens == EOS).sum() == 9


def test_a_language_that_the_model_does_not_know(data: TaskData) -> None:
    with pytest.raises(OptionError, match=r"valid\.fr\.tsv is in 'fr'|train\.fr\.tsv is in 'fr'"):
        encode_task(data, TOKENIZER, {"en": 0, "de": 1}, 20)
    any_language = encode_task(data, TOKENIZER, None, 20)  # such a model takes any language
    assert {language for part in any_language for language in part.languages.tolist()} == {0}


def test_rows_that_were_cut_are_counted(data: TaskData) -> None:
    whole, short = (encode_task(data, TOKENIZER, LANGUAGES, longest) for longest in (7, 6))
    assert [part.n_cut for part in whole] == [0, 0, 0]
    assert [part.n_cut for part in short] == [4, 2, 0]
    assert Examples.cat(short).n_cut == 6


def test_the_fingerprint_sees_what_matters(data: TaskData) -> None:
    def of(data: TaskData, languages: dict[str, int] = LANGUAGES, longest: int = 20) -> str:
        return fingerprint(data, encode_task(data, TOKENIZER, languages, longest))

    train, french, _ = data.parts
    others = [
        of(TaskData((train, french, part("valid", "en", classes(4))), data.classes)),
        of(TaskData((train, french, part("test", "fr", classes(4))), data.classes)),
        of(TaskData((train, french, part("valid", "fr", ["yes"] * 4)), data.classes)),
        of(TaskData((train, french), data.classes)),
        of(data, longest=5),
        of(data, {"en": 1, "fr": 0}),
    ]
    assert of(TaskData(data.parts, data.classes)) == of(data)
    assert len({of(data), *others}) == 7


def test_every_epoch_takes_each_row_once_in_its_own_order(examples: Examples) -> None:
    batches = ExampleBatches(examples, 11, seed=1)
    assert batches.per_epoch == 3
    epochs = [[rows(batches[3 * epoch + n]) for n in range(3)] for epoch in (0, 1)]
    for epoch in epochs:
        assert sorted(row for batch in epoch for row in batch) == list(range(33))
    assert epochs[0] != epochs[1]
    assert rows(ExampleBatches(examples, 11, seed=2)[0]) != epochs[0][0]


def test_what_fills_no_batch_comes_in_another_epoch(examples: Examples) -> None:
    batches = ExampleBatches(examples, 10, seed=1)
    assert batches.per_epoch == 3
    epochs = [{row for n in range(3) for row in rows(batches[3 * epoch + n])} for epoch in range(4)]
    assert [len(epoch) for epoch in epochs] == [30] * 4
    assert set.union(*epochs) == set(range(33))


def test_fewer_rows_than_a_batch_are_one_batch(examples: Examples) -> None:
    batches = ExampleBatches(examples, 1000, seed=1)
    assert batches.per_epoch == 1
    assert sorted(rows(batches[0])) == list(range(33))


def test_a_batch_depends_on_nothing_but_its_number(examples: Examples) -> None:
    batches = ExampleBatches(examples, 8, seed=3)
    in_order = [batches[index][0] for index in range(9)]
    again = ExampleBatches(examples, 8, seed=3)
    for index in (8, 0, 5, 4):
        assert same(again[index][0], in_order[index])
    assert same(pickle.loads(pickle.dumps(batches))[7][0], in_order[7])


@pytest.mark.parametrize(("ranks", "accumulation"), [(1, 3), (2, 1), (2, 2), (3, 2), (8, 1)])
def test_ranks_and_micro_batches_divide_a_batch(
    examples: Examples, ranks: int, accumulation: int
) -> None:
    whole = ExampleBatches(examples, 8, seed=3)
    for index in range(5):
        parts = [
            ExampleBatches(examples, 8, 3, rank, ranks, accumulation)[index]
            for rank in range(ranks)
        ]
        assert all(len(of_rank) == accumulation for of_rank in parts)
        together = [batch for of_rank in parts for batch in of_rank]
        assert rows(together) == rows(whole[index])
        assert all(batch.n_targets for batch in together)


def test_a_batch_too_small_to_divide_is_refused(examples: Examples) -> None:
    with pytest.raises(OptionError, match="2 process") as error:
        ExampleBatches(examples, 3, 1, 0, 2, 2)
    assert "--batch-sentences" in error.value.remedy


def test_loader_processes_change_nothing(examples: Examples) -> None:
    batches = ExampleBatches(examples, 8, seed=3)
    alone, loaded = (
        [found.batches for found in load_batches(batches, 2, 7, workers)] for workers in (0, 1)
    )
    assert len(alone) == len(loaded) == 5
    for one, other in zip(alone, loaded, strict=True):
        assert same(one[0], other[0])
