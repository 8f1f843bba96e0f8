"""Time an update of a product-key memory's values, by the share of rows with a gradient.

Ways: every row (torch's fused AdamW), touched rows only (`ParameterGroup.touched_rows`), and
`torch.optim.SparseAdam` on a coalesced sparse gradient.  All make the same kind of step on their
own tables, alternating; touched rows are drawn at random for each share.  The last two columns
include what an engine does around a step: computing the norm of the gradient and clipping.
Prints Markdown tables: median milliseconds and range (minimum to maximum) over the rounds.
Dated figures: benchmarks/results/pkm_update.md.

    python benchmarks/pkm_update.py [--rows 16384,262144] [--rounds 9] [--threads 2]
"""

from __future__ import annotations

import argparse
import datetime
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from xlm_plugins.model.nn.cpu_tuning import tune_host
from xlm_plugins.training.optim.adamw import AdamW
from xlm_plugins.training.optim.parameter_groups import update

DIM = 256
PERCENT = (2, 10, 20, 50, 100)


class Table:
    """A value table and its optimizer.

    :param way: ``every``, ``touched`` or ``sparse``.
    """

    def __init__(self, n_rows: int, way: str) -> None:
        self.values = nn.Parameter(torch.randn(n_rows, DIM))
        self.way = way
        if way == "sparse":
            self.optimizer: torch.optim.Optimizer = torch.optim.SparseAdam([self.values])
        else:
            group = {"params": [self.values], "weight_decay": 0.0, "touched_rows": way == "touched"}
            self.optimizer = AdamW([group])
            self.optimizer.start([self.values], 10)

    def milliseconds(self, gradient: Tensor, clipped: bool = False) -> float:
        """The duration of one update."""
        self.values.grad = gradient
        clip = 0.5 * float(gradient.norm()) if clipped else 0.0
        begin = time.perf_counter()
        if clipped:
            update(self.optimizer, clip)
        else:
            self.optimizer.step()
        return 1e3 * (time.perf_counter() - begin)


def gradients(n_rows: int, n_touched: int) -> tuple[Tensor, Tensor]:
    """The same gradient, dense and as a coalesced sparse tensor."""
    rows = torch.randperm(n_rows)[:n_touched].sort().values
    parts = torch.randn(n_touched, DIM)
    sparse = torch.sparse_coo_tensor(
        rows[None], parts, (n_rows, DIM), is_coalesced=True, check_invariants=False
    )
    return torch.zeros(n_rows, DIM).index_copy_(0, rows, parts), sparse


def measure(n_rows: int, n_touched: int, n_rounds: int) -> dict[str, list[float]]:
    """Times of all ways, alternating, after one round that does not count."""
    dense, sparse = gradients(n_rows, n_touched)
    tables = {way: Table(n_rows, way) for way in ("every", "touched", "sparse")}
    ways: dict[str, Callable[[], float]] = {
        "every": lambda: tables["every"].milliseconds(dense),
        "touched": lambda: tables["touched"].milliseconds(dense),
        "sparse": lambda: tables["sparse"].milliseconds(sparse),
        "every, clipped": lambda: tables["every"].milliseconds(dense.clone(), clipped=True),
        "touched, clipped": lambda: tables["touched"].milliseconds(dense.clone(), clipped=True),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(n_rounds + 1):
        for name, way in ways.items():
            times[name].append(way())
    return {name: rounds[1:] for name, rounds in times.items()}


def cell(milliseconds: list[float]) -> str:
    """Median and range."""
    middle = statistics.median(milliseconds)
    return f"{middle:.1f} ({min(milliseconds):.1f} to {max(milliseconds):.1f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", default="16384,262144", help="sizes of tables, comma-separated")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    tune_host(arguments.threads)  # as in training; otherwise page faults are timed
    torch.manual_seed(0)
    print(
        f"{datetime.date.today()}, torch {torch.__version__}, {arguments.threads} threads, "
        f"dim {DIM}, fp32, {arguments.rounds} rounds, milliseconds\n"
    )
    print(
        "| rows | touched | every row | touched rows | every / touched | SparseAdam "
        "| every, with norm and clipping | touched, with norm and clipping | every / touched |"
    )
    print("|---" * 9 + "|")
    for n_rows in map(int, arguments.rows.split(",")):
        for percent in PERCENT:
            times = measure(n_rows, n_rows * percent // 100, arguments.rounds)
            middle = {name: statistics.median(rounds) for name, rounds in times.items()}
            every, touched, sparse, every_clipped, touched_clipped = map(cell, times.values())
            plain_ratio = middle["every"] / middle["touched"]
            clipped_ratio = middle["every, clipped"] / middle["touched, clipped"]
            print(
                f"| {n_rows:,} | {percent} % | {every} | {touched} | {plain_ratio:.2f} | {sparse} "
                f"| {every_clipped} | {touched_clipped} | {clipped_ratio:.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
