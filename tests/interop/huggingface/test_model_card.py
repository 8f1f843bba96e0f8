"""The model card of an export: what a run's folder records about the exported model."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from xlm_plugins.interop.huggingface.model_card import model_card, transformers_use
from xlm_plugins.interop.huggingface.reload import Differences
from xlm_plugins.model.bundle import Bundle

FOUND = Differences("XLMWithLMHeadModel", 1e-7, 1e-6, None)
EVALUATIONS = {
    10: {"valid_en_mlm_ppl": 40.0, "valid_en_mlm_acc": 30.0},
    20: {"valid_en_mlm_ppl": 20.0, "valid_en_mlm_acc": 20.0},
    30: {"valid_en_mlm_ppl": 30.0, "valid_en_mlm_acc": 10.0},
}

Card = Callable[..., str]


@pytest.fixture
def card(random_bundle: Callable[..., Bundle], tmp_path: Path) -> Card:
    """The card of a model in a run: ``card("best/METRIC", objective="clm")``."""
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.toml").write_text(
        f'[train]\ndata = "{tmp_path}/text"\nobjective = ["mlm:en"]\nsteps = 30\n'
    )
    records = [{"kind": "train", "step": 5, "loss": 3.0}]
    records += [{"kind": "evaluation", "step": n, **values} for n, values in EVALUATIONS.items()]
    (run / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))

    def card(place: str, objective: str = "mlm") -> str:
        bundle = replace(random_bundle(objective), path=run / place)
        use = transformers_use(bundle, FOUND, "my-model")
        return model_card(bundle, ["a note"], "mit", "my-model", use)

    return card


@pytest.mark.parametrize(
    ("place", "step"),
    [
        ("best/valid_en_mlm_ppl", 20),
        ("best/valid_en_mlm_acc", 10),
        ("checkpoints/step-30", 30),
        ("checkpoints/step-15", None),
    ],
)
def test_metrics_are_those_of_this_very_model(card: Card, place: str, step: int | None) -> None:
    reported = card(place)
    for number, values in EVALUATIONS.items():
        assert (f"- valid_en_mlm_ppl: {values['valid_en_mlm_ppl']:.0f}\n" in reported) is (
            number == step
        )
    assert ('metrics: ["perplexity"]' in reported) is (step is not None)


def test_data_is_named_without_its_path(card: Card, tmp_path: Path) -> None:
    reported = card("best/valid_en_mlm_ppl")
    assert "`text`, objectives `mlm:en`, 30 updates." in reported
    assert str(tmp_path) not in reported
    assert "- a note" in reported


def test_a_model_without_a_run_says_what_is_not_recorded(card: Card) -> None:
    reported = card("best/of/nothing")
    for title in ("Data", "Metrics"):
        assert f"## {title}\n\nnot recorded\n" in reported


@pytest.mark.parametrize(("objective", "tag"), [("mlm", "fill-mask"), ("clm", "text-generation")])
def test_what_it_is_for(card: Card, objective: str, tag: str) -> None:
    assert f'pipeline_tag: "{tag}"' in card("best/x", objective)
