"""Ten updates give the same weights, however they are divided over ranks and micro-batches.

The same as plain torch makes of whole global batches: one backward of the summed loss by the
number of targets, one norm to clip by, and AdamW, with a missing gradient counted as zero.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch
from helpers import gradient_worker as worker
from torch import Tensor, nn

from xlm_plugins.config.settings import Settings
from xlm_plugins.core.errors import OptionError
from xlm_plugins.core.plugins import Plugins
from xlm_plugins.training.pretraining.job import Pretraining
from xlm_plugins.training.pretraining.plan import make_plan

WORKER = Path(worker.__file__)

NEAR = 1e-5
CASES = ("clm", "mlm", "tlm", "ae", "mt", "bt", "pc", "mlm+tlm+clm", "mlm+ae+bt", "mt+pc")
ACCUMULATIONS = (1, 2, 4)
STAGES = (0, 1, 2, 3)


def adamw(parameters: Sequence[nn.Parameter], moments: list[list[Tensor]], n: int) -> None:
    """Update number n, from 1 (arXiv 1711.05101, algorithm 2; eps before the bias correction)."""
    options = worker.ADAM
    correction = (1 - options.beta2**n) ** 0.5 / (1 - options.beta1**n)
    for parameter, (first, second) in zip(parameters, moments, strict=True):
        gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        first.mul_(options.beta1).add_((1 - options.beta1) * gradient)
        second.mul_(options.beta2).add_((1 - options.beta2) * gradient**2)
        parameter.mul_(1 - options.lr * options.weight_decay)
        parameter.sub_(options.lr * correction * first / (second.sqrt() + options.eps))


@functools.cache
def reference(name: str) -> dict[str, Any]:
    """What `gradient_worker.trained` returns, computed in plain torch and in one batch."""
    case = worker.Case(name)
    model = case.model()
    parameters = list(model.parameters())
    moments = [[torch.zeros_like(parameter) for _ in range(2)] for parameter in parameters]
    norms, sources = [], []
    for index in range(worker.N_UPDATES):
        update, (batch,) = case.update(index), case[index]
        objective = case.objectives[update.objective]
        with torch.no_grad():
            batch = objective.prepare(model.eval(), batch, update.step)
        loss = update.weight * model.train()(objective, batch).loss / batch.n_targets
        loss.backward()
        norms.append(float(nn.utils.clip_grad_norm_(parameters, worker.ADAM.clip)))
        with torch.no_grad():
            adamw(parameters, moments, index + 1)
        model.zero_grad()
        sources += worker.sources(batch)
    weights = {name: parameter.detach() for name, parameter in model.named_parameters()}
    return {"norms": norms, "sources": sorted(sources), "weights": weights}


def runs(cases: Sequence[str], accumulations: Sequence[int], stages: Sequence[int]) -> list[str]:
    """Runs as the worker names them, without those that stage 3 refuses."""
    return [
        f"{case}/{accumulation}/{stage}"
        for stage in stages
        for accumulation in accumulations
        for case in cases
        if not (stage == 3 and "bt" in case.split("+"))
    ]


class Apart(NamedTuple):
    """The largest differences from the reference.

    The keys' biases stand apart: they add one number to all scores of a query, which its softmax
    takes away again.  Their gradient is rounding, and Adam makes it large.
    """

    weights: float
    key_biases: float
    norms: float

    def is_near(self) -> bool:
        return self.weights < NEAR and self.norms < NEAR and self.key_biases < 10 * NEAR


Compare = Callable[[int, Sequence[str]], dict[str, Apart]]


@pytest.fixture
def compare(as_ranks: Callable[..., list[int]], tmp_path: Path) -> Compare:
    """Trains on a number of ranks; returns how far each run is off the reference."""

    def compare(n_ranks: int, texts: Sequence[str]) -> dict[str, Apart]:
        out, log = tmp_path / "out", tmp_path / "log"
        seconds = 120 + 10 * n_ranks * len(texts)
        statuses = as_ranks([WORKER, out, *texts], n_ranks, log, seconds)
        assert statuses == [0] * n_ranks, log.read_text()
        found = torch.load(out, weights_only=True)
        assert list(found) == list(texts)
        return {text: apart(result, text) for text, result in found.items()}

    return compare


def apart(found: dict[str, Any], text: str) -> Apart:
    expected = reference(text.partition("/")[0])
    assert found["sources"] == expected["sources"], f"{text}: other sentences were generated"
    assert found["weights"].keys() == expected["weights"].keys()
    weights, key_biases = [0.0], [0.0]
    for name, wanted in expected["weights"].items():
        off = (found["weights"][name] - wanted).abs()
        if name.endswith("qkv.bias"):
            key_biases.append(float(keys_of(off).max()))
            keys_of(off).zero_()
        weights.append(float(off.max()))
    pairs = zip(found["norms"], expected["norms"], strict=True)
    return Apart(max(weights), max(key_biases), max(abs(one - other) for one, other in pairs))


def keys_of(bias: Tensor) -> Tensor:
    """The part of a bias that is added to keys, between those of queries and of values."""
    return bias.chunk(3)[1]


def show(n_ranks: int, differences: dict[str, Apart]) -> None:
    """The largest differences by accumulation and stage; ``pytest -s`` prints them."""
    columns = ("ranks", "accumulation", "stage", "runs", "weights", "keys' biases", "norms")
    print(f"\n| {' | '.join(columns)} |\n{'|---' * len(columns)}|")
    rows: dict[tuple[str, str], list[Apart]] = {}
    for text, found in differences.items():
        _, accumulation, stage = text.split("/")
        rows.setdefault((accumulation, stage), []).append(found)
    for (accumulation, stage), found in rows.items():
        greatest = " | ".join(f"{max(column):.1e}" for column in zip(*found, strict=True))
        print(f"| {n_ranks} | {accumulation} | {stage} | {len(found)} | {greatest} |")


def test_the_torch_engine_makes_the_plain_update() -> None:
    text = "mlm+tlm+mt/2/torch"
    found = apart(worker.trained(worker.World(), text), text)
    assert found.is_near(), found


def test_two_ranks_make_the_update_of_one(compare: Compare) -> None:
    differences = compare(2, runs(["mlm+tlm+mt"], [2], [1, 2]))
    assert all(found.is_near() for found in differences.values()), differences


@pytest.mark.faults
@pytest.mark.parametrize("n_ranks", [1, 2, 4])
def test_every_division_makes_the_same_update(compare: Compare, n_ranks: int) -> None:
    differences = compare(n_ranks, runs(CASES, ACCUMULATIONS, STAGES))
    show(n_ranks, differences)
    assert not {text: found for text, found in differences.items() if not found.is_near()}


def test_keys_biases_change_nothing() -> None:
    """So they may differ from the reference; biases of values change a lot."""
    case = worker.Case("mt")
    model, (batch,) = case.model(), case[0]
    biases = [p for name, p in model.named_parameters() if name.endswith("qkv.bias")]
    losses = []
    with torch.no_grad():
        for part in (None, 1, 2):
            for bias in biases if part else ():
                bias.chunk(3)[part].normal_()
            losses.append(float(model(case.objectives["mt"], batch).loss))
    before, keys, values = losses
    assert keys == pytest.approx(before, rel=1e-5)
    assert values != pytest.approx(before, rel=1e-2)


def test_objectives_that_generate_are_refused_at_stage_3(
    tiny_settings: Callable[..., Settings],
) -> None:
    """Ranks gather parameters at every step, and generate unequal numbers of tokens."""
    plugins, settings = Plugins.discover(), tiny_settings(objective=["bt"], layer=[])
    job = Pretraining(settings, make_plan(settings, plugins), plugins)
    stage_3 = SimpleNamespace(rank=0, world_size=1, can_generate=False)
    with pytest.raises(OptionError, match=r"bt generates text .* stage 3") as error:
        job.training_plan(stage_3)
    assert error.value.expected == "--zero-stage 0, 1 or 2"
