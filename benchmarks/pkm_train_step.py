"""What a product-key memory costs in training: tokens per second with and without it.

    python benchmarks/pkm_train_step.py [--repetitions 9] [--steps 4] [--threads 2]

A complete step of the torch engine: making the batch with the MLM objective, forward, backward,
clipping, update.  The models have dim 256, 8 heads, vocabulary 7,965 and dropout 0.1, none on
attention weights; a batch is 32 windows of 128 random tokens.  A memory replaces the FFN of
layer 2 (layers count from 0), with its default options.

All models take turns.  Prints a Markdown table: median tokens per second and quartiles, median and
quartiles of each turn's ratio to 4 layers without a memory, and the peak memory of a separate
process.
Dated figures: benchmarks/results/pkm_train_step.md.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass

import numpy as np
import torch
from train_step import MATRIX_SIZES, N_SEQUENCES, ROLES, VOCABULARY, WINDOW, Product, machine
from xlm_pkm import ProductKeyOptions

from xlm_plugins import Batch, Model, Objective, Position, Ragged, Samples, Step
from xlm_plugins.config.model import ModelOptions
from xlm_plugins.config.training import OptimizerOptions, TrainOptions
from xlm_plugins.core.plugins import Plugins
from xlm_plugins.model.nn.cpu_tuning import tune_host
from xlm_plugins.training.distributed.process_group import World
from xlm_plugins.training.engines.torch_engine import TorchEngine

N_WARMUP = 3
STEP = Step(("en",))


@dataclass(frozen=True)
class Case:
    """A model to train.

    :param memory: options of the memory in layer 2, or None.
    """

    name: str
    n_layers: int = 4
    memory: ProductKeyOptions | None = None


CASES = (
    Case("4 layers"),
    Case("4 layers, memory of 16,384 slots", 4, ProductKeyOptions(n_keys=128)),
    Case("4 layers, memory of 262,144 slots", 4, ProductKeyOptions(n_keys=512)),
    Case(
        "4 layers, memory of 262,144 slots, `--pkm.sparse-update`",
        4,
        ProductKeyOptions(n_keys=512, sparse_update=True),
    ),
    Case("6 layers", 6),
)


class Training:
    """A case's engine and its measurements."""

    def __init__(self, case: Case) -> None:
        torch.manual_seed(1)
        plugins = Plugins.discover()
        objective = plugins.get("objective", "mlm")
        self.case = case
        self.rates: list[float] = []
        self.objective: Objective = objective.load()(objective.options(), VOCABULARY, {"en": 0})
        options = ModelOptions(n_layers=case.n_layers)
        layers = {}
        if case.memory is not None:
            (memory,) = plugins.get("layer", "pkm").load().build(case.memory, options.dim, 1)
            layers[Position("encoder", 2, after=False)] = memory
        model = Model(options, VOCABULARY.size, 1, {"encoder"}, ROLES["pad"], layers)
        train = TrainOptions(engine="torch", precision="fp32")
        self.engine = TorchEngine(model, OptimizerOptions(), train, World())
        self.rng = np.random.default_rng(1)

    def step(self) -> int:
        """One update; returns its number of input tokens."""
        batch = self.engine.prepare(self.objective, self._batch(), STEP)
        self.engine.forward_backward(self.objective, batch, 1 / batch.n_targets)
        self.engine.step(1e-4)
        return batch.n_tokens

    def tokens_per_second(self, n_steps: int) -> float:
        began = time.perf_counter()
        n_tokens = sum(self.step() for _ in range(n_steps))
        return n_tokens / (time.perf_counter() - began)

    def _batch(self) -> Batch:
        tokens = self.rng.integers(14, VOCABULARY.size, N_SEQUENCES * WINDOW)
        rows = Ragged(tokens, np.arange(N_SEQUENCES + 1) * WINDOW)
        return self.objective.make_batch(Samples(np.arange(N_SEQUENCES), (rows,)), STEP, self.rng)


def peak_megabytes(index: int, n_threads: int) -> float:
    """Peak memory of a process that only trains one case."""
    command = [sys.executable, __file__, "--peak", str(index), "--threads", str(n_threads)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def own_peak_megabytes(case: Case) -> float:
    """Train a little, and return this process's peak memory."""
    training = Training(case)
    for _ in range(N_WARMUP):
        training.step()
    n_kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS
    return n_kilobytes * 1024 / 1e6


def measure(n_repetitions: int, n_steps: int) -> tuple[list[Training], list[float]]:
    """Measure all cases, alternating, and the rates of matrix products in between, in FLOP/s."""
    trainings = [Training(case) for case in CASES]
    products = [Product(*size) for size in MATRIX_SIZES]
    for training in trainings:
        training.tokens_per_second(N_WARMUP)
    peaks = []
    for _ in range(n_repetitions):
        peaks.append(max(product.rate() for product in products))
        for training in trainings:
            training.rates.append(training.tokens_per_second(n_steps))
    return trainings, peaks


def report(
    trainings: list[Training],
    peaks: list[float],
    memory: list[float],
    arguments: argparse.Namespace,
) -> str:
    base = trainings[0]
    lines = [
        f"# A memory's training step, {time.strftime('%Y-%m-%d')}",
        "",
        f"`python benchmarks/pkm_train_step.py --repetitions {arguments.repetitions} "
        f"--steps {arguments.steps}`",
        "",
        f"{machine()}, {os.cpu_count()} cores; {torch.get_num_threads()} threads; torch "
        f"{torch.__version__}; fp32 matrix product {statistics.median(peaks) / 1e9:.0f} GFLOP/s "
        f"({min(peaks) / 1e9:.0f} to {max(peaks) / 1e9:.0f}).",
        "",
        "Medians, with quartiles in parentheses.",
        "",
        "| model | M parameters | tokens/s | to 4 layers | peak MB |",
        "|---|---|---|---|---|",
        *(row(training, base, peak) for training, peak in zip(trainings, memory, strict=True)),
    ]
    return "\n".join(lines)


def row(training: Training, base: Training, megabytes: float) -> str:
    """A row of the table; ratios to the base are those of the same turn."""
    case, rates = training.case, training.rates
    ratios = [rate / beside for rate, beside in zip(rates, base.rates, strict=True)]
    cells = [case.name, f"{training.engine.n_trained / 1e6:.1f}", spread(rates), spread(ratios, 2)]
    return f"| {' | '.join([*cells, f'{megabytes:,.0f}'])} |"


def spread(values: list[float], digits: int = 0) -> str:
    """Median and quartiles."""
    low, middle, high = statistics.quantiles(values, n=4)
    return f"{middle:,.{digits}f} ({low:,.{digits}f} to {high:,.{digits}f})"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--repetitions", type=int, default=9, help="measurements of each")
    parser.add_argument("--steps", type=int, default=4, help="steps of one measurement")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    parser.add_argument("--peak", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    tune_host(arguments.threads)
    if arguments.peak is not None:
        print(own_peak_megabytes(CASES[arguments.peak]))
        return
    # On Linux a child's peak includes its parent's memory, so children run before the models exist.
    memory = [peak_megabytes(index, arguments.threads) for index in range(len(CASES))]
    trainings, peaks = measure(arguments.repetitions, arguments.steps)
    print(report(trainings, peaks, memory, arguments))


if __name__ == "__main__":
    main()
