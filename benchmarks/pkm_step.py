"""Time one product-key memory: forward, backward and update, and other ways to do the same.

    python benchmarks/pkm_step.py [--slots 16384,262144] [--tokens 4096] [--rounds 9] [--threads 2]

Each way has its own memory and optimizer; all get the same inputs, alternating:

- ours: the layer and the optimizer as in `xlm train`, all values updated.
- ours, touched rows: the same with ``--pkm.sparse-update``.
- embedding_bag: the layer, with the gradient that `embedding_bag` computes by itself.
- embedding_bag, sparse: the same with ``sparse=True``; `torch.optim.SparseAdam` updates the
  values, torch's fused AdamW the rest.
- lucidrains: the package product-key-memory, of the same size, and fused AdamW on everything.  It
  has LayerNorm on its queries where ours has BatchNorm.  Skipped if it is not installed:

    pip install --no-deps --target FOLDER product-key-memory==0.3.0 colt5-attention \\
        local-attention hyper-connections torch-einops-utils einops packaging
    PYTHONPATH=FOLDER python benchmarks/pkm_step.py

An update is the optimizer's step and clearing the gradients, without clipping.  Inputs are random
and the learning rate is so small that reads stay as spread out as at the start.  Prints a Markdown
table: median milliseconds and range (minimum to maximum) over the rounds, and the median and range
of each round's ratio to ours.  Dated figures: benchmarks/results/pkm_step.md.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import version

import torch
from torch import Tensor, nn
from torch.nn import functional
from train_step import machine
from xlm_pkm import ProductKeyOptions, layer
from xlm_pkm.gather import weighted_rows

from xlm_plugins.config.training import OptimizerOptions
from xlm_plugins.model.nn.cpu_tuning import tune_host
from xlm_plugins.training.optim.parameter_groups import adamw, parameter_groups, trained_parameters

try:
    from product_key_memory import PKM
except ImportError:
    PKM = None

DIM, HEADS, KNN, K_DIM, RATE = 256, 4, 32, 256, 1e-7

Rows = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Sums rows of a table: of the values, the slots, and their weights."""


def plain_rows(values: Tensor, slots: Tensor, weights: Tensor) -> Tensor:
    """What `weighted_rows` computes, with autograd's backward pass."""
    return functional.embedding_bag(slots, values, mode="sum", per_sample_weights=weights)


def sparse_rows(values: Tensor, slots: Tensor, weights: Tensor) -> Tensor:
    """The same, with a sparse gradient of the values."""
    return functional.embedding_bag(
        slots, values, mode="sum", per_sample_weights=weights, sparse=True
    )


@dataclass
class Way:
    """A memory, the functions that read and update it, and the times of its steps.

    :param times: milliseconds of forward, backward and update, round by round.
    :param touched: share of the slots that the first round's gradient reached.
    """

    name: str
    memory: Callable[[Tensor], Tensor]
    values: nn.Parameter
    optimizers: list[torch.optim.Optimizer]
    rows: Rows = weighted_rows
    times: list[tuple[float, float, float]] = field(default_factory=list)
    touched: float = 0.0

    def step(self, x: Tensor, gradient: Tensor) -> None:
        """One forward and backward pass and one update."""
        layer.weighted_rows = self.rows
        x = x.clone().requires_grad_()
        began = time.perf_counter()
        output = self.memory(x)
        read = time.perf_counter()
        output.backward(gradient)
        done = time.perf_counter()
        self.touched = self.touched or touched_share(self.values.grad)
        counted = time.perf_counter()
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad()
        ended = time.perf_counter()
        self.times.append((1e3 * (read - began), 1e3 * (done - read), 1e3 * (ended - counted)))

    def totals(self) -> list[float]:
        """Milliseconds of each round."""
        return [sum(step) for step in self.times]


def touched_share(gradient: Tensor) -> float:
    """Share of a table's rows whose gradient is not zero."""
    rows = gradient.coalesce().values() if gradient.is_sparse else gradient
    return float(rows.abs().amax(1).count_nonzero()) / len(gradient)


def ours(name: str, n_keys: int, rows: Rows, sparse_update: bool = False) -> Way:
    """Our layer, and our optimizer with the groups that the layer asks for."""
    memory = new_memory(n_keys, sparse_update)
    groups = parameter_groups(memory, OptimizerOptions(lr=RATE))
    optimizer = adamw(groups)
    optimizer.start(trained_parameters(groups).values(), 0)
    return Way(name, memory, memory.values, [optimizer], rows)


def sparse(n_keys: int) -> Way:
    """Our layer, with torch's own sparse gradient and its update."""
    memory = new_memory(n_keys)
    rest = [parameter for parameter in memory.parameters() if parameter is not memory.values]
    optimizers = [torch.optim.SparseAdam([memory.values], lr=RATE), fused_adamw(rest)]
    return Way("embedding_bag, sparse", memory, memory.values, optimizers, sparse_rows)


def lucidrains(n_keys: int) -> Way:
    """The other package's layer; its dim_head is the width of half a query."""
    memory = PKM(DIM, heads=HEADS, num_keys=n_keys, topk=KNN, dim_head=K_DIM // 2)
    optimizers = [fused_adamw(list(memory.parameters()))]
    return Way("lucidrains", lambda x: memory(x[None])[0], memory.values.weight, optimizers)


def new_memory(n_keys: int, sparse_update: bool = False) -> layer.ProductKeyMemory:
    options = ProductKeyOptions(
        heads=HEADS,
        knn=KNN,
        n_keys=n_keys,
        k_dim=K_DIM,
        value_lr=RATE,
        sparse_update=sparse_update,
    )
    return layer.ProductKeyMemory(options, DIM)


def fused_adamw(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=RATE, weight_decay=0.0, fused=True)


def measure(n_keys: int, n_tokens: int, n_rounds: int) -> list[Way]:
    """Measure all ways, alternating, after two rounds that do not count."""
    torch.manual_seed(0)
    ways = [
        ours("ours", n_keys, weighted_rows),
        ours("ours, touched rows", n_keys, weighted_rows, sparse_update=True),
        ours("embedding_bag", n_keys, plain_rows),
        sparse(n_keys),
        *([lucidrains(n_keys)] if PKM else []),
    ]
    for _ in range(n_rounds + 2):
        x, gradient = torch.randn(n_tokens, DIM), torch.randn(n_tokens, DIM)
        for way in ways:
            way.step(x, gradient)
    for way in ways:
        del way.times[:2]
    return ways


def heading(arguments: argparse.Namespace) -> str:
    peer = "the peer, lucidrains', was not installed"
    if PKM is not None:
        peer = f"product-key-memory {version('product-key-memory')}"
    return (
        f"# A product-key memory's step, {time.strftime('%Y-%m-%d')}\n\n"
        f"`python benchmarks/pkm_step.py --tokens {arguments.tokens} "
        f"--rounds {arguments.rounds}`\n\n"
        f"{machine()}, {os.cpu_count()} cores; {arguments.threads} threads; "
        f"torch {torch.__version__}; {peer}. {arguments.tokens} tokens, dim {DIM}, heads {HEADS}, "
        f"knn {KNN}, k_dim {K_DIM}, fp32; milliseconds, median (min to max) of "
        f"{arguments.rounds} interleaved rounds.\n"
    )


def row(way: Way, base: Way) -> str:
    """A row of the table; ratios are to the base's step in the same round."""
    parts = [cell(list(part)) for part in zip(*way.times, strict=True)]
    ratios = [a / b for a, b in zip(way.totals(), base.totals(), strict=True)]
    cells = [way.name, f"{100 * way.touched:.0f} %", *parts, cell(way.totals()), cell(ratios, 2)]
    return f"| {' | '.join(cells)} |"


def cell(values: list[float], digits: int = 0) -> str:
    """Median and range."""
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--slots", default="16384,262144", help="square numbers, comma-separated")
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    tune_host(arguments.threads)  # as in training; otherwise page faults are timed
    print(heading(arguments))
    print("| slots | way | slots touched | forward | backward | update | total | total / ours |")
    print("|---" * 8 + "|")
    for n_slots in map(int, arguments.slots.split(",")):
        ways = measure(math.isqrt(n_slots), arguments.tokens, arguments.rounds)
        for way in ways:
            print(f"| {n_slots:,} {row(way, ways[0])}", flush=True)


if __name__ == "__main__":
    main()
