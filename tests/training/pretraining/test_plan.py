"""From settings and a data set to a plan."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from xlm_plugins.config.settings import Settings
from xlm_plugins.core.errors import BundleError, DataError, OptionError
from xlm_plugins.core.plugins import Plugins
from xlm_plugins.data.dataset.manifest import Manifest
from xlm_plugins.data.prepare.prepare import prepare
from xlm_plugins.data.prepare.sources import Sources
from xlm_plugins.training.pretraining.plan import PretrainingPlan, make_plan

Planned = Callable[..., PretrainingPlan]


@pytest.fixture(scope="module")
def plugins() -> Plugins:
    return Plugins.discover()


@pytest.fixture
def plan(tiny_settings: Callable[..., Settings], plugins: Plugins) -> Planned:
    return lambda **options: make_plan(tiny_settings(**options), plugins)


def _steps(plan: PretrainingPlan) -> dict[str, list[str]]:
    return {name: [str(step) for step in steps] for name, steps in plan.steps.items()}


def test_without_steps_an_objective_gets_all_that_the_data_offers(plan: Planned) -> None:
    found = plan(objective=["mlm", "tlm", "clm"])
    assert _steps(found) == {
        "mlm": ["en", "fr"], "tlm": ["en-fr", "fr-en"], "clm": ["en", "fr"]
    }  # fmt: skip
    assert _steps(plan(objective=["tlm:fr-en"])) == {"tlm": ["fr-en"]}


def test_languages_have_the_ids_of_their_sorted_codes(plan: Planned) -> None:
    found = plan(objective=["mlm:fr"])
    assert found.description.languages == {"en": 0, "fr": 1}
    assert found.objectives["mlm"].languages == {"en": 0, "fr": 1}


def test_the_model_has_the_datas_vocabulary_and_the_objectives_stacks(
    plan: Planned, tiny_data: Path
) -> None:
    found = plan(objective=["mlm"])
    assert found.folder == tiny_data
    assert found.description.vocabulary.size == len(found.tokenizer.tokens()) == 400
    assert found.description.vocabulary.counts.sum() > 10_000
    assert found.description.stacks == ("encoder",)
    assert [chosen.steps for chosen in found.description.objectives] == [("en", "fr")]


def test_a_layer_is_placed_as_requested_or_at_its_default(plan: Planned) -> None:
    places = [str(p.position) for p in plan(layer=["pkm:0,1+"]).description.layers]
    assert places == ["enc.0", "enc.1+"]
    (placed,) = plan(layer=["pkm"]).description.layers
    assert str(placed.position) == "enc.1"
    assert placed.options.n_keys == 8


def test_languages_are_drawn_by_size_to_the_power_alpha(
    plan: Planned, tiny_source: Path, tiny_data: Path, plugins: Plugins, tmp_path: Path
) -> None:
    source = Path(shutil.copytree(tiny_source, tmp_path / "text"))
    english = (source / "train.en.txt").read_text(encoding="utf-8").splitlines(keepends=True)
    (source / "train.en.txt").write_text("".join(english[:200]), encoding="utf-8")
    component = plugins.get("tokenizer", "sentencepiece")
    tokenizer = component.load().load(tiny_data / "tokenizer")
    data = tmp_path / "data"
    prepare(Sources.open(source), data, component, tokenizer, workers=1)

    def share(alpha: float) -> float:
        schedule = plan(objective=["mlm"], data=str(data), sampling_alpha=alpha).schedule
        drawn = Counter(str(schedule.update(index).step) for index in range(2000))
        return drawn["en"] / 2000

    assert share(1.0) == pytest.approx(200 / 1200, abs=0.03)
    assert share(0.0) == pytest.approx(1 / 2, abs=0.03)
    assert share(0.5) == pytest.approx(1 / (1 + 5**0.5), abs=0.03)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"objective": ["mlm", "mlm:en"]}, "selected twice"),
        ({"objective": ["mlm", "xlm-mlm/mlm:en"]}, "selected twice"),
        ({"layer": ["pkm:1", "pkm:1"]}, "same place"),
        ({"layer": ["pkm:1,1"]}, "a place twice"),
        ({"window": 600}, "--window of at most 512"),
        ({"max_length": 511}, "--max-length of at most 510"),
        ({"objective": ["mlm:en-fr"]}, "a language such as en"),
    ],
)
def test_what_does_not_fit_is_refused(plan: Planned, options: dict[str, Any], told: str) -> None:
    with pytest.raises(OptionError, match=told):
        plan(**options)


def test_only_lengths_that_are_trained_must_fit_the_positions(plan: Planned) -> None:
    """--window concerns running text, --max-length sentences and pairs."""
    plan(objective=["mt:en-fr"], layer=[], window=600)
    plan(objective=["mlm"], layer=[], max_length=600)
    with pytest.raises(OptionError, match="--window of at most 512"):
        plan(objective=["mt:en-fr", "clm"], layer=[], window=600)
    with pytest.raises(OptionError, match="--max-length of at most 510"):
        plan(objective=["mt:en-fr", "mlm"], layer=[], max_length=600)


def test_an_objective_without_text_is_refused(
    plan: Planned, tiny_source: Path, tiny_data: Path, plugins: Plugins, tmp_path: Path
) -> None:
    component = plugins.get("tokenizer", "sentencepiece")
    tokenizer = component.load().load(tiny_data / "tokenizer")
    english = Sources.open(tiny_source).restricted(["en"])
    prepare(english, tmp_path / "data", component, tokenizer, workers=1)
    with pytest.raises(DataError, match=r"--objective tlm: the data has nothing to train it on"):
        plan(objective=["tlm"], data=str(tmp_path / "data"))
    assert _steps(plan(objective=["mlm"], data=str(tmp_path / "data"))) == {"mlm": ["en"]}


def test_the_data_must_match_its_tokenizer_and_shards(
    plan: Planned, tiny_data: Path, other_data: Path, tmp_path: Path
) -> None:
    data = Path(shutil.copytree(tiny_data, tmp_path / "data"))
    shutil.rmtree(data / "tokenizer")
    with pytest.raises(BundleError, match="is not a saved tokenizer"):
        plan(data=str(data))
    shutil.copytree(other_data / "tokenizer", data / "tokenizer")
    with pytest.raises(DataError) as caught:
        plan(data=str(data))
    for folder in (tiny_data, other_data):
        assert Manifest.load(folder).tokenizer.fingerprint in str(caught.value)
    shutil.rmtree(data / "tokenizer")
    shutil.copytree(tiny_data / "tokenizer", data / "tokenizer")
    plan(data=str(data))
    (data / "test.en-00000.tar").write_bytes(b"")
    with pytest.raises(DataError, match="truncated"):
        plan(data=str(data))
