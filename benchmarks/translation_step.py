"""How fast a step of translation training is: supervised, and online back-translation.

    python benchmarks/translation_step.py [--run RUN] [--rounds 5] [--steps 2] [--threads 2]

A complete step: making the batch, generation if any, forward, backward, clipping, fused AdamW.  The
model has dim 256, 4 layers per stack, 8 heads, vocabulary 7,965, dropout 0.1, none on attention
weights, fp32.  Sentences are random, 5 to 100 tokens long (36 on average); a batch has about 2,000
tokens:

    mt                     pairs, tokens of both sides
    bt, cut                true sentences; the model never ends a translation, so each is cut at its
                           limit, 1.3 times the source plus 5
    bt, natural lengths    the same with a trained model and real text, if --run names a run with
                           both languages of --loop: translations end by themselves
    bt, ..., grouped       the same with the batches of `xlm train --group-by-length`

Tokens are those that the training step reads, both sides, including frames; in back-translation
these are the synthetic source and the true target.  Generated tokens are not counted again.

The ceiling is arithmetic at the rate of an fp32 matrix product, by torch (mostly MKL) or oneDNN,
whichever is faster, measured before and after in every round.  Operations of a sentence of s source
and t target tokens, 2 for multiply and add, forward:

    encoder    s * n_layers * (2 * (4 dim^2 + 2 dim ffn_dim) + 4 dim s)
    source     s * n_layers * 2 * 2 dim^2
    decoder    t * n_layers * (2 * (6 dim^2 + 2 dim ffn_dim) + 4 dim (s + t))
    output     t * 2 * dim * vocabulary

Training takes 3 times that; generation takes it once more, with the translation as target.  A
memory layer of a run counts as the FFN that it replaces.

Hugging Face's Marian of the same size trains on the same sentences if transformers can be imported
(see `translate.py`).  It pads, so its batches are of similar lengths, too; padding is not counted.

Grouped batches take different times; 16 of them, ``--steps 16``, cover about all lengths.

Prints a Markdown table: median, with quartiles in parentheses.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn
from train_step import LANGUAGES, MATRIX_SIZES, ROLES, VOCABULARY, Product, machine

from xlm_plugins import Batch, Model, Objective, Ragged, Samples, Step
from xlm_plugins.config.model import ModelOptions
from xlm_plugins.contracts.ragged import stack
from xlm_plugins.core.plugins import Plugins
from xlm_plugins.data.batches.pools import cut
from xlm_plugins.data.prepare.embedded import embedded_sentences
from xlm_plugins.model.bundle import Bundle
from xlm_plugins.model.nn.cpu_tuning import tune_host
from xlm_plugins.runs.find import find_bundle

BATCH_TOKENS = 2000
OPTIONS = ModelOptions(dropout=0.1, attention_dropout=0.0)
RATE = 1e-6
"""So small that a trained model stays as it is."""


@dataclass(frozen=True)
class Done:
    """What a step did: the tokens it read, and their floating-point operations."""

    n_tokens: int
    flops: float


@dataclass
class Case:
    """A kind of step, ready to run, and its measurements."""

    name: str
    run_step: Callable[[], Done]
    rates: list[float] = field(default_factory=list)
    shares: list[float] = field(default_factory=list)
    flops: list[float] = field(default_factory=list)


def main() -> None:
    arguments = _arguments()
    tune_host(arguments.threads)
    cases = _cases(arguments)
    for case in cases:
        for _ in range(arguments.warm_up):
            case.run_step()
    products = [Product(*size) for size in MATRIX_SIZES]
    peaks = []
    for _ in range(arguments.rounds):
        for case in cases:
            before = max(product.rate() for product in products)
            begin = time.perf_counter()
            done = [case.run_step() for _ in range(arguments.steps)]
            seconds = time.perf_counter() - begin
            peaks.append(max(before, *(product.rate() for product in products)))
            n_tokens, flops = sum(d.n_tokens for d in done), sum(d.flops for d in done)
            case.rates.append(n_tokens / seconds)
            case.flops.append(flops / n_tokens)
            case.shares.append(flops / seconds / peaks[-1])
    print(_report(cases, peaks, arguments))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--run", help="a trained run, for natural lengths")
    parser.add_argument("--loop", default="en-fr-en", help="what --run back-translates")
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each")
    parser.add_argument("--steps", type=int, default=2, help="steps of one measurement")
    parser.add_argument("--warm-up", type=int, default=3, help="steps of each before measuring")
    parser.add_argument("--threads", type=int, default=None, help="CPU threads")
    return parser.parse_args()


def _cases(arguments: argparse.Namespace) -> list[Case]:
    plugins = Plugins.discover()
    cases = [Case("mt", _supervised(plugins).run), *_hugging_face()]
    for by_length, name in {False: "", True: ", grouped"}.items():
        samples = _random_samples(1)
        cut_ones = _never_ending(plugins, _by_length(samples) if by_length else samples)
        cases.append(Case(f"bt, cut{name}", cut_ones.run))
        if arguments.run:
            loop = Step.parse(arguments.loop)
            trained = _trained(plugins, arguments.run, loop, by_length=by_length)
            cases.append(Case(f"bt, natural lengths{name}", trained.run))
    return cases


@dataclass
class Training:
    """Our side: a model training one objective on one pair or loop.

    :param samples: endless.
    """

    model: Model
    objective: Objective
    step: Step
    samples: Iterator[Samples]

    def __post_init__(self) -> None:
        self._optimizer = _optimizer(self.model)
        self._rng = np.random.default_rng(1)

    def run(self) -> Done:
        """One update."""
        batch = self.objective.make_batch(next(self.samples), self.step, self._rng)
        self.model.eval()
        with torch.no_grad():
            prepared = self.objective.prepare(self.model, batch, self.step)
        self.model.train()
        output = self.model(self.objective, prepared)
        (output.loss / prepared.n_targets).backward()
        _update(self.model, self._optimizer)
        source, target = _lengths(prepared)
        flops = 3 * self._flops(source, target)
        if prepared is not batch:  # its source was generated, followed by an EOS
            flops += self._flops(_lengths(batch)[0], source - 1)
        return Done(prepared.n_tokens, flops)

    def _flops(self, source: np.ndarray, target: np.ndarray) -> float:
        """Operations of a forward pass, see above."""
        options = self.model.options
        dim, ffn_dim = options.dim, options.ffn_dim or 4 * options.dim
        vocabulary_size = self.model.stack("decoder").embeddings.tokens.num_embeddings
        encoder = source * (2 * (4 * dim**2 + 2 * dim * ffn_dim) + 4 * dim * source)
        keys = source * 2 * 2 * dim**2
        decoder = target * (2 * (6 * dim**2 + 2 * dim * ffn_dim) + 4 * dim * (source + target))
        layers = options.n_layers * (encoder + keys + decoder)
        return float((layers + target * 2 * dim * vocabulary_size).sum())


def _lengths(batch: Batch) -> tuple[np.ndarray, np.ndarray]:
    """Lengths of the source sentences and of what the decoder reads."""
    if batch.source is None:
        raise ValueError("the objective translates nothing")
    return batch.source.offsets.diff().numpy(), batch.offsets.diff().numpy()


def _optimizer(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.0, fused=True)


def _update(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
    optimizer.step()
    optimizer.zero_grad()


def _new_model() -> Model:
    torch.manual_seed(1)
    stacks = {"encoder", "decoder"}
    return Model(OPTIONS, VOCABULARY.size, len(LANGUAGES), stacks, ROLES["pad"])


def _supervised(plugins: Plugins) -> Training:
    component = plugins.get("objective", "mt")
    objective = component.load()(component.options(), VOCABULARY, LANGUAGES)
    return Training(_new_model(), objective, Step(("en", "fr")), _random_samples(2))


def _never_ending(plugins: Plugins, samples: Iterator[Samples]) -> Training:
    component = plugins.get("objective", "bt")
    objective = component.load()(component.options(), VOCABULARY, LANGUAGES)
    model = _new_model()
    with torch.no_grad():
        model.stack("decoder").output.bias[ROLES["eos"]] = -100.0
    return Training(model, objective, Step(("en", "fr", "en")), samples)


def _trained(plugins: Plugins, reference: str, loop: Step, *, by_length: bool) -> Training:
    """A run's model, with the same dropout as the others, on real text in the loop's language."""
    bundle = Bundle.load(find_bundle(reference), plugins)
    told = dataclasses.replace(bundle.description.options, dropout=0.1, attention_dropout=0.0)
    description = dataclasses.replace(bundle.description, options=told)
    model = description.build_model(bundle.objectives)
    model.load_state_dict(bundle.model.state_dict())
    component = plugins.get("objective", "bt")
    objective = component.load()(component.options(), description.vocabulary, description.languages)
    texts = embedded_sentences("train", loop.languages[0])
    rows = [row for row in bundle.tokenizer.encode_batch(texts).rows if 0 < len(row) <= 100]
    samples = _in_batches(rows)
    return Training(model, objective, loop, _by_length(samples) if by_length else samples)


def _random_samples(n_sides: int) -> Iterator[Samples]:
    """Sentences of random tokens; the sides of a pair have similar lengths."""
    rng = np.random.default_rng(2)
    while True:
        sides: list[list[np.ndarray]] = [[] for _ in range(n_sides)]
        n_tokens = 0
        while n_tokens < BATCH_TOKENS:
            length = rng.lognormal(3.4, 0.6)
            for side in sides:
                n = int(np.clip(length * rng.lognormal(0.0, 0.15), 5, 100))
                side.append(rng.integers(14, VOCABULARY.size, n))
                n_tokens += n + 2
        yield Samples(np.arange(len(sides[0])), tuple(map(Ragged.of, sides)))


def _in_batches(rows: Sequence[np.ndarray]) -> Iterator[Samples]:
    """Sentences in random order, repeated endlessly."""
    rng = np.random.default_rng(2)
    while True:
        batch: list[np.ndarray] = []
        for index in rng.permutation(len(rows)):
            batch.append(rows[index])
            if sum(map(len, batch)) + 2 * len(batch) >= BATCH_TOKENS:
                yield Samples(np.arange(len(batch)), (Ragged.of(batch),))
                batch = []


def _by_length(samples: Iterator[Samples], n_batches: int = 16) -> Iterator[Samples]:
    """The samples of some batches, sorted by length and cut into batches again, in random order."""
    rng = np.random.default_rng(3)
    while True:
        sides = zip(*(next(samples).sides for _ in range(n_batches)), strict=True)
        stacked = tuple(map(stack, sides))
        order = np.lexsort([side.lengths for side in stacked])
        bounds = cut(sum(side.lengths + 2 for side in stacked)[order], n_batches)
        for number in rng.permutation(n_batches):
            rows = order[bounds[number] : bounds[number + 1]]
            yield Samples(rows, tuple(side.take(rows) for side in stacked))


def _hugging_face() -> list[Case]:
    """Training of a Marian model; nothing if transformers is not installed."""
    try:
        from transformers import MarianConfig, MarianMTModel
    except ImportError:
        return []
    torch.manual_seed(1)
    shape = {"attention_heads": OPTIONS.n_heads, "layers": OPTIONS.n_layers}
    shape["ffn_dim"] = OPTIONS.ffn_dim or 4 * OPTIONS.dim
    sides = {f"{side}_{name}": n for side in ("encoder", "decoder") for name, n in shape.items()}
    config = MarianConfig(
        vocab_size=VOCABULARY.size, d_model=OPTIONS.dim, activation_function="gelu",
        max_position_embeddings=512, pad_token_id=ROLES["pad"], eos_token_id=ROLES["eos"],
        decoder_start_token_id=ROLES["eos"], dropout=0.1, attention_dropout=0.0,
        activation_dropout=0.0, **sides,
    )  # fmt: skip
    model = MarianMTModel(config).train()
    optimizer, batches = _optimizer(model), _by_length(_random_samples(2))

    def run_step() -> Done:
        source, target = (side.rows for side in next(batches).sides)
        read = _padded([[ROLES["eos"], *row, ROLES["eos"]] for row in source], ROLES["pad"])
        written = _padded([[ROLES["eos"], *row] for row in target], ROLES["pad"])
        labels = _padded([[*row, ROLES["eos"]] for row in target], -100)
        mask = (read != ROLES["pad"]).long()
        output = model(read, mask, decoder_input_ids=written, labels=labels, use_cache=False)
        output.loss.backward()
        _update(model, optimizer)
        return Done(sum(map(len, source)) + sum(map(len, target)) + 3 * len(source), 0.0)

    return [Case("mt, Hugging Face", run_step)]


def _padded(rows: Sequence[Sequence[int]], value: int) -> torch.Tensor:
    tensors = [torch.as_tensor(np.asarray(row, dtype=np.int64)) for row in rows]
    return nn.utils.rnn.pad_sequence(tensors, batch_first=True, padding_value=value)


def _report(cases: list[Case], peaks: list[float], arguments: argparse.Namespace) -> str:
    versions = f"torch {torch.__version__}"
    peer = next((case for case in cases if case.name.endswith("Hugging Face")), None)
    if peer is not None:
        import transformers

        versions += f", transformers {transformers.__version__}"
    command = f"--rounds {arguments.rounds} --steps {arguments.steps}"
    command += f" --warm-up {arguments.warm_up}"
    if arguments.threads:
        command += f" --threads {arguments.threads}"
    if arguments.run:
        command += f" --run RUN --loop {arguments.loop}"
    return "\n".join(
        [
            f"# Translation steps, {time.strftime('%Y-%m-%d')}",
            "",
            f"`python benchmarks/translation_step.py {command}`",
            "",
            f"{machine()}; {torch.get_num_threads()} threads; {versions}; fp32 matrix product "
            f"{statistics.median(peaks) / 1e9:.0f} GFLOP/s ({min(peaks) / 1e9:.0f} to "
            f"{max(peaks) / 1e9:.0f}).",
            "",
            "Medians, with quartiles in parentheses. Tokens of both sides of the training step.",
            "",
            "| step | tokens/s | MFLOP per token | % of the ceiling | times Hugging Face |",
            "|---|---|---|---|---|",
            *(_row(case, peer) for case in cases),
        ]
    )


def _row(case: Case, peer: Case | None) -> str:
    cells = [case.name, _spread(case.rates, "{:,.0f}")]
    if case is peer:
        cells += ["", "", ""]
    else:
        cells += [f"{statistics.median(case.flops) / 1e6:.1f}"]
        cells += [_spread([100 * share for share in case.shares], "{:.0f}")]
        ratios = zip(case.rates, peer.rates if peer else (), strict=bool(peer))
        compared = peer is not None and case.name == "mt"
        cells += [_spread([a / b for a, b in ratios], "{:.2f}") if compared else ""]
    return f"| {' | '.join(cells)} |"


def _spread(values: list[float], form: str) -> str:
    if len(values) < 2:
        return form.format(*values)
    first, middle, third = map(form.format, statistics.quantiles(values, n=4))
    return f"{middle} ({first} to {third})"


if __name__ == "__main__":
    main()
