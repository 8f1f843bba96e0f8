"""How fast a training step is, compared with what the machine's matrix product allows.

    python benchmarks/train_step.py [--objective mlm,clm,tlm] [--precision bf16]

A complete step: making the batch, forward, backward, clipping, fused AdamW.  The model has dim 256,
4 layers, 8 heads, vocabulary 7,965, dropout 0.1, none on attention weights.  MLM and CLM use 32
windows of 128 tokens, TLM 32 pairs of 10 to 150 tokens.  The text is random; speed does not depend
on it.

The ceiling is arithmetic at the rate of an fp32 matrix product and nothing else.  Times on a shared
machine fluctuate, so both sides are measured alternately, many times, and the table shows medians
of the ratios.  Floating-point operations per token, with a factor of 3 for forward and backward and
of 2 for multiply and add:

    matrices    3 * 2 * n_layers * (4 dim^2 + 2 dim ffn_dim)
    attention   3 * 4 * n_layers * dim * keys      (keys: tokens of the sequence, causal or not)
    output      3 * 2 * dim * vocabulary * predicted share

"Cut" counts what is needed if the last layer's query, output projection and FFN run on predicted
positions only, as they do here.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from xlm_plugins import Batch, LossOutput, Model, Objective, Ragged, Samples, Step, Vocabulary
from xlm_plugins.config.model import ModelOptions
from xlm_plugins.core.plugins import Plugins
from xlm_plugins.model.nn.cpu_tuning import tune_host
from xlm_plugins.model.nn.linear import linear

N_SEQUENCES = 32
WINDOW = 128
ROLES = {"bos": 0, "eos": 1, "pad": 2, "unk": 3, "sep": 4, "mask": 5}
VOCABULARY = Vocabulary(7965, ROLES, tuple(range(14)))
LANGUAGES = {"en": 0, "fr": 1}
MATRIX_SIZES = ((4096, 256, 1024), (4096, 1024, 256), (4096, 256, 768), (1024, 4096, 256))
MATRIX_SIZES += ((1024, 1024, 1024), (2048, 2048, 2048))


@dataclass
class Case:
    """An objective's training, ready to run steps, and its measurements."""

    name: str
    model: Model
    objective: Objective
    optimizer: torch.optim.Optimizer
    step: Step
    rng: np.random.Generator
    precision: str
    rates: list[float]
    shares: list[float]
    flops: tuple[float, float] = (0.0, 0.0)
    """FLOP per token: as written, and with the last layer cut."""


def main() -> None:
    arguments = _arguments()
    tune_host(arguments.threads)
    plugins = Plugins.discover()
    cases = [_case(plugins, name, arguments) for name in arguments.objective.split(",")]
    for case in cases:
        case.flops = _mean_flops(case)
        for _ in range(3):
            _train_step(case)
    products = [Product(*size) for size in MATRIX_SIZES]
    peaks = []
    for _ in range(arguments.repetitions):
        for case in cases:
            before = max(product.rate() for product in products)
            rate = _tokens_per_second(case, arguments.steps)
            peak = max(before, *(product.rate() for product in products))
            peaks.append(peak)
            case.rates.append(rate)
            case.shares.append(rate * case.flops[0] / peak)
    print(_report(cases, peaks, arguments))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--objective", default="mlm,clm,tlm", help="names, comma-separated")
    parser.add_argument("--repetitions", type=int, default=9, help="measurements of each")
    parser.add_argument("--steps", type=int, default=4, help="steps of one measurement")
    parser.add_argument("--threads", type=int, default=None, help="CPU threads")
    parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16"))
    return parser.parse_args()


def _case(plugins: Plugins, name: str, arguments: argparse.Namespace) -> Case:
    torch.manual_seed(1)
    component = plugins.get("objective", name)
    objective = component.load()(component.options(), VOCABULARY, LANGUAGES)
    model = Model(ModelOptions(), VOCABULARY.size, len(LANGUAGES), {"encoder"}, ROLES["pad"])
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.0, fused=True)
    step = Step(("en", "fr") if name == "tlm" else ("en",))
    rng = np.random.default_rng(1)
    return Case(name, model, objective, optimizer, step, rng, arguments.precision, [], [])


def _batch(case: Case) -> Batch:
    """Random samples, made into a batch by the objective as in loader workers."""
    if len(case.step.languages) == 1:
        sides = [np.full(N_SEQUENCES, WINDOW)]
    else:  # two sides, 4 EOS: 57 tokens on average, 10 to 150
        totals = case.rng.lognormal(3.9, 0.55, N_SEQUENCES).clip(10, 150).astype(int) - 4
        first = (totals / 2).astype(int)
        sides = [first, totals - first]
    rows = [
        Ragged(case.rng.integers(14, VOCABULARY.size, n.sum()), np.append(0, n.cumsum()))
        for n in sides
    ]
    samples = Samples(np.arange(N_SEQUENCES), tuple(rows))
    return case.objective.make_batch(samples, case.step, case.rng)


def _train_step(case: Case) -> int:
    """One update; returns its number of input tokens."""
    batch = _batch(case)
    with torch.autocast("cpu", torch.bfloat16, enabled=case.precision == "bf16"):
        output: LossOutput = case.model(case.objective, batch)
    (output.loss / batch.n_targets).backward()
    torch.nn.utils.clip_grad_norm_(case.model.parameters(), 5.0)
    case.optimizer.step()
    case.optimizer.zero_grad()
    return batch.n_tokens


def _tokens_per_second(case: Case, n_steps: int) -> float:
    start = time.perf_counter()
    n_tokens = sum(_train_step(case) for _ in range(n_steps))
    return n_tokens / (time.perf_counter() - start)


class Product:
    """An fp32 matrix product of one size, to measure the machine."""

    def __init__(self, n: int, k: int, m: int) -> None:
        self.flops = 2.0 * n * k * m
        self.left, self.right = torch.randn(n, k), torch.randn(m, k)

    @torch.no_grad()
    def rate(self) -> float:
        """FLOP/s, the best of five with each of torch's two libraries."""
        best = float("inf")
        for multiply in (linear, torch.nn.functional.linear):
            for _ in range(5):
                start = time.perf_counter()
                multiply(self.left, self.right)
                best = min(best, time.perf_counter() - start)
        return self.flops / best


def _mean_flops(case: Case) -> tuple[float, float]:
    """FLOP per token as written, and with the last layer cut; see above."""
    found = [_flops(_batch(case), case.model) for _ in range(20)]
    return statistics.fmean(f[0] for f in found), statistics.fmean(f[1] for f in found)


def _flops(batch: Batch, model: Model) -> tuple[float, float]:
    options = ModelOptions()
    dim, ffn_dim = options.dim, options.ffn_dim or 4 * options.dim
    lengths = batch.offsets.diff().double()
    keys = float((lengths**2).sum() / lengths.sum())
    predicted = batch.n_targets / batch.n_tokens
    needless = 3 * (2 * (2 * dim**2 + 2 * dim * ffn_dim) + 4 * dim * keys)
    written = 3 * options.n_layers * (2 * (4 * dim**2 + 2 * dim * ffn_dim) + 4 * dim * keys)
    written += 3 * 2 * dim * VOCABULARY.size * predicted
    return written, written - needless * (1 - predicted)


def _report(cases: list[Case], peaks: list[float], arguments: argparse.Namespace) -> str:
    lines = [
        f"# Training step, {time.strftime('%Y-%m-%d')}",
        "",
        f"`python benchmarks/train_step.py --objective {arguments.objective} "
        f"--precision {arguments.precision} --repetitions {arguments.repetitions} "
        f"--steps {arguments.steps}`",
        "",
        f"{machine()}; {torch.get_num_threads()} threads; torch {torch.__version__}; "
        f"fp32 matrix product {statistics.median(peaks) / 1e9:.0f} GFLOP/s "
        f"({min(peaks) / 1e9:.0f} to {max(peaks) / 1e9:.0f}).",
        "",
        "Medians, with quartiles in parentheses. MFLOP per token: as written / with the last "
        "layer's query, output projection and FFN on predicted positions only (what is computed).",
        "",
        "| objective | tokens/s | MFLOP per token | GFLOP/s computed | % of the ceiling as written "
        "| % of the ceiling with the cut |",
        "|---|---|---|---|---|---|",
        *(_row(case) for case in cases),
    ]
    return "\n".join(lines)


def _row(case: Case) -> str:
    written, cut = case.flops
    rate = statistics.median(case.rates)
    return (
        f"| {case.name} | {_spread(case.rates, 1)} | {written / 1e6:.1f} / {cut / 1e6:.1f} "
        f"| {rate * cut / 1e9:.0f} | {_spread(case.shares, 100)} "
        f"| {_spread([share * cut / written for share in case.shares], 100)} |"
    )


def _spread(values: list[float], factor: float) -> str:
    first, middle, third = (factor * q for q in statistics.quantiles(values, n=4))
    return f"{middle:,.0f} ({first:,.0f} to {third:,.0f})"


def machine() -> str:
    """The processor, by the name and family that the system reports."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    entries = dict(map(str.strip, line.split(":", 1)) for line in lines if ":" in line)
    name, family = entries.get("model name", platform.machine()), entries.get("cpu family", "?")
    flags = entries.get("flags", "")
    widest = next((flag for flag in ("avx512_bf16", "avx512f", "avx2") if flag in flags), "")
    return f"{name} family {family} {widest}".strip()


if __name__ == "__main__":
    main()
