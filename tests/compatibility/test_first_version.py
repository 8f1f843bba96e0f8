"""A data set, a run and a bundle of the first version open, resume and evaluate as they did then.

README.md beside this file says how they were made.  Numbers are held to 1e-5, for processors
differ in the last digits.
"""

from __future__ import annotations

import json
import shutil
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import xlm_plugins
from xlm_plugins.cli.main import main
from xlm_plugins.runs.metrics_file import read_metrics

ARCHIVE = Path(__file__).with_name("first-version.tar.xz")
CLOCKS = {"time", "tokens_per_second"}


@pytest.fixture(scope="module")
def first_version(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The archive's folder.  For reading only."""
    folder = tmp_path_factory.mktemp("first-version")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    return folder


@pytest.fixture(scope="module")
def expected(first_version: Path) -> dict[str, Any]:
    return json.loads((first_version / "expected.json").read_text(encoding="utf-8"))


def measured(metrics: Path) -> list[dict[str, Any]]:
    """The lines of a metrics file without what the clock says."""
    return [
        {key: value for key, value in line.items() if key not in CLOCKS}
        for line in read_metrics(metrics)
    ]


def test_a_run_resumes_to_the_metrics_that_it_had(first_version: Path, tmp_path: Path) -> None:
    run = shutil.copytree(first_version / "run", tmp_path / "run")
    shutil.rmtree(run / "checkpoints" / "step-8")
    assert main(["train", "--resume", str(run), "--data", str(first_version / "data")]) == 0
    lines = measured(run / "metrics.jsonl")
    then = measured(first_version / "run" / "metrics.jsonl")
    assert [line.keys() for line in lines] == [line.keys() for line in then]
    assert [line["step"] for line in lines][-1] == 8
    for line, before in zip(lines, then, strict=True):
        words = {key for key, value in before.items() if isinstance(value, str)}
        assert {key: line.pop(key) for key in words} == {key: before.pop(key) for key in words}
        assert line == pytest.approx(before, rel=1e-5)


def test_a_run_evaluates_as_it_did(
    first_version: Path, expected: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    data = str(first_version / "data")
    assert main(["evaluate", str(first_version / "run@last"), "--data", data, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == pytest.approx(expected["evaluate"], rel=1e-5)


def test_models_compute_what_they_did(first_version: Path, expected: dict[str, Any]) -> None:
    english, french = (expected["sentences"][language] for language in ("en", "fr"))
    model = xlm_plugins.load(first_version / "run")
    np.testing.assert_allclose(model.embed(english, "en"), expected["embed"], atol=1e-5)
    np.testing.assert_allclose(model.score(english, "en"), expected["score"], rtol=1e-5)
    translator = xlm_plugins.load(first_version / "bundle")
    assert translator.translate(french, "fr", "en") == expected["translate"]
