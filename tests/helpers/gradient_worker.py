"""A process of the gradient tests: ``python gradient_worker.py OUT RUN...``.

A RUN such as ``mlm+bt/2/1`` names the objectives that alternate for ten updates, the gradient
accumulation and the ZeRO stage (``mlm+bt/2/torch``: the torch engine).  Processes are slow to
start, so a few of them, started as a launcher would start them, go through all runs.  The test
imports batches and models from here and makes the same updates in plain torch.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch.utils.data import Dataset

from xlm_plugins import (
    Batch,
    Layout,
    Model,
    ModelOptions,
    Objective,
    Ragged,
    Samples,
    Step,
    Vocabulary,
)
from xlm_plugins.config.training import OptimizerOptions, TrainOptions
from xlm_plugins.core.plugins import Plugins
from xlm_plugins.data.batches.schedule import Update
from xlm_plugins.model.description import ChosenObjective, ModelDescription
from xlm_plugins.runs.folder import RunFolder
from xlm_plugins.training.best_models import Validation
from xlm_plugins.training.distributed.process_group import World, finish, start
from xlm_plugins.training.distributed.signals import StopRequest
from xlm_plugins.training.distributed.watchdog import Watchdog
from xlm_plugins.training.engines.create import create_engine
from xlm_plugins.training.engines.engine import Engine, StepReport
from xlm_plugins.training.progress import Report
from xlm_plugins.training.run_record import RunRecord
from xlm_plugins.training.trainer import Trainer, TrainerState, TrainingPlan

N_UPDATES, LANES = 10, 16
STEPS = {
    "clm": "en", "mlm": "fr", "tlm": "en-fr", "ae": "en", "mt": "en-fr", "bt": "en-fr-en",
    "pc": "en-fr",
}  # fmt: skip
ROLES = {"bos": 0, "eos": 1, "pad": 2, "unk": 3, "sep": 4, "mask": 5}
VOCABULARY = Vocabulary(60, ROLES, tuple(range(14)))
MODEL = ModelOptions(dim=16, n_layers=2, n_heads=2, max_positions=64, dropout=0.0)
ADAM = OptimizerOptions(
    lr=2e-3, schedule="constant", warmup=0, eps=1e-6, weight_decay=0.01, clip=1.2
)


class Case(Dataset[list[Batch]]):
    """Objectives that take turns, and this rank's share of the lanes of every update.

    :param name: the objectives, joined by ``+``.
    """

    def __init__(self, name: str, rank: int = 0, world_size: int = 1, accumulation: int = 1):
        plugins, self.names = Plugins.discover(), name.split("+")
        components = [plugins.get("objective", each) for each in self.names]
        needed = set().union(*(component.load().stacks for component in components))
        self.description = ModelDescription(
            MODEL, VOCABULARY, {"en": 0, "fr": 1},
            tuple(stack for stack in ("encoder", "decoder") if stack in needed),
            objectives=tuple(ChosenObjective(each, each.options()) for each in components),
        )  # fmt: skip
        self.objectives = self.description.build_objectives()
        size = LANES // (world_size * accumulation)
        parts = range(rank * accumulation, (rank + 1) * accumulation)
        self.parts = [range(part * size, (part + 1) * size) for part in parts]

    def model(self) -> Model:
        torch.manual_seed(3)
        return self.description.build_model(self.objectives)

    def update(self, index: int) -> Update:
        name = self.names[index % len(self.names)]
        weight = 0.5 if name == "mt" else 1.0  # of the loss
        return Update(index, index, name, Step.parse(STEPS[name]), 0, weight)

    def __getitem__(self, index: int) -> list[Batch]:
        update = self.update(index)
        lanes = [[lane_batch(self.objectives[update.objective], update, n) for n in part]
                 for part in self.parts]  # fmt: skip
        return [Batch.cat(part) for part in lanes]


def lane_batch(objective: Objective, update: Update, lane: int) -> Batch:
    """Two samples of 1 to 9 tokens: lanes differ in size, and some have nothing masked."""
    rng = np.random.default_rng((update.index, lane))
    lengths = rng.integers(1, 10, 2)
    lengths[lane % 2] += objective.layout(update.step) is Layout.STREAM  # one to predict at least
    n_sides = 2 if objective.layout(update.step) is Layout.PAIR else 1
    sides = tuple(
        Ragged.of([rng.integers(14, VOCABULARY.size, n) for n in lengths]) for _ in range(n_sides)
    )
    ids = (update.index * LANES + lane) * 2 + np.arange(2)
    return objective.make_batch(Samples(ids, sides), update.step, rng)


def sources(batch: Batch) -> list[str]:
    """The source of each sample of a batch, as a line of text."""
    if batch.source is None:
        return []
    rows = zip(batch.source.offsets[:-1].tolist(), batch.source.offsets[1:].tolist(), strict=True)
    tokens = (batch.source.tokens[begin:end].tolist() for begin, end in rows)
    return [f"{i}: {row}" for i, row in zip(batch.sample_ids.tolist(), tokens, strict=True)]


class Watched:
    """Records what passes through an engine."""

    def __init__(self, engine: Engine) -> None:
        self.norms: list[float] = []
        self.sources: list[str] = []
        self._prepare, self._step = engine.prepare, engine.step
        engine.prepare, engine.step = self.prepare, self.step

    def prepare(self, *arguments: Any) -> Batch:
        batch = self._prepare(*arguments)
        self.sources += sources(batch)
        return batch

    def step(self, rate: float) -> StepReport:
        report = self._step(rate)
        self.norms.append(report.gradient_norm)
        return report


class NoEvaluation:
    def names(self, *_: Any) -> list[str]:
        return []

    def evaluate(self, *_: Any) -> dict[str, float]:
        return {}


def trained(world: World, text: str) -> dict[str, Any]:
    """A run's results: the gradient norm of each update, all sources, and the weights."""
    name, accumulation, stage = text.split("/")
    case = Case(name, world.rank, world.world_size, int(accumulation))
    chosen = {"engine": "torch"} if stage == "torch" else {"zero_stage": int(stage)}
    options = TrainOptions(
        **{"engine": "deepspeed", **chosen}, steps=N_UPDATES, accumulation=int(accumulation),
        evaluate_every=0, save_every=0, precision="fp32", lanes=LANES,
    )  # fmt: skip
    engine = create_engine(case.model(), ADAM, options, world)
    assert engine.can_generate is (stage != "3")
    watched = Watched(engine)
    plan = TrainingPlan(
        case.description, Path(), case.objectives, case.update, case, NoEvaluation(),
        Validation(()), evaluates_untrained=False,
    )  # fmt: skip
    folder = RunFolder(Path())  # of a rank that writes nothing
    assert not folder.writing
    record = RunRecord(folder, Plugins.discover(), Report(Console(stderr=True, quiet=True)))
    state, stop, watchdog = TrainerState("made up"), StopRequest(), Watchdog(world, 10.0)
    trainer = Trainer(options, ADAM, plan, engine, state, record, stop, watchdog)
    assert trainer.run() == "done"
    told = sorted(line for lines in engine.gather(watched.sources) for line in lines)
    return {"norms": watched.norms, "sources": told, "weights": engine.weights()}


def main(out: str, runs: Sequence[str]) -> None:
    torch.set_num_threads(1)
    world = World.from_environment()
    start(world, "deepspeed", minutes=10)
    results = {text: trained(world, text) for text in runs}
    if world.rank == 0:
        torch.save(results, out)
    finish()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
