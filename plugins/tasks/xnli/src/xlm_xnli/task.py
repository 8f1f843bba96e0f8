"""XNLI (Conneau et al., 2018, arXiv 1809.05053): does a sentence follow from another?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from xlm_plugins import DataError, LabelledTexts, OptionError, Task, TaskData, read_table
from xlm_xnli import XnliOptions

CLASSES = ("contradiction", "neutral", "entailment")
Split = Literal["train", "valid", "test"]
FOLDERS = ("XNLI-1.0", "XNLI-MT-1.0")
TRAIN = "multinli.train.{}.tsv"
SPELLINGS = {"contradictory": "contradiction"}  # in the training files only


class Xnli(Task):
    """Is a hypothesis a contradiction to its premise, neutral, or entailed by it?

    Trained on MultiNLI, in English (zero-shot transfer) or machine-translated; dev and test sets
    are the same sentences in each language, translated by people.
    """

    name = "xnli"
    metrics = ("acc",)
    options: XnliOptions

    def read(self) -> TaskData:
        """Read the files, at any depth below the folder."""
        train = _training_files(self._roots(), self.options.train_languages)
        return TaskData(
            (
                *(_training_part(language, file) for language, file in train.items()),
                *self._tested("valid", "xnli.dev.tsv"),
                *self._tested("test", "xnli.test.tsv"),
            ),
            CLASSES,
        )

    def _roots(self) -> list[Path]:
        """The folders to search: the given one, or both distributions if it is one of the two."""
        if not self.options.data:
            raise OptionError("xnli needs the data set's files", remedy="--xnli.data FOLDER")
        root = Path(self.options.data).absolute()
        if not root.is_dir():
            raise DataError(f"there is no folder {root}", remedy="--xnli.data FOLDER")
        return [root.parent / name for name in FOLDERS] if root.name in FOLDERS else [root]

    def _tested(self, split: Split, name: str) -> Iterator[LabelledTexts]:
        """The parts of a file that holds all languages."""
        files = _found(self._roots(), name)
        if not files:
            raise _missing(name, self._roots())
        rows_of = _rows_by_language(files[0])
        for language in dict.fromkeys(self.options.languages or rows_of):
            if language not in rows_of:
                raise OptionError(
                    f"xnli.languages: {files[0]} has nothing in {language!r}",
                    expected=f"some of {', '.join(rows_of)}",
                )
            yield _part(split, language, files[0], rows_of[language])


class _Row(NamedTuple):
    line: int
    label: str
    premise: str
    hypothesis: str


def _rows_by_language(file: Path) -> dict[str, list[_Row]]:
    """The rows of a dev or test file whose annotators agreed on a label."""
    table = read_table(file)
    names = ("language", "gold_label", "sentence1", "sentence2")
    columns = [table.column(name) for name in names]
    rows_of: dict[str, list[_Row]] = {}
    for line, language, label, premise, hypothesis in zip(table.lines, *columns, strict=True):
        if label != "-":
            rows_of.setdefault(language, []).append(_Row(line, label, premise, hypothesis))
    if not rows_of:
        raise DataError(f"{file} has no rows with a label", expected="XNLI's, as distributed")
    return rows_of


def _training_files(roots: Sequence[Path], languages: Sequence[str]) -> dict[str, Path]:
    """The training file of each selected language."""
    before, after = TRAIN.split("{}")
    found: dict[str, Path] = {}
    for file in _found(roots, TRAIN.format("*")):
        found.setdefault(file.name.removeprefix(before).removesuffix(after), file)
    if not found:
        raise _missing(TRAIN.format("LANGUAGE"), roots)
    if "all" in languages:
        return dict(sorted(found.items()))
    for language in languages:
        if language not in found:
            raise DataError(
                f"{_places(roots)}: no {TRAIN.format(language)} in there",
                expected=f"xnli.train-languages: some of {', '.join(sorted(found))}",
            )
    return {language: found[language] for language in languages}


def _training_part(language: str, file: Path) -> LabelledTexts:
    table = read_table(file)
    columns = [table.column(name) for name in ("label", "premise", "hypo")]
    rows = [
        _Row(line, SPELLINGS.get(label, label), premise, hypothesis)
        for line, label, premise, hypothesis in zip(table.lines, *columns, strict=True)
    ]
    return _part("train", language, file, rows)


def _part(split: Split, language: str, file: Path, rows: Sequence[_Row]) -> LabelledTexts:
    lines, labels, *texts = zip(*rows, strict=True) if rows else ((), (), (), ())
    return LabelledTexts(split, language, tuple(texts), labels, file, lines)


def _found(roots: Sequence[Path], name: str) -> list[Path]:
    """The files of this name below the folders, the least nested first."""
    files = (file for root in roots for file in root.rglob(name) if file.is_file())
    return sorted(files, key=lambda file: (len(file.parts), file))


def _missing(name: str, roots: Sequence[Path]) -> DataError:
    return DataError(
        f"{_places(roots)}: no {name} in there",
        expected="XNLI-1.0/xnli.dev.tsv, XNLI-1.0/xnli.test.tsv and "
        "XNLI-MT-1.0/multinli/multinli.train.LANGUAGE.tsv",
        remedy="unpack XNLI-1.0.zip and XNLI-MT-1.0.zip in one folder: --xnli.data FOLDER",
    )


def _places(roots: Sequence[Path]) -> str:
    return " and ".join(map(str, roots))
