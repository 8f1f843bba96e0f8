"""What a task promises about the data it reads, the scores, and the predictions it writes."""

from __future__ import annotations

import contextlib
import itertools
import math
import pickle
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from xlm_plugins.contracts.task import LabelledTexts, Task, TaskData, Values
from xlm_plugins.core.errors import XLMError
from xlm_plugins.core.registry import Component
from xlm_plugins.testing.promises import demand, promise

Files = dict[str, tuple[int, int]]


@dataclass(frozen=True)
class TaskCase:
    """A task under test, with options that name its files."""

    component: Component
    options: Any

    def build(self) -> Task:
        task: Task = self.component.load()(self.options)
        return task

    @cached_property
    def data(self) -> TaskData:
        """What it reads."""
        return self.build().read()

    @cached_property
    def targets(self) -> Values:
        """True labels in which every class occurs, some of them more often."""
        n_classes = len(self.data.classes)
        if n_classes:
            return np.arange(3 * n_classes + 1, dtype=np.int64) % n_classes
        return np.linspace(-1, 4, 13, dtype=np.float32)

    @cached_property
    def predictions(self) -> Values:
        """Predictions, some of which are right."""
        return np.where(np.arange(len(self.targets)) % 3 == 1, self.targets - 1, self.targets)

    def judged(self, targets: Values, predicted: Values) -> dict[str, float]:
        """What it measures, on copies of the arrays."""
        return dict(self.build().measure(targets.copy(), predicted.copy()))

    def answers(self, part: LabelledTexts) -> list[str]:
        """A prediction for each row, as `write` receives them: classes or numbers."""
        possible = self.data.classes or ("0.5", "2.25", "4.0")
        return [possible[row % len(possible)] for row in range(part.n_rows)]


@promise("its name and those of its metrics have letters, digits and ``_ . -`` only", "Task")
def names_itself_and_its_metrics(case: TaskCase) -> None:
    task = case.build()
    demand(bool(re.fullmatch(r"[\w.-]+", task.name)), f"its name is {task.name!r}")
    metrics = task.metrics
    demand(isinstance(metrics, tuple) and bool(metrics), f"{metrics!r}, not a tuple of names")
    strange = [name for name in metrics if not re.fullmatch(r"[\w.-]+", name)]
    demand(not strange, f"{strange} in {metrics}")
    demand(len(set(metrics)) == len(metrics), f"a name twice in {metrics}")


@promise("if its options name no files, it raises an `XLMError`", "Task.read")
def refuses_options_that_name_nothing(case: TaskCase) -> None:
    with contextlib.suppress(XLMError), TemporaryDirectory() as folder, contextlib.chdir(folder):
        case.component.load()(case.component.options()).read()


@promise("it reads labelled data for training and validation", "Task.read")
def reads_what_is_needed(case: TaskCase) -> None:
    demand(isinstance(case.data, TaskData), f"{case.data!r}, not a TaskData")
    for split in ("train", "valid"):
        labelled = [part for part in case.data.of(split) if part.labels is not None]
        demand(bool(labelled), f"no {split} part with labels in the files that the test names")


@promise("a part has a line, a label and one or two texts for each row", "LabelledTexts")
def reads_whole_parts(case: TaskCase) -> None:
    for part in case.data.parts:
        where = f"the {part.split} part {part.title!r}"
        demand(part.split in ("train", "valid", "test"), f"{where}: no such split")
        demand(isinstance(part.file, Path), f"{where}: its file is {part.file!r}, not a Path")
        fine = all(isinstance(line, int) and line > 0 for line in part.lines)
        demand(fine, f"{where}: lines that are not numbers from 1")
        demand(len(part.texts) in (1, 2), f"{where}: {len(part.texts)} texts per row")
        labels = [] if part.labels is None else [part.labels]
        for column in (*part.texts, *labels):
            same = len(column) == part.n_rows
            demand(same, f"{where}: {len(column)} values for {part.n_rows} rows")
            strange = [value for value in column if not isinstance(value, str)]
            demand(not strange, f"{where}: {strange[:1]}, which is not a str")


@promise("reading the same files again returns the same data", "Task.read")
def reads_the_same_again(case: TaskCase) -> None:
    task = case.build()
    for way in ("the first time", "the second time"):
        _demand_same(task.read(), case.data, f"by another instance, {way}")


@promise("a pickled copy reads and scores the same", "Task")
def travels_to_processes(case: TaskCase) -> None:
    task = case.build()
    copy = pickle.loads(pickle.dumps(task))
    _demand_same(copy.read(), case.data, "by the unpickled copy")
    found = dict(copy.measure(case.targets.copy(), case.predictions.copy()))
    demand(found == case.judged(case.targets, case.predictions), f"{found}, unpickled")


@promise("it measures the metrics that it names, as finite numbers up to 100", "Task.measure")
def measures_what_it_names(case: TaskCase) -> None:
    metrics = case.build().metrics
    alike = np.full_like(case.targets, case.targets[0])
    for predicted in (case.predictions, alike, case.targets):
        found = case.judged(case.targets, predicted)
        demand(
            set(found) == set(metrics), f"{sorted(found)}, but its metrics are {sorted(metrics)}"
        )
        for name, value in found.items():
            fine = isinstance(value, float) and math.isfinite(value) and value <= 100 + 1e-6
            demand(fine, f"{name} = {value!r} for the predictions {predicted.tolist()}")


@promise("higher is better: perfect predictions score 100", "Task.measure")
def gives_100_for_what_is_perfect(case: TaskCase) -> None:
    perfect = case.judged(case.targets, case.targets)
    some_wrong = case.judged(case.targets, case.predictions)
    for name, value in perfect.items():
        demand(math.isclose(value, 100, abs_tol=1e-6), f"{name} = {value}")
        demand(some_wrong[name] < 100, f"{name} = 100, although some are wrong")


@promise("the order of rows does not matter, and they are not modified", "Task.measure")
def judges_rows_in_any_order(case: TaskCase) -> None:
    targets, predicted = case.targets.copy(), case.predictions.copy()
    wanted = case.build().measure(targets, predicted)
    same = np.array_equal(targets, case.targets) and np.array_equal(predicted, case.predictions)
    demand(same, "it modifies its arguments")
    turned = np.roll(np.arange(len(targets))[::-1], 2)
    for name, value in case.judged(targets[turned], predicted[turned]).items():
        close = math.isclose(value, wanted[name], abs_tol=1e-6)
        demand(close, f"{name} = {value} for reordered rows, {wanted[name]} before")


@promise("`write` writes only to the given folder", "Task.write")
def writes_into_its_folder_alone(case: TaskCase) -> None:
    sources = sorted({part.file.absolute().parent for part in case.data.parts})
    with TemporaryDirectory() as around:
        folder, elsewhere = Path(around, "predictions"), Path(around, "elsewhere")
        folder.mkdir()
        elsewhere.mkdir()
        before = [_files(source) for source in sources]
        with contextlib.chdir(elsewhere):
            for part in case.data.of("test"):
                case.build().write(part, case.answers(part), folder)
        beside = [path for path in Path(around).rglob("*") if folder not in (path, *path.parents)]
        demand(beside == [elsewhere], f"{beside} appeared")
        for source, files in zip(sources, before, strict=True):
            changed = {name for name, _ in files.items() ^ _files(source).items()}
            demand(not changed, f"{sorted(changed)} changed in {source}")


@promise("the parts of a split do not overwrite each other's predictions", "Task.write")
def writes_each_part_for_itself(case: TaskCase) -> None:
    with TemporaryDirectory() as folder:
        written: Mapping[str, bytes] = {}
        for part in case.data.of("test"):
            case.build().write(part, case.answers(part), Path(folder))
            found = {str(p): p.read_bytes() for p in Path(folder).rglob("*") if p.is_file()}
            lost = [name for name in written if not found.get(name, b"").startswith(written[name])]
            demand(not lost, f"{lost} is replaced by the part {part.title!r}")
            written = found


def _demand_same(found: TaskData, wanted: TaskData, way: str) -> None:
    demand(found.classes == wanted.classes, f"different classes {way}: {found.classes}")
    demand(len(found.parts) == len(wanted.parts), f"{len(found.parts)} parts {way}")
    for one, other in zip(found.parts, wanted.parts, strict=True):
        same = _content(one) == _content(other)
        demand(same, f"the {other.split} part {other.title!r} is different {way}")


def _content(part: LabelledTexts) -> tuple[Any, ...]:
    """Everything in a part, in a form that can be compared."""
    columns: Sequence[Sequence[Any]] = (*part.texts, part.lines, part.labels or ())
    return (part.split, part.language, part.file, part.name, *itertools.chain(map(list, columns)))


def _files(folder: Path) -> Files:
    """Size and modification time of each file directly in a folder."""
    found = {}
    for path in folder.iterdir():
        if path.is_file():
            status = path.stat()
            found[path.name] = (status.st_size, status.st_mtime_ns)
    return found


PROMISES = (
    names_itself_and_its_metrics,
    refuses_options_that_name_nothing,
    reads_what_is_needed,
    reads_whole_parts,
    reads_the_same_again,
    travels_to_processes,
    measures_what_it_names,
    gives_100_for_what_is_perfect,
    judges_rows_in_any_order,
    writes_into_its_folder_alone,
    writes_each_part_for_itself,
)
