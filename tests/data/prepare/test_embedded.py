"""The embedded corpus: its content, and that it is prepared once for all processes."""

from __future__ import annotations

import hashlib
import lzma
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from xlm_plugins.data.dataset.manifest import Manifest
from xlm_plugins.data.prepare import embedded
from xlm_plugins.data.prepare.embedded import (
    cache_folder,
    embedded_data_set,
    embedded_sentences,
    embedded_source,
)

_N_VERSES = {"train": 4507, "valid": 265, "test": 368}
_SHA256 = {
    "train.de": "1974c916948824fffd7598871a5565b036f5406552f312f0d57f8c9142bada45",
    "train.en": "9c909784875327eb4f771ddc9f713161eec63986b87e3d629562fda679a5a186",
    "train.fr": "15a896c0422f98d92272348176b6dfa17f1ad4f23ff0c5c835923bc1c4645f85",
    "valid.de": "c82d32404219f3f8e96a3731bd20bdf546c26ef05ae1a22ee57efa2f62d28c63",
    "valid.en": "a0dad3ad2257cd3212517b9a7a3707c37b267ad3198856584703febc928158f8",
    "valid.fr": "b342a20a3c6d613365835c8310a6a3f23c644bd984bb482271f58a1dfee3626f",
    "test.de": "45d462566b80d2aada4135504c49324aacbec46d30acc7aef8223508160cecfd",
    "test.en": "46c284572fb6ac91487595a4e8978d108a15d8c68feab495692c467d276e3553",
    "test.fr": "5202ae1e7ec9ed35dbcd49a0fa2ccd22df270d3b1e02190f29aea122363bf23a",
}


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XLM_CACHE", str(tmp_path / "cache"))


def test_the_corpus_has_three_languages_and_three_pairs():
    sources = embedded_source()
    assert sources.languages == ("de", "en", "fr")
    names = {stream.name for stream in sources.streams if stream.split == "train"}
    assert names == {f"train.{x}" for x in ("de", "en", "fr", "de-en", "de-fr", "en-fr")}
    for split, n in _N_VERSES.items():
        assert {len(embedded_sentences(split, code)) for code in sources.languages} == {n}


@pytest.mark.parametrize("name", _SHA256)
def test_the_text_is_what_it_was(name):
    """Measurements on the corpus are comparable only while its text stays the same."""
    split, language = name.split(".")
    text = "".join(f"{verse}\n" for verse in embedded_sentences(split, language))
    assert hashlib.sha256(text.encode()).hexdigest() == _SHA256[name]


@pytest.fixture
def small(monkeypatch, tmp_path):
    """The corpus with fewer verses, for the tests that prepare it."""
    folder = tmp_path / "small"
    shutil.copytree(embedded._FOLDER, folder)
    for path in folder.glob("*.xz"):
        with lzma.open(path, "rb") as file:
            lines = file.readlines()[:20]
        path.write_bytes(lzma.compress(b"".join(lines)))
    monkeypatch.setattr(embedded, "_FOLDER", folder)
    return folder


def test_it_is_prepared_once(xlm_bare_plugins, small):
    folder = embedded_data_set(xlm_bare_plugins, 40, tokenizer="words")
    manifest = Manifest.load(folder)
    assert manifest.tokenizer.size == 40
    assert manifest.stream("train", ("fr", "en")).n_sentences == 20
    stages = []
    again = embedded_data_set(xlm_bare_plugins, 40, tokenizer="words", report=stages.append)
    assert again == folder
    assert not stages
    assert embedded_data_set(xlm_bare_plugins, 30, tokenizer="words") != folder


def test_two_processes_that_start_together_prepare_it_once(small):
    script = f"""
from xlm_plugins.core.plugins import Plugins, new_manager
from xlm_plugins.core.registry import Registry
from xlm_plugins.data.prepare import embedded
from xlm_plugins.testing import WORDS
embedded._FOLDER = embedded.Path({str(small)!r})
stages = []
plugins = Plugins(new_manager(), Registry([WORDS]))
print(embedded.embedded_data_set(plugins, 40, tokenizer="words", report=stages.append))
print(bool(stages))
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    command = [sys.executable, "-c", script]
    processes = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    answers = [process.communicate(timeout=120)[0].split() for process in processes]
    assert answers[0][0] == answers[1][0]
    assert sorted(answer[1] for answer in answers) == ["False", "True"]
    assert Manifest.load(Path(answers[0][0])).languages == ("de", "en", "fr")


def test_the_cache_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.delenv("XLM_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "xlm-plugins"
    monkeypatch.setenv("XLM_CACHE", str(tmp_path / "mine"))
    assert cache_folder() == tmp_path / "mine"
