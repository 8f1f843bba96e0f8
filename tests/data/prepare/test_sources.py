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


def _entry(folder, files, more=""):
    toml = folder / "sources.toml"
    toml.write_text(f'[[text]]\nsplit = "train"\nlanguage = "en"\nfiles = {files}\n{more}\n')
    return toml


@pytest.mark.parametrize("compressed", ["", ".gz"])
@pytest.mark.parametrize(
    ("ending", "told"),
    [
        (".tsv", "is a table"), (".csv", "is a table"), (".parquet", "is a table"),
        (".jsonl", "is JSON"), (".json", "is JSON"), (".tmx", "is XML"), (".xml", "is XML"),
        (".html", "is marked-up text"), (".md", "is marked-up text"), (".zip", "is an archive"),
        (".fr", "does not say what it is"), (".shuffled", "does not say what it is"),
        ("", "without ending"),
    ],
)  # fmt: skip
def test_toml_takes_nothing_but_plain_lines(tmp_path, ending, compressed, told):
    name = f"a{ending}{compressed}"
    (tmp_path / name).write_text('{"text": "a"}\n')
    with pytest.raises(DataError, match=told) as error:
        Sources.open(_entry(tmp_path, f"['{name}']"))
    assert name in error.value.problem
    assert ".txt or .en" in error.value.expected
    assert "one sentence per line" in error.value.remedy
    (stream,) = Sources.open(_entry(tmp_path, f"['{name}']", 'format = "lines"')).streams
    assert stream.files == ((tmp_path / name,),)


def test_toml_takes_files_that_end_in_their_language_as_opus_names_them(tmp_path):
    for code in ("en", "fr"):
        (tmp_path / f"europarl.en-fr.{code}").write_text("a\n")
    toml = tmp_path / "sources.toml"
    entry = '[[parallel]]\nsplit = "train"\nfiles.{} = ["europarl.en-fr.en"]\nfiles.{} = {}\n'
    toml.write_text(entry.format("en", "fr", '["europarl.en-fr.fr"]'))
    assert Sources.open(toml).languages == ("en", "fr")
    toml.write_text(entry.format("fr", "en", '["europarl.en-fr.fr"]'))  # the wrong way round
    with pytest.raises(DataError, match="does not say what it is"):
        Sources.open(toml)


def test_toml_has_one_format(tmp_path):
    (tmp_path / "a.txt").write_text("a\n")
    with pytest.raises(DataError, match="'tsv' is not 'lines'"):
        Sources.open(_entry(tmp_path, "['a.txt']", 'format = "tsv"'))


def test_patterns_stand_for_the_files_that_fit_sorted_and_once(tmp_path):
    (tmp_path / "sub").mkdir()
    for name in ("b.txt", "a.txt", "c[1].txt", "sub/d.txt", ".hidden.txt", "e.tsv"):
        (tmp_path / name).write_text("x\n")
    (stream,) = Sources.open(_entry(tmp_path, "['c[1].txt', 'b.txt', '**/*.txt']")).streams
    names = [path.relative_to(tmp_path).as_posix() for path in stream.files[0]]
    assert names == ["c[1].txt", "b.txt", "a.txt", "sub/d.txt"]
    with pytest.raises(DataError, match=r"lists x-\*\.txt, and no file"):
        Sources.open(_entry(tmp_path, "['a.txt', 'x-*.txt']"))
    with pytest.raises(DataError, match=r"e\.tsv, which is a table"):
        Sources.open(_entry(tmp_path, "['*.t*']"))
