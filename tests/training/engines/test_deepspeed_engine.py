"""The DeepSpeed engine equals the torch engine: every stage, one and two processes."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers import engine_worker as worker

from xlm_plugins.config.training import OptimizerOptions, TrainOptions
from xlm_plugins.core.errors import OptionError
from xlm_plugins.runs.whole_folders import write_folder
from xlm_plugins.training.distributed.process_group import World
from xlm_plugins.training.engines.deepspeed_engine import DeepSpeedEngine, configuration
from xlm_plugins.training.engines.training_state import load_training_state, save_training_state

WORKER = Path(worker.__file__)

SECONDS = 300
QUICK = ("history", "one_batch", "resume", "skip", "train_only", "buffers", "reductions", "json")
QUICK += ("from_torch", "touched", "every")


Launch = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def launch(as_ranks: Callable[..., list[int]]) -> Launch:
    """Runs scenarios in separate processes, as a launcher would."""

    def run(folder: Path, n_processes: int, scenarios: list[str]) -> dict[str, Any]:
        out, log = folder / "out.json", folder / "log"
        statuses = as_ranks([WORKER, out, *scenarios], n_processes, log, SECONDS)
        assert statuses == [0] * n_processes, log.read_text()
        return {**json.loads(out.read_text()), "logs": log.read_text()}

    return run


@functools.cache
def reference(scenario: str) -> dict[str, Any]:
    """The result of the torch engine."""
    with tempfile.TemporaryDirectory() as folder:
        return getattr(worker, f"scenario_{scenario}")(World(), Path(folder), engine="torch")


def difference(a: Any, b: Any) -> float:
    """The largest difference between the numbers of two results."""
    return max(abs(x - y) for x, y in zip(_numbers(a), _numbers(b), strict=True))


def _numbers(value: Any) -> list[float]:
    if isinstance(value, dict):
        return [number for key in sorted(value) for number in _numbers(value[key])]
    if isinstance(value, list):
        return [number for item in value for number in _numbers(item)]
    return [value]


def torch_start(folder: Path) -> list[list[float]]:
    """Write a checkpoint of the torch engine, and continue training: the uninterrupted history."""
    engine = worker.engine_of(World(), engine="torch")
    kinds = (worker.Words, worker.Classes)
    worker.train(engine, 5, kinds=kinds)
    state = engine.state()
    write_folder(folder / "torch", lambda where: save_training_state(where, state))
    return worker.train(engine, 5, 5, kinds=kinds)


CASES = [
    pytest.param((n, stage), marks=[] if stage == 1 else [pytest.mark.slow], id=f"{n}-zero{stage}")
    for n in (1, 2)
    for stage in (0, 1, 2, 3)
]


@pytest.fixture(scope="module", params=CASES)
def ran(
    request: pytest.FixtureRequest, launch: Launch, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    n_processes, stage = request.param
    folder = tmp_path_factory.mktemp("deepspeed")
    uninterrupted = torch_start(folder)
    results = launch(folder, n_processes, [f"{name}@{stage}" for name in QUICK])
    named = {key.partition("@")[0]: value for key, value in results.items()}
    return {**named, "n": n_processes, "torch": uninterrupted, "folder": folder}


def test_alternating_objectives_accumulation_and_evaluation_agree_with_torch(ran):
    """Losses, norms and weights of 1 x 4 or 2 x 2 micro-batches: a parameter that the other
    objective does not use, moments that keep decaying, an evaluation in between."""
    assert difference(ran["history"], reference("history")) < 1e-5


def test_shares_of_unequal_size_make_the_same_update(ran):
    assert difference(ran["one_batch"], reference("one_batch")) < 1e-5


def test_accumulation_does_not_change_the_update(ran):
    many, one = ran["history"], ran["one_batch"]
    assert difference(many["weights"], one["weights"]) < 1e-5


def test_resuming_is_bitwise(ran):
    resumed = ran["resume"]
    assert resumed["resumed"] == resumed["uninterrupted"]
    assert resumed["same"]


def test_a_gradient_that_is_not_finite_changes_nothing(ran):
    skipped = ran["skip"]
    assert [entry[2] for entry in skipped["broken"]] == [1.0]
    assert skipped["unchanged"]
    assert skipped["n"] == 4
    assert difference(skipped["after"], reference("skip")["after"]) < 1e-5


def test_frozen_parameters_stay_and_are_saved(ran):
    assert difference(ran["train_only"]["weights"], reference("train_only")["weights"]) < 1e-5
    assert ran["train_only"]["names"] == reference("train_only")["names"]


def assert_same_end(found: dict[str, Any], scenario: str) -> None:
    """Losses, norms, weights and moments of the torch engine; and a checkpoint that goes on."""
    expected = reference(scenario)
    assert found.keys() == expected.keys()
    assert found["resuming is bitwise"]
    for key in ("history", "weights", "moments"):
        assert difference(found[key], expected[key]) < 1e-5, key


@pytest.mark.parametrize("scenario", ["touched", "every"])
def test_a_table_of_two_layers_is_the_torch_engine_s(ran, scenario):
    """Also where ZeRO cuts a row in two."""
    assert_same_end(ran[scenario], scenario)
    assert "second.values" not in ran[scenario]["weights"]


def test_touched_rows_make_a_difference():
    """Else the test above would compare nothing."""
    touched, every = reference("touched"), reference("every")
    assert difference(touched["weights"], every["weights"]) > 1e-3
    assert touched["moments"]["exp_avg_sq"]["memory.values"].count(0.0) > 0


def test_ranks_share_buffers(ran):
    assert ran["buffers"]["mean"] == [0.5] * worker.DIM


def test_sums_and_maxima_over_ranks(ran):
    n = ran["n"]
    assert ran["reductions"] == {
        "sum": [1.5 * n, 2.0 * n + n // 2],
        "kept": [1.5, 2.0],
        "integers": n * (2**40 + 1),
        "max": float(n - 1),
    }


def test_each_engine_resumes_from_the_other_s_checkpoint(ran):
    assert difference(ran["from_torch"]["history"], ran["torch"]) < 1e-5
    state = load_training_state(ran["folder"] / "deepspeed")
    assert state.n_updates == 10
    back = worker.engine_of(World(), state, engine="torch")
    on = worker.engine_of(World(), load_training_state(ran["folder"] / "torch"), engine="torch")
    kinds = (worker.Words, worker.Classes)
    worker.train(on, 5, 5, kinds=kinds)
    assert difference(worker.train(back, 3, 10), worker.train(on, 3, 10)) < 1e-5


def test_a_json_may_add_settings(ran):
    assert len(ran["json"]["history"]) == 2


def test_no_warning_and_nothing_compiled(ran):
    """DeepSpeed would compile its op for shared memory with g++ at the first start."""
    assert "shm_comm" not in ran["logs"]
    assert "Warning" not in ran["logs"]


@pytest.mark.slow
@pytest.mark.parametrize("stage", [0, 1, 3])
def test_bf16_equals_the_torch_engine(launch, tmp_path, stage):
    """Autocast over fp32 weights in both, so they round alike and agree closer than bf16 can."""
    result = launch(tmp_path, 1, [f"bf16@{stage}"])[f"bf16@{stage}"]
    assert difference(result, reference("bf16")) < 1e-5
    assert difference(result, reference("one_batch")) > 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("n_processes", [1, 2])
@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_touched_rows_in_bf16_equal_the_torch_engine(launch, tmp_path, n_processes, stage):
    result = launch(tmp_path, n_processes, [f"touched_bf16@{stage}"])[f"touched_bf16@{stage}"]
    assert_same_end(result, "touched_bf16")


@pytest.mark.slow
@pytest.mark.parametrize("n_processes", [1, 2])
@pytest.mark.parametrize("stage", [1, 2, 3])
def test_fp16_scales_the_loss_and_resumes(launch, tmp_path, n_processes, stage):
    result = launch(tmp_path, n_processes, [f"fp16@{stage}"])[f"fp16@{stage}"]
    assert result["resumed"] == result["uninterrupted"]
    assert result["same"]
    assert result["scale"]["cur_scale"] == 2.0**16
    assert [entry[2] for entry in result["broken"]] == [1.0, 1.0]
    assert result["scale_after"]["cur_scale"] == 2.0**15  # the first overflow is forgiven
    fp32 = worker.train(worker.engine_of(World(), engine="torch"), 6)
    losses = [[entry[0] for entry in history] for history in (result["history"], fp32)]
    assert 0 < difference(*losses) < 0.02


def test_a_contradicting_json_names_both_values(tmp_path):
    path = tmp_path / "ds.json"
    path.write_text('{"zero_optimization": {"stage": 2}}')
    options = TrainOptions(deepspeed_config=str(path), zero_stage=1)
    with pytest.raises(OptionError, match=r"stage = 2 contradicts the run, which has 1"):
        configuration(OptimizerOptions(), options, "fp32", World())


@pytest.mark.parametrize("text", ["{", "[1]", '{"optimizer": {"type": "Adam"}}'])
def test_an_unusable_json_is_refused(tmp_path, text):
    path = tmp_path / "ds.json"
    path.write_text(text)
    with pytest.raises(OptionError, match=r"ds\.json"):
        configuration(OptimizerOptions(), TrainOptions(deepspeed_config=str(path)), "fp32", World())


def test_fp16_at_stage_0_is_refused():
    options = TrainOptions(precision="fp16", zero_stage=0)
    with pytest.raises(OptionError, match="zero-stage"):
        DeepSpeedEngine(worker.TinyModel(), OptimizerOptions(), options, World())


def test_the_module_is_imported_without_deepspeed():
    engine = "xlm_plugins.training.engines.deepspeed_engine"
    code = f"import sys, {engine}; assert 'deepspeed' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
