"""Time a product-key memory's forward and backward pass, interleaved with a plain one.

The plain one is the same layer with `embedding_bag`'s own backward.  Prints a markdown table:
median milliseconds and spread (least to most) over the rounds, and the ratio of the medians.
Dated figures: benchmarks/results/pkm_step.md.

    python benchmarks/pkm_step.py [--tokens 4096] [--rounds 9] [--threads 2]
"""

from __future__ import annotations

import argparse
import datetime
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional
from xlm_pkm import ProductKeyOptions, layer
from xlm_pkm.gather import weighted_rows

from xlm_plugins.model.host import tune_host

DIM = 256


def plain_rows(values: Tensor, slots: Tensor, weights: Tensor) -> Tensor:
    """What `weighted_rows` computes, left to autograd."""
    return functional.embedding_bag(slots, values, mode="sum", per_sample_weights=weights)


WAYS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "ours": weighted_rows,
    "plain": plain_rows,
}


def one_step(memory: layer.ProductKeyMemory, x: Tensor, gradient: Tensor) -> tuple[float, float]:
    """Milliseconds of one forward and one backward pass."""
    memory.zero_grad()
    begin = time.perf_counter()
    output = memory(x)
    middle = time.perf_counter()
    output.backward(gradient)
    end = time.perf_counter()
    return 1e3 * (middle - begin), 1e3 * (end - middle)


def measure(n_keys: int, n_tokens: int, n_rounds: int) -> dict[str, list[tuple[float, float]]]:
    """Times of both ways, in turn, after one round that does not count."""
    torch.manual_seed(0)
    memory = layer.ProductKeyMemory(ProductKeyOptions(n_keys=n_keys), DIM)
    x = torch.randn(n_tokens, DIM, requires_grad=True)
    gradient = torch.randn(n_tokens, DIM)
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in WAYS}
    for _ in range(n_rounds + 1):
        for name, way in WAYS.items():
            layer.weighted_rows = way
            times[name].append(one_step(memory, x, gradient))
    return {name: rounds[1:] for name, rounds in times.items()}


def cell(milliseconds: list[float]) -> str:
    """Median and spread."""
    middle = statistics.median(milliseconds)
    return f"{middle:.0f} ({min(milliseconds):.0f} to {max(milliseconds):.0f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    tune_host(arguments.threads)  # as training does, or page faults are what is timed
    print(
        f"{datetime.date.today()}, torch {torch.__version__}, {arguments.threads} threads, "
        f"{arguments.tokens} tokens, dim {DIM}, fp32, {arguments.rounds} rounds, milliseconds\n"
    )
    print("| slots | forward | backward | plain backward | plain / ours |")
    print("|---|---|---|---|---|")
    for n_keys in (128, 512):
        times = measure(n_keys, arguments.tokens, arguments.rounds)
        forward = [step[0] for step in times["ours"]]
        ours, plain = ([step[1] for step in times[name]] for name in WAYS)
        ratio = statistics.median(plain) / statistics.median(ours)
        print(
            f"| {n_keys**2:,} | {cell(forward)} | {cell(ours)} | {cell(plain)} | {ratio:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
