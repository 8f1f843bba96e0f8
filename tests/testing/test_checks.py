"""The pytest plugin: its fixtures, what failed checks report, and that it imports little."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from xlm_plugins import Component, Layout, Model, OptionError, PluginError, Step
from xlm_plugins.contracts.splitting import by_sample, select
from xlm_plugins.core.plugins import Plugins
from xlm_plugins.core.saved_tokenizers import find_tokenizer, load_tokenizer
from xlm_plugins.data.dataset.manifest import Manifest
from xlm_plugins.testing import BrokenPromiseError, check_layer, check_objective, text
from xlm_plugins.testing.batches import difference
from xlm_plugins.testing.data import TinyData
from xlm_plugins.testing.words import WordTokenizer

PAIR = Step(("xb", "xa"))


def test_the_data_has_two_languages_and_their_pair(xlm_data: TinyData) -> None:
    manifest = Manifest.load(xlm_data.path)
    assert {stream.name for stream in manifest.streams} == {
        f"{split}.{name}" for split in ("train", "valid", "test") for name in ("xa", "xb", "xa-xb")
    }
    assert [s.n_sentences for s in manifest.streams if s.split == "train"] == [300] * 3
    assert xlm_data.languages == {"xa": 0, "xb": 1}
    assert xlm_data.vocabulary.size == len(xlm_data.vocabulary.counts) == 200


def test_its_samples_are_translations(xlm_data: TinyData, xlm_bare_plugins: Plugins) -> None:
    tokenizer = load_tokenizer(xlm_bare_plugins, find_tokenizer(xlm_data.path))
    samples = xlm_data.samples(Layout.PAIR, PAIR)
    greek, latin = (tokenizer.decode_batch(side.rows) for side in samples.sides)
    known = set(tokenizer.tokens())
    pairs = [(g, text.in_greek(x)) for g, x in zip(greek, latin, strict=True)]
    assert any(g == x for g, x in pairs)
    assert all(g == x or not {*g.split(), *x.split()} <= known for g, x in pairs)
    others = xlm_data.samples(Layout.PAIR, PAIR, number=1)
    assert not np.array_equal(samples.ids, others.ids)


def test_its_windows_are_of_running_text(xlm_data: TinyData) -> None:
    samples = xlm_data.samples(Layout.STREAM, Step(("xa",)), n_tokens=64)
    assert set(samples.sides[0].lengths.tolist()) == {16}
    assert xlm_data.vocabulary.roles["eos"] in samples.sides[0].values


def test_the_model_fits_the_data(xlm_model: Model, xlm_data: TinyData) -> None:
    assert xlm_model.encoder.embeddings.tokens.weight.shape == (200, 32)
    assert xlm_model.encoder.embeddings.languages.weight.shape == (2, 32)


def test_the_bare_plugins_have_no_installed_plugin(xlm_bare_plugins: Plugins) -> None:
    registry = xlm_bare_plugins.registry
    assert (registry.of("objective"), registry.of("layer")) == ([], [])
    assert xlm_bare_plugins.get("tokenizer", "words").load() is WordTokenizer
    registry.add(Component("mine", "m:X", kind="layer"))


def test_the_bare_plugins_are_new_for_each_test(xlm_bare_plugins: Plugins) -> None:
    assert xlm_bare_plugins.registry.of("layer") == []


def test_text_is_the_same_in_both_scripts() -> None:
    sentences = text.both(20, seed=1)
    assert len(set(text.words())) == text.N_WORDS
    assert all(s.isascii() for s in sentences[:20])
    assert [text.in_greek(s) for s in sentences[:20]] == sentences[20:]
    assert not any(c.isascii() and c != " " for s in sentences[20:] for c in s)


def test_a_failure_names_the_promise_and_where_it_is_made() -> None:
    with pytest.raises(BrokenPromiseError) as error:
        check_layer(Component("x", "xlm_plugins:Layer", summary=" "))
    assert str(error.value).splitlines() == [
        "the layer 'x' of this-test 0 breaks a promise of its contract (has_a_summary)",
        "  promised: the summary is one line for `xlm plugins`",
        "  by: Component; see docs/plugins.md and help(xlm_plugins.Component)",
        "  found: the summary ' '",
    ]
    assert isinstance(error.value, AssertionError)


def test_errors_of_the_test_itself_are_not_broken_promises() -> None:
    with pytest.raises(PluginError, match="no-such"):
        check_objective("no-such")
    with pytest.raises(OptionError, match="mask_probe"):
        check_objective("mlm", mask_probe=0.5)
    with pytest.raises(OptionError, match=r"mask-prob = 2\.0"):
        check_objective("mlm", mask_prob=2.0)


def test_a_check_restores_the_random_state() -> None:
    wanted = _seeded_draws()
    assert wanted == _seeded_draws()
    checked = _seeded_draws(lambda: check_objective("mlm"))
    assert checked == wanted


def _seeded_draws(meanwhile: Callable[[], None] = lambda: None) -> list[float]:
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    meanwhile()
    return [random.random(), np.random.random(), torch.rand(()).item()]


def test_batches_are_split_by_sample(xlm_data: TinyData) -> None:
    from xlm_plugins import pack

    rows = xlm_data.samples(Layout.SENTENCE, Step(("xa",))).sides[0].framed(1, 1)
    predicted = np.flatnonzero(rows.positions().values % 2)
    ids = np.arange(rows.n_rows) // 2
    batch = pack(rows, rows.positions(), rows.filled(0), predicted, rows.values[predicted] + 1, ids)
    groups = by_sample(batch)
    assert groups[1] == [2, 3]
    every = [sequence for group in groups for sequence in group]
    assert difference(batch, select(batch, every)) == ""
    turned = select(batch, every[::-1])
    assert difference(batch, turned) == "tokens"
    assert (turned.tokens[turned.predicted] + 1 == turned.targets).all()
    assert difference(batch, select(turned, every[::-1])) == ""


AUTHORS_TEST = """
import sys

AT_START = [name for name in ("torch", "numpy", "click") if name in sys.modules]

def test_fixtures(xlm_bare_plugins):
    assert xlm_bare_plugins.registry.of("tokenizer")
    assert AT_START == []
"""


@pytest.mark.parametrize(
    ("arguments", "outcome"), [([], "1 passed"), (["-p", "no:xlm"], "1 error")]
)
def test_pytest_finds_the_fixtures_without_heavy_imports(
    tmp_path: Path, arguments: list[str], outcome: str
) -> None:
    (tmp_path / "test_mine.py").write_text(AUTHORS_TEST)
    command = [sys.executable, "-m", "pytest", "-q", "-W", "error", *arguments, "test_mine.py"]
    shown = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert outcome in shown.stdout.splitlines()[-1], shown.stdout + shown.stderr
