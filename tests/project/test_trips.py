"""The trips through the code in CONTRIBUTING.md: every function on the way exists where it says."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
SECTION = CONTRIBUTING.partition("\n## Three trips")[2].partition("\n## ")[0]
TRIPS = dict(re.findall(r"^### (.*)\n((?:(?!### ).*\n)*)", SECTION, re.M))


def stops(trip: str) -> list[tuple[str, str]]:
    """The files and names that a trip leads to: `path`:`function`, class or `Class.method`."""
    return re.findall(r"`([\w./]+\.py)`:`([\w.]+)`", trip)


def defined(source: str) -> set[str]:
    """The classes and functions of a module, and the methods of its classes."""
    kinds = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    outer = [node for node in ast.parse(source).body if isinstance(node, kinds)]
    inner = [(o, i) for o in outer if isinstance(o, ast.ClassDef) for i in o.body]
    names = {f"{o.name}.{i.name}" for o, i in inner if isinstance(i, kinds)}
    return names | {node.name for node in outer}


@pytest.mark.parametrize("title", TRIPS)
def test_every_stop_of_a_trip_exists(title: str) -> None:
    found = stops(TRIPS[title])
    gone = [
        f"{path}:{name}"
        for path, name in found
        if not (ROOT / path).is_file() or name not in defined((ROOT / path).read_text("utf-8"))
    ]
    assert gone == []


def test_there_are_three_trips_of_one_stop_per_line() -> None:
    assert len(TRIPS) == 3
    for trip in TRIPS.values():
        numbers = [int(number) for number in re.findall(r"^(\d+)\. `[\w./]+\.py`:`", trip, re.M)]
        assert numbers == list(range(1, len(numbers) + 1))
        assert len(re.findall(r"^\d+\. ", trip, re.M)) == len(numbers) > 10


def test_the_checks_find_faults() -> None:
    assert stops("1. `a/b.py`:`C.d` goes to `e`, `f.py` and `g.md`:`h`") == [("a/b.py", "C.d")]
    source = "import x\nclass A:\n    def f(self): ...\n    y = 1\ndef g():\n    def h(): ...\n"
    assert defined(source) == {"A", "A.f", "g"}
