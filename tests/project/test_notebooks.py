"""The notebooks: their cells run, and their files are complete and small.

Cells run as plain Python in a separate process.  This needs no Jupyter, which would bring some
twenty packages, and works because the notebooks use no magics, which would not compile.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"
NOTEBOOKS = sorted(DOCS.glob("*.ipynb"))
LARGEST = 200_000  # bytes, pictures included

RUN_CELLS = """
import json, sys
names = {"__name__": "__main__"}
for number, cell in enumerate(json.load(open(sys.argv[1], encoding="utf-8"))["cells"], 1):
    if cell["cell_type"] == "code":
        exec(compile("".join(cell["source"]), f"cell {number}", "exec"), names)
"""


def run_cells(notebook: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a notebook's cells in order, in a folder with nothing around it."""
    environment = {
        **os.environ,
        "MPLBACKEND": "agg",
        "OMP_NUM_THREADS": "1",
        "XLM_TOUR_MINUTES": "0.03",
    }
    (folder / "docs").mkdir()
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", RUN_CELLS, str(notebook)],
        cwd=folder / "docs", env=environment, capture_output=True, text=True, timeout=500,
    )  # fmt: skip


def cells_of(notebook: Path, kind: str) -> list[dict[str, Any]]:
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in cells if cell["cell_type"] == kind]


def faults_of_storage(notebook: Path) -> list[str]:
    """What is wrong with a notebook's file, outputs included."""
    text, faults = notebook.read_text(encoding="utf-8"), []
    if len(text) > LARGEST:
        faults.append(f"{len(text)} bytes")
    cells = cells_of(notebook, "code")
    if [cell["execution_count"] for cell in cells] != list(range(1, len(cells) + 1)):
        faults.append("not run from top to bottom")
    outputs = [output for cell in cells for output in cell["outputs"]]
    if any(output["output_type"] == "error" for output in outputs):
        faults.append("a cell raised")
    if any(output.get("name") == "stderr" for output in outputs):
        faults.append("warnings are stored")
    if found := re.search(r"/(work|tmp|home|root|Users)/|\\u001b", text):
        faults.append(f"{found[0]} is stored")
    told = "".join("".join(cell["source"]) for cell in cells_of(notebook, "markdown"))
    links = re.findall(r"\]\((?!\w+:)([^)#]+)", told)
    return faults + [f"links to {link}" for link in links if not (DOCS / link).exists()]


def test_there_are_two() -> None:
    assert [notebook.stem for notebook in NOTEBOOKS] == ["pkm", "tour"]


@pytest.mark.slow
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_cell_runs(notebook: Path, tmp_path: Path) -> None:
    done = run_cells(notebook, tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_its_file_is_complete_and_small(notebook: Path) -> None:
    assert faults_of_storage(notebook) == []
    assert any(cell["outputs"] for cell in cells_of(notebook, "code"))


def stored(path: Path, *sources: str, **code: Any) -> Path:
    """A notebook: a text cell, and code cells."""
    cells: list[dict[str, Any]] = [{"cell_type": "markdown", "source": ["[gone](gone.md)\n"]}]
    for number, source in enumerate(sources, 1):
        fields = {"execution_count": number, "outputs": [], **code}
        cells.append({"cell_type": "code", "source": source.splitlines(True), **fields})
    path.write_text(json.dumps({"cells": cells}))
    return path


@pytest.mark.parametrize(
    ("cell", "error"),
    [
        ("assert n == 2", "AssertionError"),
        ("import warnings\nwarnings.warn('old')", "UserWarning: old"),
        ("%matplotlib inline", "SyntaxError"),
    ],
)
def test_a_cell_that_raises_is_found(cell: str, error: str, tmp_path: Path) -> None:
    done = run_cells(stored(tmp_path / "a.ipynb", "n = 1", cell), tmp_path)
    assert done.returncode == 1
    assert '"cell 3", line ' in done.stderr
    assert error in done.stderr


def test_cells_share_their_names(tmp_path: Path) -> None:
    assert run_cells(stored(tmp_path / "a.ipynb", "n = 1", "assert n"), tmp_path).returncode == 0


@pytest.mark.parametrize(
    ("code", "fault"),
    [
        ({}, None),
        ({"execution_count": None}, "not run from top to bottom"),
        ({"outputs": [{"output_type": "error"}]}, "a cell raised"),
        ({"outputs": [{"output_type": "stream", "name": "stderr"}]}, "warnings are stored"),
        ({"outputs": [{"output_type": "stream", "text": "in /tmp/x"}]}, "/tmp/ is stored"),
        ({"outputs": [{"output_type": "stream", "text": "\x1b[1m"}]}, "\\u001b is stored"),
        ({"outputs": [{"output_type": "stream", "text": "x" * LARGEST}]}, "200"),
    ],
)
def test_faults_of_storage_are_found(code: Any, fault: str | None, tmp_path: Path) -> None:
    *found, link = faults_of_storage(stored(tmp_path / "a.ipynb", "n = 1", **code))
    assert link == "links to gone.md"
    assert (found == []) if fault is None else found[0].startswith(fault)
