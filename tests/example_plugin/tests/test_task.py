"""The task: the contract, and what it reads."""

from __future__ import annotations

from pathlib import Path

import pytest
from xlm_plugins import DataError
from xlm_plugins.testing import check_task

from xlm_example import ExampleTaskOptions
from xlm_example.task import ExampleTask


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder of files, each with rows of two labels."""
    for name in ("train.en", "valid.en", "test.en", "test.fr"):
        text = f"label\ttext\ngood\tthis is {name}\nbad\tthis is not\n"
        (tmp_path / f"{name}.tsv").write_text(text, encoding="utf-8")
    return tmp_path


def test_the_contract(data: Path) -> None:
    check_task("example-task", data=str(data))


def test_each_file_is_a_part(data: Path) -> None:
    read = ExampleTask(ExampleTaskOptions(str(data))).read()
    assert [part.language for part in read.of("test")] == ["en", "fr"]
    assert read.of("train")[0].texts == (("this is train.en", "this is not"),)
    assert read.classes == ("bad", "good")


def test_a_missing_file_is_reported(data: Path) -> None:
    (data / "valid.en.tsv").unlink()
    with pytest.raises(DataError, match=r"valid\.en\.tsv"):
        ExampleTask(ExampleTaskOptions(str(data))).read()
