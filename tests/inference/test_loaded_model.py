"""`xlm_plugins.load`: a trained model in three lines, and no torch before it is called."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import xlm_plugins
from xlm_plugins.config.model import GenerationOptions
from xlm_plugins.core.errors import BundleError, OptionError
from xlm_plugins.inference.embed import embed
from xlm_plugins.inference.fill_mask import fill_mask
from xlm_plugins.inference.loaded_model import LoadedModel
from xlm_plugins.inference.score import Scorer
from xlm_plugins.model.bundle import Bundle
from xlm_plugins.runs.find import find_bundle


def test_a_run_is_found_and_does_what_its_bundle_does(tiny_run: Path) -> None:
    model = xlm_plugins.load(str(tiny_run))
    assert model.bundle.path == find_bundle(str(tiny_run))
    assert model.languages == ["en", "fr"]
    texts = ["In the beginning", "God"]
    expected = embed(model.bundle, texts, "en", layer=1, pool="first")
    np.testing.assert_array_equal(model.embed(texts, "en", layer=1, pool="first"), expected)
    filled = model.fill_mask("In the <mask> God", "en", top=2)
    assert filled == fill_mask(model.bundle, "In the <mask> God", "en", top=2)
    assert model.fill_mask(["In the <mask> God"], "en", top=2) == [filled]
    scorer = Scorer(model.bundle, "en")
    scores = scorer.score(scorer.encode(texts))
    assert model.scores(texts, "en", kind="pseudo") == scores
    assert model.score(texts, "en") == [found.score for found in scores]


def test_a_causal_model_continues_texts(clm_run: Path) -> None:
    model, prompts = xlm_plugins.load(clm_run), ["In the", ""]
    options = GenerationOptions(beam=2)
    lines = model.generate(prompts, "en", options, max_tokens=4)
    both = model.continuations(prompts, "en", options, number=2, max_tokens=4)
    assert lines == [best.text for best, _ in both]
    assert lines[0].startswith("In the")


def test_paths_and_references_name_models(tiny_run: Path) -> None:
    last = xlm_plugins.load(f"{tiny_run}@last").bundle.path
    assert last.name == "step-12"
    assert xlm_plugins.load(last).bundle.path == last
    with pytest.raises(BundleError, match="no run or bundle at"):
        xlm_plugins.load(tiny_run / "nowhere")


def test_a_model_that_cannot_translate_says_so(tiny_run: Path) -> None:
    model = xlm_plugins.load(tiny_run)
    assert model.directions == []
    with pytest.raises(OptionError, match="has no decoder"):
        model.translate(["Bonjour."], source="fr", target="en")


def test_naming_it_imports_no_torch() -> None:
    program = "import sys, xlm_plugins as x; x.load; print({'torch', 'numpy'} & {*sys.modules})"
    command = [sys.executable, "-c", program]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert shown.stdout == "set()\n"


def test_its_repr_is_one_screen(tiny_run: Path, random_bundle: Callable[..., Bundle]) -> None:
    shown = repr(xlm_plugins.load(tiny_run)).splitlines()
    assert len(shown) <= 24
    assert max(map(len, shown)) < 80
    assert shown[1] == "  model       encoder of 2 layers, 16 wide"
    assert "  languages   en, fr" in shown
    assert "  layers      pkm at enc.1" in shown
    assert "  methods     embed, fill_mask, score" in shown
    many = LoadedModel(random_bundle("clm", languages=[f"l{i:03}" for i in range(100)]))
    (languages,) = (line for line in repr(many).splitlines() if "languages" in line)
    assert len(languages) < 80
    assert languages.endswith(" ...")
    assert "methods     embed, score, generate" in repr(many)
