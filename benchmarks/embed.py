r"""Sentences embedded per second, compared with sentence-transformers and the machine's limit.

    python benchmarks/embed.py [--rounds 5] [--sentences 3000] [--threads 2]

Both sides have a model of the same size (dim 256, 4 layers, 8 heads, vocabulary 8,000, fp32;
random weights, because speed does not depend on them), the same SentencePiece vocabulary and the
same sentences: English verses of the embedded corpus.  Both take the mean over tokens, and both are
timed from raw text to one array, alternating.  sentence-transformers gets the fastest of the batch
sizes 16, 32 (its default), 64 and 128.

The ceiling is arithmetic: the products of the tokens and of their attention, at the rate of an
fp32 matrix product: `torch.mm`'s (MKL's, mostly) or oneDNN's, whichever is faster.

sentence-transformers is measured if it can be imported, and skipped otherwise.  It is not a
dependency; to install it without touching this package's environment::

    python -m venv /tmp/hf && /tmp/hf/bin/pip install transformers
    /tmp/hf/bin/pip install --no-deps sentence-transformers  # else pip brings a torch of its own
    echo "import site; site.addsitedir('THE-SITE-PACKAGES-OF-.VENV')" \
        > /tmp/hf/lib/python3.11/site-packages/ours.pth
    PYTHONPATH=. /tmp/hf/bin/python benchmarks/embed.py

Prints a Markdown table: median, with quartiles in parentheses.
"""

from __future__ import annotations

import argparse
import datetime
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from translate import MATRIX_SIZES, PRODUCTS, product_rate

from xlm_plugins.config.model import ModelOptions
from xlm_plugins.core.plugins import Plugins
from xlm_plugins.core.saved_tokenizers import load_tokenizer
from xlm_plugins.data.prepare.embedded import embedded_data_set, embedded_sentences
from xlm_plugins.inference.embed import Embedder
from xlm_plugins.model.bundle import Bundle
from xlm_plugins.model.description import ModelDescription
from xlm_plugins.model.nn.cpu_tuning import tune_host
from xlm_plugins.runs.layout import TOKENIZER_NAME

Embed = Callable[[Sequence[str]], np.ndarray]
THEIRS = "sentence-transformers"
BATCH_SIZES = (16, 32, 64, 128)


def main() -> None:
    arguments = _arguments()
    tune_host(arguments.threads)
    plugins = Plugins.discover()
    folder = embedded_data_set(plugins) / TOKENIZER_NAME
    bundle = _bundle(plugins, folder)
    texts = embedded_sentences("train", "en")[: arguments.sentences]
    sides = {"ours": _ours(bundle), **_sentence_transformers(bundle, folder, texts)}
    rates: dict[str, list[float]] = {name: [] for name in sides}
    peaks: dict[str, list[float]] = {name: [] for name in PRODUCTS}
    for embed in sides.values():
        assert embed(texts).shape == (len(texts), 256)  # and warms up
    for _ in range(arguments.rounds):
        for name, embed in sides.items():
            rates[name].append(len(texts) / _seconds(embed, texts))
        for name, product in PRODUCTS.items():
            peaks[name].append(max(product_rate(product, *size) for size in MATRIX_SIZES))
    lengths = bundle.tokenizer.encode_batch(texts).lengths + 2
    medians = {name: statistics.median(found) for name, found in peaks.items()}
    print(_report(rates, medians, lengths, arguments))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each")
    parser.add_argument("--sentences", type=int, default=3000, help="number of sentences")
    parser.add_argument("--threads", type=int, default=None, help="CPU threads")
    return parser.parse_args()


def _bundle(plugins: Plugins, folder: Path) -> Bundle:
    tokenizer = load_tokenizer(plugins, folder)
    languages = {"de": 0, "en": 1, "fr": 2}
    description = ModelDescription(ModelOptions(), tokenizer.vocabulary(), languages, ("encoder",))
    torch.manual_seed(1)
    return Bundle(description, description.build_model({}).eval(), tokenizer, {}, folder)


def _ours(bundle: Bundle) -> Embed:
    embedder = Embedder(bundle, "en")
    return lambda texts: embedder.embed(embedder.encode(texts))


def _sentence_transformers(bundle: Bundle, folder: Path, texts: Sequence[str]) -> dict[str, Embed]:
    """`encode` of a BERT of the same size, at its best batch size, if it is installed."""
    try:
        from sentence_transformers import SentenceTransformer
        from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
        from transformers import BertConfig, BertModel
    except ImportError:
        return {}
    tokenizer = _their_tokenizer(folder)
    ours = bundle.tokenizer.encode_batch(texts).lengths.sum() + 2 * len(texts)
    theirs = sum(len(row) for row in tokenizer(list(texts))["input_ids"])
    if abs(theirs - ours) > 0.01 * ours:
        raise SystemExit(f"the tokenizers differ: {ours:,} and {theirs:,} tokens")
    torch.manual_seed(1)
    config = BertConfig(
        vocab_size=bundle.description.vocabulary.size, hidden_size=256, num_hidden_layers=4,
        num_attention_heads=8, intermediate_size=1024, max_position_embeddings=512,
        pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as saved:
        BertModel(config).save_pretrained(saved)
        tokenizer.save_pretrained(saved)
        model = SentenceTransformer(
            modules=[Transformer(saved), Pooling(256, pooling_mode="mean")], device="cpu"
        )

    def with_batches_of(size: int) -> Embed:
        return lambda texts: model.encode(
            list(texts), batch_size=size, show_progress_bar=False, convert_to_numpy=True
        )

    with_batches_of(BATCH_SIZES[0])(texts)  # warms up
    best = min(BATCH_SIZES, key=lambda size: _seconds(with_batches_of(size), texts))
    return {f"{THEIRS}, batches of {best}": with_batches_of(best)}


def _their_tokenizer(folder: Path) -> object:
    """Our SentencePiece vocabulary as a fast Hugging Face tokenizer."""
    import sentencepiece
    from tokenizers import Tokenizer, normalizers, pre_tokenizers, processors
    from tokenizers.models import Unigram
    from transformers import PreTrainedTokenizerFast

    (path,) = folder.glob("*.model")
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(path))
    scored = [(pieces.id_to_piece(i), pieces.get_score(i)) for i in range(len(pieces))]
    tokenizer = Tokenizer(Unigram(scored, unk_id=pieces.unk_id()))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    eos = ("</s>", pieces.piece_to_id("</s>"))
    tokenizer.post_processor = processors.BertProcessing(eos, eos)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", pad_token="<pad>", cls_token="</s>",
        sep_token="</s>", mask_token="<special1>", model_max_length=512,
    )  # fmt: skip


def _seconds(embed: Embed, texts: Sequence[str]) -> float:
    begin = time.perf_counter()
    embed(texts)
    return time.perf_counter() - begin


def _flop(lengths: np.ndarray) -> float:
    """FLOP of all products: 12 dim^2 weights per layer, and each token with its sentence.

    :param lengths: tokens of each sentence, both EOS included.  Shape: (n_sentences,)
    """
    dim, n_layers = 256, 4
    weights = 2 * 12 * dim**2 * lengths.sum()
    attention = 2 * 2 * dim * (lengths.astype(float) ** 2).sum()
    return float(n_layers * (weights + attention))


def _report(
    rates: dict[str, list[float]],
    peaks: dict[str, float],
    lengths: np.ndarray,
    arguments: argparse.Namespace,
) -> str:
    versions = f"torch {torch.__version__}"
    if len(rates) > 1:
        import sentence_transformers

        versions += f", {THEIRS} {sentence_transformers.__version__}"
    threads = "" if arguments.threads is None else f" --threads {arguments.threads}"
    ceiling = max(peaks.values()) / _flop(lengths) * len(lengths)
    lines = [
        "# Embedding sentences",
        "",
        f"`python benchmarks/embed.py --rounds {arguments.rounds} --sentences {len(lengths)}"
        f"{threads}`, {datetime.date.today()}, {versions}, {torch.get_num_threads()} threads, fp32 "
        f"matrix product {' and '.join(f'{r / 1e9:.0f} ({name})' for name, r in peaks.items())} "
        f"GFLOP/s; {len(lengths):,} sentences of {lengths.mean():.1f} tokens; median of "
        f"{arguments.rounds} interleaved rounds (quartiles).",
        "",
        "| | sentences/s | tokens/s | % of the ceiling | ours / theirs |",
        "|---|---|---|---|---|",
        *(_row(name, rates, ceiling, lengths.mean()) for name in rates),
        f"| ceiling | {ceiling:,.0f} | {ceiling * lengths.mean():,.0f} | 100 | |",
    ]
    return "\n".join(lines)


def _row(name: str, rates: dict[str, list[float]], ceiling: float, length: float) -> str:
    found, ours = rates[name], rates["ours"]
    ratio = ""
    if name != "ours":
        ratio = _spread([a / b for a, b in zip(ours, found, strict=True)], "{:.2f}")
    tokens = statistics.median(found) * length
    share = 100 * statistics.median(found) / ceiling
    return f"| {name} | {_spread(found, '{:,.0f}')} | {tokens:,.0f} | {share:.0f} | {ratio} |"


def _spread(values: list[float], form: str) -> str:
    first, middle, third = map(form.format, statistics.quantiles(values, n=4))
    return f"{middle} ({first} to {third})"


if __name__ == "__main__":
    main()
