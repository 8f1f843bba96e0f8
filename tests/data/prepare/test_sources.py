"""Sources and text: what is found and read, and which error refuses the rest."""

from __future__ import annotations

import bz2
import gzip
import lzma

import pytest

from xlm_plugins.core.errors import DataError
from xlm_plugins.core.text_files import COMPRESSED, zstd
from xlm_plugins.data.prepare.lines import count_text, sentences
from xlm_plugins.data.prepare.sources import Sources


def _write(folder, **texts):
    """Files by name, with `__` for a dot and `_to_` for a dash."""
    for name, text in texts.items():
        path = folder / (name.replace("__", ".").replace("_to_", "-") + ".txt")
        path.write_text(text, encoding="utf-8")
    return folder


def _only(folder):
    (stream,) = Sources.open(folder).streams
    return stream


def test_a_folder_names_its_streams_and_sorts_the_codes_of_a_pair(tmp_path):
    _write(tmp_path, train__fr_to_en__en="a\n", train__fr_to_en__fr="b\n", valid__zh_Hans="c\n")
    (tmp_path / "README.md").write_text("not text")
    (tmp_path / "README.txt").write_text("not text")
    sources = Sources.open(tmp_path)
    assert [stream.name for stream in sources.streams] == ["train.en-fr", "valid.zh_Hans"]
    assert sources.languages == ("en", "fr", "zh_Hans")
    assert list(sentences(sources.streams[0], "strict")) == [("a", "b")]


def test_toml_lists_several_files_per_stream(tmp_path):
    _write(tmp_path, a="one\n", b="two\n", c="un\ndeux\n")
    toml = tmp_path / "sources.toml"
    toml.write_text(
        '[[text]]\nsplit = "train"\nlanguage = "en"\nfiles = ["a.txt", "b.txt"]\n'
        '[[parallel]]\nsplit = "train"\nfiles.fr = ["c.txt"]\nfiles.en = ["b.txt", "a.txt"]\n'
    )
    mono, pair = Sources.open(toml).streams
    assert [row[0] for row in sentences(mono, "strict")] == ["one", "two"]
    assert pair.languages == ("en", "fr")
    assert list(sentences(pair, "strict")) == [("two", "un"), ("one", "deux")]


@pytest.mark.parametrize(
    ("entry", "reported"),
    [
        ('[[text]]\nsplit = "train"\nlanguage = "en"\nfiles = ["no.txt"]', "no.txt"),
        ('[[text]]\nsplit = "train"\nlang = "en"\nfiles = []', "lang"),
        ('[[texts]]\nsplit = "train"', r"\[\[texts\]\]"),
        ('[[parallel]]\nsplit = "train"\nfiles.en = ["a.txt"]', "two languages"),
        ('[[text]]\nsplit = "train"\nlanguage = "e-n"\nfiles = ["a.txt"]', "'e-n'"),
        ("[[text]", "does not list sources"),
    ],
)
def test_invalid_toml_is_refused(tmp_path, entry, reported):
    _write(tmp_path, a="one\n")
    (tmp_path / "sources.toml").write_text(entry)
    with pytest.raises(DataError, match=reported):
        Sources.open(tmp_path / "sources.toml")


@pytest.mark.parametrize(
    ("names", "reported"),
    [
        (("train.en-fr.en.txt",), "no fr side"),
        (("train.en-fr.de.txt",), "not one of the pair.s two"),
        (("train.zh-Hans.txt",), "is invalid"),
        (("train.en.txt", "train.en.txt.xz"), "both the en"),
        (("notes",), "contains no text"),
    ],
)
def test_invalid_file_names_are_refused(tmp_path, names, reported):
    for name in names:
        (tmp_path / name).write_text("a\n")
    with pytest.raises(DataError, match=reported):
        Sources.open(tmp_path)


def test_restricting_keeps_streams_entirely_in_the_languages(tmp_path):
    _write(tmp_path, train__en="a", train__de="a", train__en_to_fr__en="a", train__en_to_fr__fr="b")
    sources = Sources.open(tmp_path)
    assert [s.name for s in sources.restricted(["en", "de"]).streams] == ["train.de", "train.en"]
    with pytest.raises(DataError, match="no text in xx"):
        sources.restricted(["en", "xx"])


@pytest.mark.parametrize("ending", ["", *COMPRESSED])
def test_a_stream_is_plain_or_compressed(tmp_path, ending):
    text = "\ufeffone\r\ntwo\u2028half\n\n  \nthrée".encode()
    pack = {"": bytes, ".bz2": bz2.compress, ".gz": gzip.compress, ".xz": lzma.compress}
    (tmp_path / f"train.en.txt{ending}").write_bytes(pack.get(ending, zstd.compress)(text))
    stream = _only(tmp_path)
    count = count_text(stream, "strict")
    assert (count.n_lines, count.n_sentences, count.n_blank) == (5, 3, 2)
    assert count.n_characters == (3 + 8 + 5,)
    assert len(list(sentences(stream, "strict"))) == 3


def test_sides_of_different_length_are_reported_with_both_counts(tmp_path):
    _write(tmp_path, train__en_to_fr__en="a\n" * 3, train__en_to_fr__fr="b\n" * 5)
    with pytest.raises(DataError, match=r"3 lines in .*en\.txt and 5 lines in .*fr\.txt"):
        count_text(_only(tmp_path), "strict")


@pytest.mark.parametrize("text", ["", "\n \n"])
def test_a_file_without_text_is_refused(tmp_path, text):
    _write(tmp_path, train__en=text)
    with pytest.raises(DataError, match=r"train\.en\.txt is empty"):
        count_text(_only(tmp_path), "strict")


def test_a_pair_with_a_blank_side_is_dropped_and_counted(tmp_path):
    _write(tmp_path, train__en_to_fr__en="a\n\nc\n", train__en_to_fr__fr="x\ny\nz\n")
    stream = _only(tmp_path)
    assert count_text(stream, "strict").n_blank == 1
    assert list(sentences(stream, "strict")) == [("a", "x"), ("c", "z")]
