"""Preparing: the same bytes for any number of workers and interruptions, nothing half-written."""

from __future__ import annotations

import itertools
import random
import signal
import subprocess
import sys

import numpy as np
import pytest
from click.testing import CliRunner

from xlm_plugins.cli.main import Session
from xlm_plugins.cli.prepare import prepare as prepare_command
from xlm_plugins.contracts.ragged import Ragged
from xlm_plugins.core.errors import BundleError, DataError, PluginError
from xlm_plugins.core.plugins import Plugins, new_manager
from xlm_plugins.core.registry import NoOptions
from xlm_plugins.core.saved_tokenizers import find_tokenizer, load_tokenizer, save_tokenizer
from xlm_plugins.data.dataset.manifest import Manifest
from xlm_plugins.data.dataset.shards import ShardReader
from xlm_plugins.data.prepare import encoding, prepare, tokenizer_sample
from xlm_plugins.data.prepare.lines import count_text
from xlm_plugins.data.prepare.prepare import TokenizerTraining
from xlm_plugins.data.prepare.sources import Sources
from xlm_plugins.testing import WORDS
from xlm_plugins.testing.words import WordTokenizer

_WORDS = [f"w{number}" for number in range(40)]
_TRAINING = TokenizerTraining(46, NoOptions())


class _KilledError(Exception):
    """Stands for anything that ends a process in the middle."""


@pytest.fixture
def source(tmp_path):
    rng = random.Random(5)

    def text(n):
        rows = (" ".join(rng.choices(_WORDS, k=rng.randint(1, 12))) for _ in range(n))
        return "\n".join(rows) + "\n"

    folder = tmp_path / "text"
    folder.mkdir()
    (folder / "train.en.txt").write_text(text(700) + "\n~\n" + text(300))
    (folder / "train.de.txt").write_text(text(200))
    (folder / "train.en-de.en.txt").write_text(text(150))
    (folder / "train.en-de.de.txt").write_text(text(149) + "~\n")
    (folder / "valid.en.txt").write_text("w1 w2 unheard\nw3\n")
    return folder


def _prepare(source, out, tokenizer=_TRAINING, **options):
    return prepare.prepare(Sources.open(source), out, WORDS, tokenizer, **options)


def _content(folder):
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def _texts(out, xlm_bare_plugins, split, languages):
    manifest = Manifest.load(out)
    tokenizer = load_tokenizer(xlm_bare_plugins, out / "tokenizer")
    reader = ShardReader(out, manifest)
    blocks = [reader.read(block) for block in manifest.stream(split, languages).blocks]
    return [
        list(itertools.chain.from_iterable(tokenizer.decode_batch(side.rows) for side in sides))
        for sides in zip(*blocks, strict=True)
    ]


def test_the_data_set_holds_the_text(source, tmp_path, xlm_bare_plugins):
    out = tmp_path / "out"
    manifest = _prepare(source, out)
    assert Manifest.load(out) == manifest
    lines = (source / "train.en.txt").read_text().splitlines()
    lines = [line for line in lines if line not in ("", "~")]
    assert _texts(out, xlm_bare_plugins, "train", ("en",)) == [lines]
    pairs = [(source / f"train.en-de.{code}.txt").read_text().splitlines() for code in ("de", "en")]
    assert _texts(out, xlm_bare_plugins, "train", ("en", "de")) == [side[:149] for side in pairs]
    assert manifest.languages == ("de", "en")
    assert manifest.pairs("train") == [("de", "en")]
    assert not list(out.parent.glob("*.partial"))
    reported = manifest.source["streams"]["train.en"]
    assert (reported["n_lines"], reported["n_blank"]) == (1002, 1)
    assert manifest.stream("train", ("en",)).n_sentences == 1000


def test_held_out_text_is_kept_as_it_is(source, tmp_path):
    """Sentences that encode to nothing are in no block, neither as ids nor as text."""
    lines = [f"w{number % 40} -- Öl № {number}" for number in range(150)]
    sides = {"en": [*lines, "~"], "de": [line.upper() for line in [*lines, "w1"]]}
    sides["en"][70] = sides["de"][9] = "~"
    for code, side in sides.items():
        (source / f"test.de-en.{code}.txt").write_text("\n".join(side) + "\n")
    manifest = _prepare(source, tmp_path / "out")
    reader = ShardReader(tmp_path / "out", manifest)
    blocks = [reader.read_text(b) for b in manifest.stream("test", ("en", "de")).blocks]
    found = [list(itertools.chain.from_iterable(side)) for side in zip(*blocks, strict=True)]
    kept = [i for i in range(150) if i not in (9, 70)]
    assert found == [[sides[code][i] for i in kept] for code in ("de", "en")]
    train = manifest.stream("train", ("en",)).blocks[0]
    assert reader.read_text(train) == ()


def test_streams_have_enough_blocks_for_any_number_of_lanes(source, tmp_path):
    manifest = _prepare(source, tmp_path / "out")
    for stream in manifest.streams:
        assert len(stream.blocks) >= min(64, stream.n_sentences)
        assert all(block.n_sentences for block in stream.blocks)


def test_token_counts_are_those_of_the_training_text(source, tmp_path):
    out = tmp_path / "out"
    manifest = _prepare(source, out)
    counts = np.load(out / "token_counts.npy")
    assert counts.dtype == np.int64
    assert counts.shape == (manifest.tokenizer.size,)
    assert counts.sum() == sum(s.n_tokens for s in manifest.streams if s.split == "train")
    text = "".join(path.read_text() for path in source.glob("train.*.txt"))
    lost = (source / "train.en-de.en.txt").read_text().splitlines()[149].split()  # beside a `~`
    vocabulary = Manifest.load(out).vocabulary(counts)
    word = manifest.tokenizer.size - 1
    tokenizer = WordTokenizer.load(out / "tokenizer")
    written = tokenizer.tokens()[word]
    assert vocabulary.counts[word] == text.split().count(written) - lost.count(written)


def test_the_result_is_bit_identical_for_any_number_of_workers(source, tmp_path, monkeypatch):
    monkeypatch.setattr(encoding, "_CHUNK_SENTENCES", 37)
    _prepare(source, tmp_path / "one", workers=1)
    _prepare(source, tmp_path / "many", workers=3)
    assert _content(tmp_path / "one") == _content(tmp_path / "many")


def test_chunks_do_not_show_in_the_result(source, tmp_path, monkeypatch):
    _prepare(source, tmp_path / "whole")
    monkeypatch.setattr(encoding, "_CHUNK_SENTENCES", 7)
    _prepare(source, tmp_path / "chunks")
    assert _content(tmp_path / "whole") == _content(tmp_path / "chunks")


@pytest.mark.parametrize("stop_at", [1, 75, 200])
def test_an_interrupted_prepare_is_resumed(source, tmp_path, monkeypatch, stop_at):
    monkeypatch.setattr(prepare, "SHARD_BLOCKS", 10)
    monkeypatch.setattr(encoding, "_CHUNK_SENTENCES", 50)
    _prepare(source, tmp_path / "whole")
    seen = []

    def stop(progress):
        if progress.stage == "encode":
            seen.append(progress.subject)
            if len(seen) == stop_at:
                raise _KilledError

    out = tmp_path / "out"
    with pytest.raises(_KilledError):
        _prepare(source, out, report=stop)
    assert not out.exists()
    again = []
    _prepare(source, out, report=lambda progress: again.append(progress.stage))
    assert _content(out) == _content(tmp_path / "whole")
    assert not (tmp_path / "out.partial").exists()
    # All but the blocks of the shard that was open when it stopped are taken over.
    n_blocks = sum(len(stream.blocks) for stream in Manifest.load(out).streams)
    assert again.count("encode") <= n_blocks - stop_at + 10
    assert "tokenizer" not in again


def test_a_killed_prepare_is_resumed(source, tmp_path):
    """Nothing of the first process is left to clean up: SIGKILL, in the middle of a shard."""
    out = tmp_path / "out"
    script = f"""
import os, signal
from pathlib import Path
from xlm_plugins.core.registry import NoOptions
from xlm_plugins.data.prepare import prepare
from xlm_plugins.data.prepare.sources import Sources
from xlm_plugins.testing import WORDS

def kill(progress):
    if progress.subject == "train.de-en" and progress.done > 70:
        os.kill(os.getpid(), signal.SIGKILL)

training = prepare.TokenizerTraining(46, NoOptions())
source, out = Path({str(source)!r}), Path({str(out)!r})
prepare.prepare(Sources.open(source), out, WORDS, training, report=kill)
"""
    process = subprocess.run([sys.executable, "-c", script], timeout=60)
    assert process.returncode == -signal.SIGKILL
    assert not out.exists()
    _prepare(source, out)
    _prepare(source, tmp_path / "whole")
    assert _content(out) == _content(tmp_path / "whole")


def test_work_for_another_request_is_not_resumed(source, tmp_path, monkeypatch):
    monkeypatch.setattr(prepare, "SHARD_BLOCKS", 10)

    def stop(progress):
        if progress.subject == "train.de-en" and progress.stage == "encode":
            raise _KilledError

    with pytest.raises(_KilledError):
        _prepare(source, tmp_path / "out", report=stop)
    text = (source / "train.de.txt").read_text()
    (source / "train.de.txt").write_text(text + "w1 w2 w3\n")
    _prepare(source, tmp_path / "out")
    _prepare(source, tmp_path / "clean")
    assert _content(tmp_path / "out") == _content(tmp_path / "clean")


def test_a_folder_of_the_partial_name_that_is_not_ours_is_left_alone(source, tmp_path):
    mine = tmp_path / "out.partial" / "thesis.txt"
    mine.parent.mkdir()
    mine.write_text("precious")
    with pytest.raises(DataError, match="holds something else"):
        _prepare(source, tmp_path / "out")
    assert mine.read_text() == "precious"


def test_two_at_once_do_not_mix(source, tmp_path):
    def start_another(progress):
        if progress.stage == "encode":
            _prepare(source, tmp_path / "out")

    with pytest.raises(DataError, match="another process is working"):
        _prepare(source, tmp_path / "out", report=start_another)


def test_an_existing_folder_is_never_written_to(source, tmp_path):
    out = tmp_path / "out"
    _prepare(source, out)
    before = _content(out)
    with pytest.raises(DataError, match="is already a data set") as error:
        _prepare(source, out)
    assert "rm -r" in error.value.remedy
    assert _content(out) == before


@pytest.mark.parametrize("name", ["train.en.txt", "valid.en.txt"])
def test_nothing_is_written_when_the_text_is_bad(source, tmp_path, name):
    (source / name).write_bytes(b"good\nb\xffd\n")
    with pytest.raises(DataError, match=f"{name}, line 2"):
        _prepare(source, tmp_path / "out")
    assert not list(tmp_path.glob("out*"))
    _prepare(source, tmp_path / "out", errors="replace")
    assert (tmp_path / "out" / "manifest.json").is_file()


def test_an_existing_tokenizer_gives_the_same_data(source, tmp_path, xlm_bare_plugins):
    _prepare(source, tmp_path / "trained")
    tokenizer = load_tokenizer(xlm_bare_plugins, find_tokenizer(tmp_path / "trained"))
    _prepare(source, tmp_path / "given", tokenizer)
    assert _content(tmp_path / "trained") == _content(tmp_path / "given")


def test_blocks_end_before_they_exceed_their_tokens(monkeypatch):
    monkeypatch.setattr(encoding, "BLOCK_TOKENS", 10)
    lengths = [4, 4, 4, 0, 25, 3, 3, 3, 3, 10, 1]
    chunks = [(Ragged.of([[7] * n for n in lengths[i : i + 3]]),) for i in range(0, 11, 3)]
    blocks = list(encoding.blocks_of(chunks, 64 * 100))
    assert [block.sides[0].lengths.tolist() for block in blocks] == [
        [4, 4],
        [4],
        [25],
        [3, 3, 3],
        [3],
        [10],
        [1],
    ]
    assert [block.n_read for block in blocks] == [2, 3, 5, 8, 9, 10, 11]
    assert [block.numbers.tolist() for block in blocks] == [
        [0, 1], [2], [4], [5, 6, 7], [8], [9], [10]
    ]  # fmt: skip


def test_a_saved_tokenizer_must_match_its_fingerprint(source, tmp_path, xlm_bare_plugins):
    tokenizer = WordTokenizer(["a", "b"])
    save_tokenizer(WORDS, tokenizer, tmp_path / "t")
    found = load_tokenizer(xlm_bare_plugins, find_tokenizer(tmp_path / "t"))
    assert found.tokens() == tokenizer.tokens()
    (tmp_path / "t" / "words.json").write_text('["a", "c"]')
    with pytest.raises(BundleError, match=tokenizer.fingerprint):
        load_tokenizer(xlm_bare_plugins, tmp_path / "t")
    with pytest.raises(PluginError, match="no installed plugin provides the tokenizer"):
        load_tokenizer(Plugins(new_manager()), tmp_path / "t")
    with pytest.raises(BundleError, match="holds no tokenizer"):
        find_tokenizer(source)


def test_the_sample_boosts_small_languages_within_its_limit(source, monkeypatch):
    monkeypatch.setattr(tokenizer_sample, "MOST_SENTENCES", 400)
    sources = Sources.open(source)
    counts = {stream.name: count_text(stream, "strict") for stream in sources.streams}
    plan = tokenizer_sample.plan_sample(sources, counts)
    rates = {text.language: text.rate for text in plan}
    assert rates["en"] < rates["de"]
    assert sum(text.n_sentences for text in plan) == pytest.approx(400, abs=2)
    sample = list(tokenizer_sample.sampled_texts(plan, "strict"))
    assert sample == list(tokenizer_sample.sampled_texts(plan, "strict"))
    assert len(sample) == pytest.approx(400, abs=60)
    monkeypatch.setattr(tokenizer_sample, "MOST_CHARACTERS", 2000)
    plan = tokenizer_sample.plan_sample(sources, counts)
    assert sum(text.n_characters for text in plan) == pytest.approx(2000, rel=0.01)


def test_text_that_streams_share_is_sampled_once(source, tmp_path):
    toml = source / "sources.toml"
    toml.write_text(
        '[[text]]\nsplit = "train"\nlanguage = "en"\nfiles = ["train.en-de.en.txt"]\n'
        '[[parallel]]\nsplit = "train"\nfiles.en = ["train.en-de.en.txt"]\n'
        'files.de = ["train.en-de.de.txt"]\n'
    )
    sources = Sources.open(toml)
    counts = {stream.name: count_text(stream, "strict") for stream in sources.streams}
    plan = tokenizer_sample.plan_sample(sources, counts)
    assert sorted(text.language for text in plan) == ["de", "en"]


def test_without_training_text_no_tokenizer_is_trained(source, tmp_path):
    for path in source.glob("train.*"):
        path.unlink()
    with pytest.raises(DataError, match="no train text") as error:
        _prepare(source, tmp_path / "out")
    assert "--tokenizer-from" in error.value.remedy


def test_too_large_a_vocabulary_leaves_nothing_behind(source, tmp_path):
    with pytest.raises(DataError, match="only 40 words"):
        _prepare(source, tmp_path / "out", TokenizerTraining(1000, NoOptions()))
    assert not list(tmp_path.glob("out*"))


def test_the_command_prepares_and_says_what_to_try_next(source, tmp_path, xlm_bare_plugins):
    out = tmp_path / "out"
    arguments = [str(source), str(out), "--tokenizer", "words", "--vocab-size", "46"]
    result = CliRunner().invoke(prepare_command, arguments, obj=Session(xlm_bare_plugins))
    assert result.exit_code == 0, result.output
    assert "train.de-en" in result.stdout
    assert f"xlm train --data {out}" in result.stdout
    assert "sentences" in result.stderr
    again = [str(source), str(tmp_path / "again"), "--tokenizer-from", str(out)]
    again += ["--languages", "en"]
    result = CliRunner().invoke(prepare_command, again, obj=Session(xlm_bare_plugins))
    assert result.exit_code == 0, result.output
    manifest = Manifest.load(tmp_path / "again")
    assert manifest.languages == ("en",)
    assert manifest.tokenizer == Manifest.load(out).tokenizer


def test_the_command_takes_a_tokenizer_or_trains_one_but_not_both(
    source, tmp_path, xlm_bare_plugins
):
    arguments = [str(source), str(tmp_path / "out"), "--tokenizer-from", str(source)]
    arguments += ["--vocab-size", "50"]
    with pytest.raises(Exception, match="--tokenizer-from"):
        CliRunner().invoke(
            prepare_command, arguments, obj=Session(xlm_bare_plugins), catch_exceptions=False
        )
