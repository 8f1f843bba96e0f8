"""A process of the engine tests: ``python engine_worker.py OUT SCENARIO...``.

DeepSpeed is tested in separate processes, started as a launcher would start them; each scenario
adds to the JSON that rank 0 writes to OUT.  The tests of the torch engine import the stand-in
model and batches from here.
"""

from __future__ import annotations

import json
import math
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from xlm_plugins.config.training import OptimizerOptions, TrainOptions
from xlm_plugins.contracts.batch import Batch, Layout, LossOutput, Step, Vocabulary
from xlm_plugins.contracts.layer import Layer, ParameterGroup
from xlm_plugins.contracts.objective import Objective
from xlm_plugins.runs.whole_folders import write_folder
from xlm_plugins.training.distributed.process_group import World, finish, start
from xlm_plugins.training.engines.create import create_engine
from xlm_plugins.training.engines.engine import Engine
from xlm_plugins.training.engines.training_state import (
    TrainingState,
    load_training_state,
    save_training_state,
)

N_TOKENS, DIM = 23, 7  # odd on purpose: ZeRO must pad its partitions
N_SLOTS = 101  # two ranks' partitions then meet in the middle of a row


class Memory(Layer):
    """A layer with its own parameter group, as product keys have for their values."""

    def __init__(self) -> None:
        super().__init__(None, DIM)
        self.values = nn.Parameter(torch.randn(5, DIM) * 0.3)
        self.query = nn.Linear(DIM, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.query(x).softmax(-1) @ self.values

    def parameter_groups(self) -> list[ParameterGroup]:
        return [ParameterGroup((self.values,), lr=1e-2, schedule="constant", weight_decay=0.0)]


class TinyModel(nn.Module):
    """Tied embedding and output, a layer with its own group, a head, and a buffer."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.embedding = nn.Embedding(N_TOKENS, DIM)
        self.hidden = nn.Linear(DIM, DIM)
        self.memory = Memory()
        self.output = nn.Linear(DIM, N_TOKENS)
        self.output.weight = self.embedding.weight
        self.head = nn.Linear(DIM, 2)
        self.register_buffer("centre", torch.full((DIM,), 0.25))
        self.register_buffer("scratch", torch.zeros(2), persistent=False)
        self.dropout = nn.Dropout(0.0)

    def forward(self, objective: Objective, batch: Batch) -> LossOutput:
        return objective.loss(self, batch)

    def states(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens) - self.centre.to(self.embedding.weight.dtype)
        return x + self.memory(self.dropout(torch.tanh(self.hidden(x))))


class Slots(Layer):
    """A memory of which each token reads two rows, so that an update touches only some rows.

    :param touched_rows: whether the other rows are left alone.
    :param shared: the memory whose table it reads; None for its own table.
    """

    def __init__(self, touched_rows: bool, shared: Slots | None = None) -> None:
        super().__init__(None, DIM)
        self.touched_rows = touched_rows
        self.query = nn.Linear(DIM, N_SLOTS)
        self.values = shared.values if shared else nn.Parameter(torch.randn(N_SLOTS, DIM) * 0.3)
        self.gains = shared.gains if shared else nn.Parameter(torch.ones(N_SLOTS))

    def forward(self, x: Tensor) -> Tensor:
        scores, slots = self.query(x).topk(2)
        weights = scores.softmax(-1) * self.gains[slots]
        return self._gate(x) * (weights.unsqueeze(-1) * self.values[slots]).sum(1)

    def _gate(self, x: Tensor) -> Tensor:
        """Zero in places, so that the gradients of touched rows contain zeros, too.

        Where ZeRO cuts a row, neither part of it is ever all zeros.
        """
        gate = torch.ones_like(x)
        gate[:, 1:4:2] = (x[:, 1:4:2] > 0).to(gate.dtype)
        return gate

    def parameter_groups(self) -> list[ParameterGroup]:
        own = (self.values, self.gains)
        return [ParameterGroup(own, 1e-2, "constant", None, 0.0, self.touched_rows)]


class SlotsModel(TinyModel):
    """Two memories with one table."""

    def __init__(self, touched_rows: bool) -> None:
        super().__init__()
        self.memory = Slots(touched_rows)
        self.second = Slots(touched_rows, self.memory)

    def states(self, tokens: Tensor) -> Tensor:
        x = super().states(tokens)
        return x + self.second(x)


class Words(Objective):
    """Predicts tokens with the tied output."""

    name = "words"

    def layout(self, step: Step) -> Layout:
        return Layout.STREAM

    def make_batch(self, samples: Any, step: Step, rng: np.random.Generator) -> Batch:
        raise NotImplementedError

    def scores(self, model: TinyModel, batch: Batch) -> Tensor:
        return model.output(model.states(batch.tokens))

    def loss(self, model: Any, batch: Batch) -> LossOutput:
        scores = self.scores(model, batch).float()
        targets = batch.targets % scores.shape[-1]
        loss = functional.cross_entropy(scores, targets, reduction="sum")
        n_correct = (scores.argmax(-1) == targets).sum()
        return LossOutput(loss, torch.tensor(len(targets)), n_correct)


class Classes(Words):
    """Uses the head, and leaves the output's bias without a gradient."""

    name = "classes"

    def scores(self, model: TinyModel, batch: Batch) -> Tensor:
        return model.head(model.states(batch.tokens))


class Broken(Words):
    """Has a loss that is not finite."""

    def loss(self, model: Any, batch: Batch) -> LossOutput:
        loss, n_targets, n_correct = super().loss(model, batch)
        return LossOutput(loss * math.inf, n_targets, n_correct)


def objective(kind: type[Words] = Words) -> Words:
    return kind(None, Vocabulary(N_TOKENS, {}, ()), {})


def batch(update: int, part: int, n_parts: int = 4) -> Batch:
    """One part of a global batch of 24; parts differ in size, and the whole is always the same."""
    rng = np.random.default_rng(update)
    tokens = torch.from_numpy(rng.integers(0, N_TOKENS, 24))
    targets = torch.from_numpy(rng.integers(0, N_TOKENS, 24))
    bounds = [0, 3, 10, 12, 24]
    per_part = 4 // n_parts
    rows = slice(bounds[part * per_part], bounds[(part + 1) * per_part])
    tokens, targets = tokens[rows], targets[rows]
    index = torch.arange(len(tokens))
    return Batch(tokens, index, index, index, index, targets, index)


ADAM = OptimizerOptions(lr=5e-3, clip=0.3, weight_decay=0.01, eps=1e-6)


def engine_of(
    world: World,
    state: TrainingState | None = None,
    options: OptimizerOptions = ADAM,
    model: TinyModel | None = None,
    **train: Any,
) -> Engine:
    return create_engine(model or TinyModel(), options, TrainOptions(**train), world, state)


def train(
    engine: Engine,
    n_updates: int,
    first: int = 0,
    accumulation: int = 1,
    kinds: tuple[type[Words], ...] = (Words,),
) -> list[list[float]]:
    """Updates on the global batches from ``first`` on; returns loss, norm and skipped of each."""
    history = []
    n_parts = engine.world_size * accumulation
    for update in range(first, first + n_updates):
        chosen = objective(kinds[update % len(kinds)])
        losses = []
        for micro in range(accumulation):
            part = batch(update, engine.rank * accumulation + micro, n_parts)
            part = engine.prepare(chosen, part, Step(("en",)))
            losses.append(engine.forward_backward(chosen, part, 1 / 24).loss)
        report = engine.step(5e-3 / (1 + update))
        loss = float(engine.sum(torch.stack(losses).sum())) / 24
        history.append([loss, report.gradient_norm, float(report.skipped)])
    return history


def digest(engine: Engine) -> dict[str, list[float]]:
    """The weights, as lists."""
    return {name: tensor.flatten().tolist() for name, tensor in engine.weights().items()}


def through_files(state: TrainingState, world: World, where: Path) -> TrainingState:
    """The state as a resumed run reads it: rank 0 writes it, all ranks read it."""
    if world.rank == 0:
        write_folder(where, lambda folder: save_training_state(folder, state))
    if world.world_size > 1:
        torch.distributed.barrier()
    return load_training_state(where)


def scenario_history(world: World, where: Path, **train_options: Any) -> dict[str, Any]:
    """Alternating objectives with an evaluation in between, then the weights."""
    accumulation = 4 // world.world_size
    engine = engine_of(world, **train_options)
    history = train(engine, 3, accumulation=accumulation, kinds=(Words, Classes))
    whole = batch(99, 0, 1)
    evaluated = float(engine.evaluate(objective(), whole).loss)
    assert engine.model.training
    history += train(engine, 3, 3, accumulation=accumulation, kinds=(Words, Classes))
    return {"history": history, "evaluated": evaluated, "weights": digest(engine)}


def scenario_one_batch(world: World, where: Path, **train_options: Any) -> dict[str, Any]:
    """The same without accumulation: each rank's share in one micro-batch."""
    engine = engine_of(world, **train_options)
    return {"history": train(engine, 6, kinds=(Words, Classes)), "weights": digest(engine)}


def scenario_resume(world: World, where: Path, **train_options: Any) -> dict[str, Any]:
    """Five updates, a checkpoint, five more; and the five more from the checkpoint."""
    engine = engine_of(world, **train_options)
    train(engine, 5, kinds=(Words, Classes))
    state = through_files(engine.state(), world, where / "state")
    uninterrupted = train(engine, 5, 5, kinds=(Words, Classes))
    resumed_engine = engine_of(world, state, **train_options)
    resumed = train(resumed_engine, 5, 5, kinds=(Words, Classes))
    same = digest(engine) == digest(resumed_engine)
    return {"uninterrupted": uninterrupted, "resumed": resumed, "same": same}


def scenario_from_torch(world: World, where: Path, **train_options: Any) -> dict[str, Any]:
    """Resume from a checkpoint that the torch engine wrote (WHERE/torch)."""
    engine = engine_of(world, load_training_state(where / "torch"), **train_options)
    history = train(engine, 5, 5, kinds=(Words, Classes))
    through_files(engine.state(), world, where / "deepspeed")
    return {"history": history}


def scenario_skip(world: World, where: Path, **train_options: Any) -> dict[str, Any]:
    """A gradient that is not finite changes nothing, now or in later updates."""
    engine = engine_of(world, **train_options)
    train(engine, 2)
    before = digest(engine)
    broken = train(engine, 1, 2, kinds=(Broken,))
    unchanged = digest(engine) == before
    after = train(engine, 2, 2)
    return {"broken": broken, "unchanged": unchanged, "after": after, "n": engine.state().n_updates}


def scenario_train_only(world: World, where: Path, **train_options: Any) -> dict[str, Any]:
    engine = engine_of(world, train_only=("head.*", "memory.values"), **train_options)
    history = train(engine, 3, kinds=(Classes,))
    return {"history": history, "weights": digest(engine), "names": list(engine.state().weights)}


def scenario_touched(
    world: World, where: Path, touched_rows: bool = True, **train_options: Any
) -> dict[str, Any]:
    """Memories that share a table: ten updates, their results, and the last five resumed.

    Batches come in two parts at any world size, since bf16 rounds the sum within a part.
    """
    how = {"accumulation": 2 // world.world_size, "kinds": (Words, Classes)}
    engine = engine_of(world, model=SlotsModel(touched_rows), **train_options)
    history = train(engine, 5, **how)
    state = through_files(engine.state(), world, where / "state")
    uninterrupted = train(engine, 5, 5, **how)
    resumed_engine = engine_of(world, state, model=SlotsModel(touched_rows), **train_options)
    resumed = train(resumed_engine, 5, 5, **how)
    same = resumed == uninterrupted and digest(resumed_engine) == digest(engine)
    return {
        "history": history + uninterrupted,
        "weights": digest(engine),
        "moments": {
            key: {name: tensor.flatten().tolist() for name, tensor in moments.items()}
            for key, moments in engine.state().moments.items()
        },
        "resuming is bitwise": same,
    }


def scenario_every(world: World, where: Path, **train_options: Any) -> dict[str, Any]:
    return scenario_touched(world, where, touched_rows=False, **train_options)


def scenario_touched_bf16(world: World, where: Path, **train_options: Any) -> dict[str, Any]:
    return scenario_touched(world, where, precision="bf16", **train_options)


def scenario_reductions(world: World, where: Path, **train_options: Any) -> dict[str, Any]:
    engine = engine_of(world, **train_options)
    values = torch.tensor([1.5, 2.0 + engine.rank], dtype=torch.float64)
    return {
        "sum": engine.sum(values).tolist(),
        "kept": values.tolist(),
        "integers": engine.sum(torch.tensor(2**40 + 1)).tolist(),
        "max": engine.max_over_ranks(float(engine.rank)),
    }


def scenario_buffers(world: World, where: Path, **train_options: Any) -> dict[str, Any]:
    """Running statistics, which differ between ranks, become those of rank 0."""
    engine = engine_of(world, **train_options)
    engine.model.centre.fill_(0.5 + world.rank)
    train(engine, 1)
    return {"mean": (engine.sum(engine.model.centre) / world.world_size).tolist()}


def scenario_bf16(world: World, where: Path, **train_options: Any) -> dict[str, Any]:
    return scenario_one_batch(world, where, precision="bf16", **train_options)


def scenario_json(world: World, where: Path, **train_options: Any) -> dict[str, Any]:
    """A JSON file adds settings, and DeepSpeed accepts the result."""
    path = where / "added.json"
    path.write_text('{"zero_optimization": {"reduce_bucket_size": 1000}}')
    engine = engine_of(world, deepspeed_config=str(path), **train_options)
    return {"history": train(engine, 2)}


def scenario_fp16(world: World, where: Path, **train_options: Any) -> dict[str, Any]:
    """fp16 on a CPU, which DeepSpeed refuses unless told that the CPU can."""
    from deepspeed.accelerator import get_accelerator

    type(get_accelerator()).is_fp16_supported = lambda self: True
    result = scenario_resume(world, where, precision="fp16", **train_options)
    engine = engine_of(world, precision="fp16", **train_options)
    train(engine, 2)
    result["scale"] = engine.state().loss_scale
    broken = train(engine, 2, 2, kinds=(Broken,))
    result["broken"] = broken
    result["scale_after"] = engine.state().loss_scale
    result["history"] = train(engine_of(world, precision="fp16", **train_options), 6)
    return result


def main() -> None:
    out, *scenarios = sys.argv[1:]
    torch.set_num_threads(1)
    world = World.from_environment()
    start(world, "deepspeed", minutes=10)
    results = {}
    for index, text in enumerate(scenarios):
        name, _, stage = text.partition("@")
        with tempfile.TemporaryDirectory() as folder:
            # all ranks read what rank 0 writes
            where = Path(out).parent if world.world_size > 1 else Path(folder)
            where = Path(out).parent if name == "from_torch" else where / str(index)
            where.mkdir(parents=True, exist_ok=True)
            options: dict[str, Any] = {"engine": "deepspeed", "zero_stage": int(stage or 1)}
            results[text] = globals()[f"scenario_{name}"](world, where, **options)
    if world.rank == 0:
        Path(out).write_text(json.dumps(results))
    finish()


if __name__ == "__main__":
    main()
