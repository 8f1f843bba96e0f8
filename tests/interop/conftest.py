"""Fixtures for tests of imports: random checkpoints in the format of the original XLM code."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

SPECIALS = ["<s>", "</s>", "<pad>", "<unk>", *(f"<special{i}>" for i in range(10))]
PARAMS = {
    "emb_dim": 16,
    "n_layers": 2,
    "n_heads": 4,
    "gelu_activation": True,
    "attention_dropout": 0.1,
}


@pytest.fixture(scope="session")
def xlm_checkpoint() -> Callable[..., dict[str, Any]]:
    """Make the content of a checkpoint, with random but reproducible weights.

    ``xlm_checkpoint(languages=("en",), n_words=40, decoder=True, asm=True)``: the languages, the
    size of the vocabulary, whether there is a decoder, and params of the run.
    """
    import torch

    def checkpoint(
        *,
        languages: tuple[str, ...] = ("en", "fr"),
        n_words: int = 60,
        n_positions: int = 24,
        decoder: bool = False,
        **params: Any,
    ) -> dict[str, Any]:
        torch.manual_seed(3)
        params = {**PARAMS, **params, "lang2id": {code: n for n, code in enumerate(languages)}}
        stacks = ("encoder", "decoder") if decoder else ("model",)
        words = [*SPECIALS, *(f"w{n}" + "@@" * (n % 3 == 0) for n in range(14, n_words))]
        return {
            **{
                stack: stack_of(params, n_words, n_positions, stack == "decoder")
                for stack in stacks
            },
            "params": params,
            "dico_id2word": dict(enumerate(words)),
            "dico_word2id": {word: n for n, word in enumerate(words)},
            "dico_counts": {
                word: max(0, 1000 - n) if n > 13 else 0 for n, word in enumerate(words)
            },
        }

    return checkpoint


def stack_of(
    params: dict[str, Any], n_words: int, n_positions: int, decoder: bool
) -> dict[str, Any]:
    """The weights of one stack; they are far from initial values."""
    import torch
    from torch import nn

    dim, n_layers, n_languages = params["emb_dim"], params["n_layers"], len(params["lang2id"])
    modules = nn.ModuleDict(
        {
            "position_embeddings": nn.Embedding(n_positions, dim),
            "embeddings": nn.Embedding(n_words, dim),
            "layer_norm_emb": nn.LayerNorm(dim),
            "attentions": layers(n_layers, attention, dim),
            "layer_norm1": layers(n_layers, nn.LayerNorm, dim),
            "ffns": layers(n_layers, feed_forward, dim),
            "layer_norm2": layers(n_layers, nn.LayerNorm, dim),
        }
    )
    if n_languages > 1 and params.get("use_lang_emb", True):
        modules["lang_embeddings"] = nn.Embedding(n_languages, dim)
    if decoder:
        modules["encoder_attn"] = layers(n_layers, attention, dim)
        modules["layer_norm15"] = layers(n_layers, nn.LayerNorm, dim)
    modules["pred_layer"] = nn.ModuleDict({"proj": output(params, n_words)})
    weights = modules.state_dict()
    for tensor in weights.values():
        tensor += 0.1 * torch.randn_like(tensor)
    if params.get("sinusoidal_embeddings"):
        weights["position_embeddings.weight"] = sinusoids(n_positions, dim)
    if params.get("share_inout_emb", True) and not params.get("asm"):
        weights["pred_layer.proj.weight"] = weights["embeddings.weight"]
    return weights


def layers(n_layers: int, kind: Callable[[int], Any], dim: int) -> Any:
    from torch import nn

    return nn.ModuleList(kind(dim) for _ in range(n_layers))


def attention(dim: int) -> Any:
    from torch import nn

    return nn.ModuleDict({f"{part}_lin": nn.Linear(dim, dim) for part in ("q", "k", "v", "out")})


def feed_forward(dim: int) -> Any:
    from torch import nn

    return nn.ModuleDict({"lin1": nn.Linear(dim, 4 * dim), "lin2": nn.Linear(4 * dim, dim)})


def output(params: dict[str, Any], n_words: int) -> Any:
    from torch import nn

    if not params.get("asm"):
        return nn.Linear(params["emb_dim"], n_words)
    cutoffs, div_value = params["asm_cutoffs"], params.get("asm_div_value", 4)
    return nn.AdaptiveLogSoftmaxWithLoss(
        params["emb_dim"], n_words, cutoffs, div_value=div_value, head_bias=True
    )


def sinusoids(n_positions: int, dim: int) -> Any:
    """Sines at even indices, cosines at odd ones (arXiv 1706.03762, section 3.5)."""
    import math

    import torch

    rows = [
        [(math.cos if i % 2 else math.sin)(at / 10000 ** (2 * (i // 2) / dim)) for i in range(dim)]
        for at in range(n_positions)
    ]
    return torch.tensor(rows)


@pytest.fixture
def saved(tmp_path: Path) -> Callable[..., Path]:
    """Save a checkpoint with torch, by default in the current format."""
    import torch

    def saved(content: Any, **options: Any) -> Path:
        path = tmp_path / "checkpoint.pth"
        torch.save(content, path, **options)
        return path

    return saved
