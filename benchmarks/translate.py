"""How fast translations are generated, compared with Hugging Face and the machine's limit.

    python benchmarks/translate.py [--rounds 9] [--threads 2]

The model has dim 256, 4 layers per stack, 8 heads, vocabulary 8,000, in fp32; its weights are
random, because speed does not depend on them.  64 sentences at once are encoded and translated,
greedily and with a beam of 4:

    cut at 59     every source has 58 tokens, every translation is cut at 59 (3,776 in all)
    own lengths   sources of 5 to 100 tokens (33 on average), translations that end by themselves,
                  each after as many tokens as its source has, roughly as with a trained model

Tokens are those of the best translations, including the closing EOS; a beam's other hypotheses do
not count.  The ceiling is arithmetic: 12.5 MFLOP per decoded row (a token of a hypothesis) at the
rate of an fp32 matrix product, measured alternately with the rest: `torch.mm`'s (mostly MKL's) or
oneDNN's, whichever is faster.  On AMD processors they differ a lot.

Hugging Face's `generate`, with a Marian model of the same size on the same batches, is measured
if transformers can be imported, and skipped otherwise.  It is not a dependency; to install it
without touching this package's environment::

    python -m venv /tmp/hf && /tmp/hf/bin/pip install transformers
    echo THE-SITE-PACKAGES-OF-.VENV > /tmp/hf/lib/python3.11/site-packages/ours.pth
    PYTHONPATH=. /tmp/hf/bin/python benchmarks/translate.py

Prints a Markdown table: median, with quartiles in parentheses.
"""

from __future__ import annotations

import argparse
import datetime
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from xlm_plugins import Batch, GenerationOptions, Model, Ragged, Vocabulary, generate, pack
from xlm_plugins.config.model import ModelOptions
from xlm_plugins.model.nn.cpu_tuning import tune_host

SIZE = 8000
ROLES = {"bos": 0, "eos": 1, "pad": 2, "unk": 3, "sep": 4, "mask": 5}
VOCABULARY = Vocabulary(SIZE, ROLES, tuple(range(14)))
EOS, PAD = ROLES["eos"], ROLES["pad"]
N_SENTENCES = 64
CUT = 59
FLOP_A_ROW = 12.5e6
PRODUCTS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "torch.mm": lambda left, right: left @ right.t()
}
if hasattr(torch.ops.mkldnn, "_linear_pointwise"):
    PRODUCTS["oneDNN"] = lambda left, right: torch.ops.mkldnn._linear_pointwise(
        left, right, None, "none", [], ""
    )
MATRIX_SIZES = ((4096, 256, 1024), (1024, 4096, 256), (1024, 1024, 1024), (2048, 2048, 2048))


@dataclass
class Case:
    """Sentences to translate, how to translate them, and the measurements.

    :param sources: framed.
    :param n_written: tokens of each translation, the closing EOS included.
    :param rates: tokens per second, by implementation.
    """

    name: str
    beam: int
    sources: Ragged
    n_written: np.ndarray
    rates: dict[str, list[float]] = field(default_factory=dict)


Write = Callable[[Case], np.ndarray]
"""Translates a case's sentences; gives the length of each translation."""


def main() -> None:
    arguments = _arguments()
    tune_host(arguments.threads)
    writers = {"ours": _ours(), **_hugging_face()}
    cases = [
        Case(name, beam, *sentences)
        for name, sentences in {"cut at 59": _cut(), "own lengths": _own()}.items()
        for beam in (1, 4)
    ]
    for case in cases:
        for name, write in writers.items():
            n_written = write(case)  # the first call warms up
            if not np.array_equal(n_written, case.n_written):
                raise SystemExit(f"{name} wrote {n_written}, and not {case.n_written} tokens")
    peaks: dict[str, list[float]] = {}
    for _ in range(arguments.rounds):
        for case in cases:
            for name, write in writers.items():
                begin = time.perf_counter()
                write(case)
                seconds = time.perf_counter() - begin
                case.rates.setdefault(name, []).append(case.n_written.sum() / seconds)
        for name, product in PRODUCTS.items():
            rates = [product_rate(product, *size) for size in MATRIX_SIZES]
            peaks.setdefault(name, []).append(max(rates))
    medians = {name: statistics.median(rates) for name, rates in peaks.items()}
    print(_report(cases, list(writers), medians, arguments))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=9, help="measurements of each")
    parser.add_argument("--threads", type=int, default=None, help="CPU threads")
    return parser.parse_args()


def _cut() -> tuple[Ragged, np.ndarray]:
    return _sources(np.full(N_SENTENCES, CUT - 1)), np.full(N_SENTENCES, CUT)


def _own() -> tuple[Ragged, np.ndarray]:
    n_words = np.random.default_rng(1).lognormal(3.3, 0.6, N_SENTENCES).clip(5, 100).astype(int)
    return _sources(n_words), n_words + 1


def _sources(n_words: np.ndarray) -> Ragged:
    words = np.random.default_rng(2).integers(14, SIZE, n_words.sum())
    return Ragged(words, np.append(0, n_words.cumsum())).framed(EOS, EOS)


def _ours() -> Write:
    torch.manual_seed(1)
    model = Model(ModelOptions(), SIZE, 2, {"encoder", "decoder"}, PAD).eval()
    with torch.no_grad():
        model.decoder.output.bias[EOS] = -100.0  # only its limit ends a translation

    @torch.inference_mode()
    def write(case: Case) -> np.ndarray:
        limits = torch.from_numpy(case.n_written + 1)
        options = GenerationOptions(beam=case.beam)
        found = generate(model, _batch(case.sources), 1, VOCABULARY, options, limits)
        return found.lengths[:, 0].numpy() + 1

    return write


def _batch(sources: Ragged) -> Batch:
    nothing = np.empty(0, np.int64)
    numbers = np.arange(sources.n_rows)
    return pack(sources, sources.positions(), sources.filled(0), nothing, nothing, numbers)


def _hugging_face() -> dict[str, Write]:
    """`generate` of a Marian model; nothing if transformers is not installed."""
    try:
        from transformers import MarianConfig, MarianMTModel
    except ImportError:
        return {}
    torch.manual_seed(1)
    shape = {"attention_heads": 8, "layers": 4, "ffn_dim": 1024}
    sides = {f"{side}_{name}": n for side in ("encoder", "decoder") for name, n in shape.items()}
    config = MarianConfig(
        vocab_size=SIZE, d_model=256, activation_function="gelu", max_position_embeddings=512,
        pad_token_id=PAD, eos_token_id=EOS, forced_eos_token_id=None, decoder_start_token_id=EOS,
        bos_token_id=None, bad_words_ids=None, dropout=0.0, **sides,
    )  # fmt: skip
    model = MarianMTModel(config).eval()

    @torch.inference_mode()
    def write(case: Case) -> np.ndarray:
        rows = [torch.from_numpy(row) for row in case.sources.rows]
        tokens = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=PAD)
        found = model.generate(
            input_ids=tokens,
            attention_mask=(tokens != PAD).long(),
            max_new_tokens=int(case.n_written.max()),
            num_beams=case.beam,
            do_sample=False,
            logits_processor=[_Ends(case)],
        )
        is_end = found[:, 1:] == EOS
        return np.where(is_end.any(1), is_end.int().argmax(1) + 1, 0)

    return {"Hugging Face": write}


class _Ends:
    """Ends each sentence of a case after its own number of tokens, and not earlier."""

    def __init__(self, case: Case) -> None:
        self._ends_at = torch.from_numpy(case.n_written.repeat(case.beam))

    def __call__(self, tokens: Tensor, scores: Tensor) -> Tensor:
        """Shapes: (n_rows, length), (n_rows, vocabulary_size)"""
        ends = self._ends_at == tokens.shape[1]
        closing = scores[:, EOS].masked_fill(~ends, -torch.inf)
        scores = scores.masked_fill(ends[:, None], -torch.inf)
        scores[:, EOS] = closing
        return scores


@torch.no_grad()
def product_rate(product: Callable[[Tensor, Tensor], Tensor], n: int, k: int, m: int) -> float:
    """FLOP/s of an fp32 matrix product, the best of five."""
    left, right = torch.randn(n, k), torch.randn(m, k)
    best = float("inf")
    for _ in range(5):
        begin = time.perf_counter()
        product(left, right)
        best = min(best, time.perf_counter() - begin)
    return 2.0 * n * k * m / best


def _report(
    cases: list[Case], writers: list[str], peaks: dict[str, float], arguments: argparse.Namespace
) -> str:
    versions = f"torch {torch.__version__}"
    if "Hugging Face" in writers:
        import transformers

        versions += f", transformers {transformers.__version__}"
    threads = "" if arguments.threads is None else f" --threads {arguments.threads}"
    columns = [*(f"{name}, tokens/s" for name in writers), "ceiling", "% of it"]
    columns += [f"ours / {name}" for name in writers[1:]]
    lines = [
        "# Translating 64 sentences",
        "",
        f"`python benchmarks/translate.py --rounds {arguments.rounds}{threads}`, "
        f"{datetime.date.today()}, {versions}, {torch.get_num_threads()} threads, fp32 matrix "
        f"product {' and '.join(f'{rate / 1e9:.0f} ({name})' for name, rate in peaks.items())} "
        f"GFLOP/s; median of {arguments.rounds} interleaved rounds (quartiles).",
        "",
        f"| sentences | beam | {' | '.join(columns)} |",
        f"|---|---|{'---|' * len(columns)}",
        *(_row(case, writers, max(peaks.values())) for case in cases),
    ]
    return "\n".join(lines)


def _row(case: Case, writers: list[str], peak: float) -> str:
    ceiling = peak / FLOP_A_ROW / case.beam
    ours = case.rates["ours"]
    cells = [_spread(case.rates[name], "{:,.0f}") for name in writers]
    cells += [f"{ceiling:,.0f}", f"{100 * statistics.median(ours) / ceiling:.0f}"]
    for name in writers[1:]:
        ratios = [a / b for a, b in zip(ours, case.rates[name], strict=True)]
        cells.append(_spread(ratios, "{:.2f}"))
    return f"| {case.name} | {case.beam} | {' | '.join(cells)} |"


def _spread(values: list[float], form: str) -> str:
    first, middle, third = map(form.format, statistics.quantiles(values, n=4))
    return f"{middle} ({first} to {third})"


if __name__ == "__main__":
    main()
