"""What DeepSpeed costs compared with the torch engine, in one process.

    python benchmarks/engine_overhead.py [--stages 1] [--steps 30]

Both engines make the same MLM updates (dim 256, 4 layers, vocabulary 7,965, 4,096 tokens per
batch, dropout 0.1) in one process, alternating, so that a busy machine disturbs them equally.  CPU
time is compared step by step; the table shows the median of the ratios and their quartiles.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from importlib.metadata import version

import numpy as np
import torch

from xlm_plugins import Batch, Model, Objective, Ragged, Samples, Step, Vocabulary
from xlm_plugins.config.model import ModelOptions
from xlm_plugins.config.training import OptimizerOptions, TrainOptions
from xlm_plugins.core.plugins import Plugins
from xlm_plugins.training.distributed.process_group import World, finish, start
from xlm_plugins.training.engines.create import create_engine
from xlm_plugins.training.engines.engine import Engine

ROLES = {"bos": 0, "eos": 1, "pad": 2, "unk": 3, "sep": 4, "mask": 5}
VOCABULARY = Vocabulary(7965, ROLES, tuple(range(14)))
N_SEQUENCES, WINDOW, N_WARMUP = 32, 128, 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stages", default="1", help="ZeRO stages, comma-separated")
    parser.add_argument("--steps", type=int, default=30, help="measured steps of each engine")
    arguments = parser.parse_args()
    world = World()
    start(world, "deepspeed")
    component = Plugins.discover().get("objective", "mlm")
    objective = component.load()(component.options(), VOCABULARY, {"en": 0})
    print(_heading(arguments.steps))
    for stage in map(int, arguments.stages.split(",")):
        print(_row(stage, _compare(world, objective, stage, arguments.steps)), flush=True)
    finish()


def _compare(world: World, objective: Objective, stage: int, n_steps: int) -> list[float]:
    """CPU time of each DeepSpeed step divided by that of the torch step next to it."""
    plain, sharded = _engine(world, "torch", 0), _engine(world, "deepspeed", stage)
    rng = np.random.default_rng(1)
    ratios = []
    for index in range(N_WARMUP + n_steps):
        batch = _batch(objective, rng)
        order = (plain, sharded) if index % 2 else (sharded, plain)
        times = {engine: _seconds(engine, objective, batch) for engine in order}
        ratios.append(times[sharded] / times[plain])
    return ratios[N_WARMUP:]


def _engine(world: World, name: str, stage: int) -> Engine:
    torch.manual_seed(1)
    model = Model(ModelOptions(), VOCABULARY.size, 1, {"encoder"}, ROLES["pad"])
    options = TrainOptions(engine=name, zero_stage=stage, precision="fp32")
    return create_engine(model, OptimizerOptions(), options, world)


def _batch(objective: Objective, rng: np.random.Generator) -> Batch:
    tokens = rng.integers(14, VOCABULARY.size, N_SEQUENCES * WINDOW)
    rows = Ragged(tokens, np.arange(N_SEQUENCES + 1) * WINDOW)
    return objective.make_batch(Samples(np.arange(N_SEQUENCES), (rows,)), Step(("en",)), rng)


def _seconds(engine: Engine, objective: Objective, batch: Batch) -> float:
    torch.manual_seed(1)
    began = time.process_time()
    engine.forward_backward(objective, engine.prepare(objective, batch), 1 / batch.n_targets)
    engine.step(1e-4)
    return time.process_time() - began


def _heading(n_steps: int) -> str:
    return (
        f"# DeepSpeed over the torch engine, {time.strftime('%Y-%m-%d')}\n\n"
        f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}, "
        f"deepspeed {version('deepspeed')}, {n_steps} steps of each\n\n"
        "| ZeRO stage | CPU time, ratio to torch (median) | quartiles |\n|---|---|---|"
    )


def _row(stage: int, ratios: list[float]) -> str:
    low, middle, high = statistics.quantiles(ratios, n=4)
    return f"| {stage} | {middle:.3f} | {low:.3f} to {high:.3f} |"


if __name__ == "__main__":
    main()
