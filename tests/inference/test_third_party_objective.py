"""What an objective says it predicts decides what its models can be used for, not its name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import xlm_plugins
from xlm_plugins.cli.main import main
from xlm_plugins.contracts.batch import Samples, Step
from xlm_plugins.core.errors import OptionError
from xlm_plugins.inference.loaded_model import LoadedModel
from xlm_plugins.testing import check_objective

HOOK = """
from xlm_plugins import Component, hookimpl

@hookimpl
def xlm_objectives():
    return [Component("forwards", "xlm_forwards_objective:Forwards", summary="the next token")]
"""
OBJECTIVE = """
import numpy as np
from xlm_plugins import Layout, Objective, pack

class Forwards(Objective):
    predicts = "next token"

    def layout(self, step):
        return Layout.SENTENCE

    def make_batch(self, samples, step, rng):
        rows = samples.sides[0].framed(*self.vocabulary.frame)
        languages = rows.filled(self.languages[step.languages[0]])
        predicted = np.delete(np.arange(len(rows.values)), rows.offsets[1:] - 1)
        targets = rows.values[predicted + 1]
        return pack(rows, rows.positions(), languages, predicted, targets, samples.ids)

    def loss(self, model, batch):
        return model.causal_stack.predict(batch, causal=True)
"""
TEXTS = ["In the beginning", "", "God said, Let there be light"]


@pytest.fixture
def model(install: Callable[..., Path], tiny_data: Path, tmp_path: Path) -> LoadedModel:
    """A model trained for a few updates on a third party's causal objective, and reloaded."""
    site = install("xlm-forwards", HOOK)
    (site / "xlm_forwards_objective.py").write_text(OBJECTIVE)
    command = ["train", "--objective=forwards", f"--data={tiny_data}", f"--out={tmp_path / 'run'}"]
    shape = ["--dim=16", "--n-layers=2", "--n-heads=2", "--batch-tokens=256", "--threads=1"]
    assert main([*command, *shape, "--steps=4"]) == 0
    return xlm_plugins.load(tmp_path / "run")


def test_a_causal_objective_of_a_third_party_scores_and_generates(
    model: LoadedModel, tmp_path: Path, piped: Callable[..., tuple[int, bytes, str]]
) -> None:
    check_objective("forwards")
    bundle, scores = model.bundle, model.score(TEXTS, "fr")
    objective = bundle.objectives["forwards"]
    for text, score in zip(TEXTS, scores, strict=True):
        samples = Samples(np.arange(1), (bundle.tokenizer.encode_batch([text]),))
        batch = objective.make_batch(samples, Step(("fr",)), np.random.default_rng(0))
        with torch.no_grad():
            loss = bundle.model(objective, batch).loss.item()
        assert score == pytest.approx(-loss, rel=1e-4)
    with pytest.raises(OptionError, match="no pseudo score"):
        model.score(TEXTS, "fr", kind="pseudo")

    lines = model.generate(TEXTS, "fr", max_tokens=4)
    assert all(line.startswith(text) for line, text in zip(lines, TEXTS, strict=True))
    assert lines != TEXTS
    flags = ("--language=fr", "--max-length=4")
    status, out, _ = piped("generate", tmp_path / "run", *flags, content="\n".join(TEXTS))
    assert (status, out.decode().splitlines()) == (0, lines)
    assert piped("score", tmp_path / "run", "--language=fr", content="God")[0] == 0


def test_an_encoder_of_such_an_objective_alone_attends_causally(model: LoadedModel) -> None:
    ids = model.encode("In the beginning")
    languages = torch.zeros_like(ids)
    whole = model.extract_features(ids, languages)
    part = model.extract_features(ids[:3], languages[:3])
    torch.testing.assert_close(whole[:, :3], part)
    with pytest.raises(OptionError, match="its first position sees none of the sentence"):
        model.embed(TEXTS, "en", pool="first")
