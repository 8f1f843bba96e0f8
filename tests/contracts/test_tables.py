"""Tables: TSV, CSV and JSON lines, plain or compressed, and the errors with file and line."""

from __future__ import annotations

import bz2
import gzip
import lzma
from collections.abc import Callable
from pathlib import Path

import pytest

from xlm_plugins import DataError, read_table
from xlm_plugins.core.text_files import zstd

TSV = 'label\ttext\ngood\tIt is "fine".\nbad\tIl n\'est pas bon.\n'


def written(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_bytes(text.encode())
    return path


def refusal(path: Path, names: list[str] | None = None) -> str:
    with pytest.raises(DataError) as error:
        read_table(path, names)
    return str(error.value)


def test_a_tsv_file_has_column_names_and_no_quoting(tmp_path: Path) -> None:
    table = read_table(written(tmp_path, "a.tsv", TSV))
    assert list(table.columns) == ["label", "text"]
    assert table.column("label") == ("good", "bad")
    assert table.column("text") == ('It is "fine".', "Il n'est pas bon.")
    assert table.lines == [2, 3]
    assert table.file == tmp_path / "a.tsv"


def test_column_names_may_be_given(tmp_path: Path) -> None:
    table = read_table(written(tmp_path, "a.txt", TSV), ["one", "two"])
    assert table.column("one") == ("label", "good", "bad")
    assert table.lines == [1, 2, 3]


def test_a_table_of_column_names_only_has_no_rows(tmp_path: Path) -> None:
    table = read_table(written(tmp_path, "a.tsv", "label\ttext\n"))
    assert (table.column("text"), table.lines) == ((), [])


@pytest.mark.parametrize("name", ["a.tsv", "a.csv"])
def test_line_ends_and_byte_order_marks_are_not_part_of_a_text(tmp_path: Path, name: str) -> None:
    mark = "\t" if name == "a.tsv" else ","
    text = f"\ufefflabel{mark}text\r\ngood{mark}Yes.\r\n"
    table = read_table(written(tmp_path, name, text))
    assert table.columns == {"label": ("good",), "text": ("Yes.",)}


def test_only_line_feeds_end_a_row(tmp_path: Path) -> None:
    """U+2028, U+0085 and the form feed end a line for `str.splitlines`."""
    text = "a\u2028b\x85c\x0cd"
    table = read_table(written(tmp_path, "a.tsv", f"text\n{text}\n\nlast\n"))
    assert table.column("text") == (text, "last")
    assert table.lines == [2, 4]


def test_a_csv_field_may_have_commas_quotes_and_lines(tmp_path: Path) -> None:
    text = 'label,text\ngood,"one, two\nand ""three"""\n\nbad,four\n'
    table = read_table(written(tmp_path, "a.csv", text))
    assert table.column("text") == ('one, two\nand "three"', "four")
    assert table.lines == [2, 5]


def test_json_lines_are_objects_in_any_order_of_keys(tmp_path: Path) -> None:
    text = '{"label": 1, "text": "a\\tb", "more": null}\n\n{"text": "é", "label": 2.5, "more": []}'
    table = read_table(written(tmp_path, "a.jsonl", text), ["names", "are", "ignored"])
    assert table.column("label") == ("1", "2.5")
    assert table.column("text") == ("a\tb", "é")
    assert table.lines == [1, 3]


@pytest.mark.parametrize(
    ("ending", "compress"),
    [
        ("bz2", bz2.compress),
        ("gz", gzip.compress),
        ("xz", lzma.compress),
        ("zst", zstd.compress),
    ],
)
def test_compressed_files(tmp_path: Path, ending: str, compress: Callable[[bytes], bytes]) -> None:
    path = tmp_path / f"a.tsv.{ending}"
    packed = compress(TSV.encode())
    path.write_bytes(packed)
    assert read_table(path).column("label") == ("good", "bad")
    path.write_bytes(packed[:20])
    assert "cannot be read" in refusal(path)
    path.write_bytes(b"no such thing")
    assert "cannot be read" in refusal(path)


def test_damage_within_a_compressed_file_is_reported(tmp_path: Path) -> None:
    """zlib.error is not an OSError."""
    path, packed = tmp_path / "a.tsv.gz", gzip.compress(TSV.encode())
    path.write_bytes(packed[:12] + b"\xff" * 8 + packed[20:])
    assert "cannot be read: Error -3 while decompressing" in refusal(path)


def test_the_error_of_a_missing_column_lists_the_columns(tmp_path: Path) -> None:
    table = read_table(written(tmp_path, "a.tsv", TSV))
    with pytest.raises(DataError, match=r"has no column 'score'\nexpected: one of label, text$"):
        table.column("score")


def test_long_column_names_are_shortened_in_errors(tmp_path: Path) -> None:
    table = read_table(written(tmp_path, "a.tsv", f"good\t{'word ' * 50}\n"))
    with pytest.raises(DataError, match=r"one of good, word [word ]{10,60} \.\.\.$"):
        table.column("label")


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        (
            "a.tsv",
            "label\ttext\ngood\tx\nbad\tx\ty\n",
            "line 3: 3 fields\nexpected: 2: label, text",
        ),
        ("a.csv", 'label,text\na,"x\ny"\nb\n', "line 4: 1 fields"),
        ("a.csv", 'label,text\na,"x\n', "line 2: unexpected end of data"),
        ("a.jsonl", '{"label": "a"}\n{"label": "b"\n', "line 2: Expecting ',' delimiter"),
        ("a.jsonl", '{"label": "a"}\n["b"]\n', "line 2: not an object"),
        ("a.jsonl", '{"label": "a", "text": "x"}\n{"label": "b"}\n', "line 2: missing keys: text"),
        ("a.tsv", "", "is empty"),
        ("a.tsv", "text\ttext\nx\ty\n", "two columns are called 'text'"),
        ("a.xlsx", "x", "does not tell its format\nexpected: a name that ends in .tsv, .txt, .csv"),
        ("a.gz", "x", "does not tell its format"),
    ],
)
def test_errors_name_file_and_line(tmp_path: Path, name: str, text: str, told: str) -> None:
    path = written(tmp_path, name, text)
    found = refusal(path)
    assert str(path) in found
    assert told in found


def test_a_file_that_is_missing_or_not_utf_8(tmp_path: Path) -> None:
    assert refusal(tmp_path / "no.tsv") == f"there is no file {tmp_path / 'no.tsv'}"
    (tmp_path / "latin.tsv").write_bytes("text\ncafé\n".encode("latin-1"))
    assert "latin.tsv cannot be read: 'utf-8' codec" in refusal(tmp_path / "latin.tsv")
    (tmp_path / "folder.tsv").mkdir()
    assert "cannot be read" in refusal(tmp_path / "folder.tsv")
