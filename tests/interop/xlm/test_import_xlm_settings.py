"""An imported model computes what plain torch computes from the same checkpoint.

The golden files of the reference show few settings; these are the others.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from xlm_plugins.contracts.batch import Batch, pack
from xlm_plugins.contracts.ragged import Ragged
from xlm_plugins.core.plugins import Plugins
from xlm_plugins.interop.xlm.importing import import_xlm
from xlm_plugins.model.bundle import Bundle
from xlm_plugins.model.nn.transformer import Source

TOLERANCE = {"rtol": 0.0, "atol": 1e-5}
ASM = {"asm": True, "asm_cutoffs": [20, 40], "asm_div_value": 2}
SETTINGS: dict[str, dict[str, Any]] = {
    "as most": {},
    "adaptive softmax": ASM,
    "sinusoidal with ReLU": {"sinusoidal_embeddings": True, "gelu_activation": False},
    "untied without language embeddings": {"share_inout_emb": False, "use_lang_emb": False},
    "one language": {"languages": ("en",)},
    "encoder and decoder": {"decoder": True},
    "all at once": {
        **ASM,
        "decoder": True,
        "languages": ("de", "en", "fr"),
        "sinusoidal_embeddings": True,
        "gelu_activation": False,
        "use_lang_emb": False,
    },
}

Checkpoint = dict[str, Any]
Weights = Mapping[str, Tensor]


class Reference:
    """One stack, rewritten from the description of the architecture.

    One sentence at a time: tokens of shape (length,), states of shape (length, dim).
    """

    def __init__(self, weights: Weights, params: Mapping[str, Any]) -> None:
        self.weights = weights
        self.params = params

    def states(
        self, tokens: Tensor, language: int, *, causal: bool = False, source: Tensor | None = None
    ) -> Tensor:
        x = self.weights["embeddings.weight"][tokens]
        x = x + self.weights["position_embeddings.weight"][: len(tokens)]
        if "lang_embeddings.weight" in self.weights:
            x = x + self.weights["lang_embeddings.weight"][language]
        x = self.norm("layer_norm_emb", x)
        activation = functional.gelu if self.params["gelu_activation"] else functional.relu
        for n in range(self.params["n_layers"]):
            x = self.norm(f"layer_norm1.{n}", x + self.attend(f"attentions.{n}", x, x, causal))
            if source is not None:
                read = self.attend(f"encoder_attn.{n}", x, source, False)
                x = self.norm(f"layer_norm15.{n}", x + read)
            wide = activation(self.linear(f"ffns.{n}.lin1", x))
            x = self.norm(f"layer_norm2.{n}", x + self.linear(f"ffns.{n}.lin2", wide))
        return x

    def attend(self, name: str, x: Tensor, to: Tensor, causal: bool) -> Tensor:
        heads = self.params["n_heads"]
        q, k, v = (
            self.linear(f"{name}.{part}_lin", rows).view(len(rows), heads, -1).transpose(0, 1)
            for part, rows in (("q", x), ("k", to), ("v", to))
        )
        scores = q @ k.transpose(1, 2) / math.sqrt(q.shape[-1])
        if causal:
            future = torch.ones(len(x), len(x), dtype=torch.bool).triu(1)
            scores = scores.masked_fill(future, -math.inf)
        read = (scores.softmax(-1) @ v).transpose(0, 1).reshape(len(x), -1)
        return self.linear(f"{name}.out_lin", read)

    def scores(self, states: Tensor) -> Tensor:
        if not self.params.get("asm"):
            return self.linear("pred_layer.proj", states)
        cutoffs = self.params["asm_cutoffs"]
        head = self.linear("pred_layer.proj.head", states).log_softmax(-1)
        parts = [head[:, : cutoffs[0]]]
        for n in range(len(cutoffs)):
            narrow = states @ self.weights[f"pred_layer.proj.tail.{n}.0.weight"].T
            within = (narrow @ self.weights[f"pred_layer.proj.tail.{n}.1.weight"].T).log_softmax(-1)
            parts.append(head[:, cutoffs[0] + n, None] + within)
        return torch.cat(parts, 1)

    def linear(self, name: str, x: Tensor) -> Tensor:
        return x @ self.weights[f"{name}.weight"].T + self.weights[f"{name}.bias"]

    def norm(self, name: str, x: Tensor) -> Tensor:
        weight, bias = self.weights[f"{name}.weight"], self.weights[f"{name}.bias"]
        return functional.layer_norm(x, x.shape[-1:], weight, bias, eps=1e-12)


def batch_of(sentences: list[list[int]], language: int) -> Batch:
    rows, nothing = Ragged.of(sentences), np.empty(0, np.int64)
    numbers = np.arange(len(sentences))
    return pack(rows, rows.positions(), rows.filled(language), nothing, nothing, numbers)


SENTENCES = [[1, 20, 33, 1], [1, 5, 59, 14, 3, 40, 41, 39, 18, 1], [1, 1]]


@pytest.fixture
def imported(saved: Callable[..., Path], tmp_path: Path) -> Callable[..., Bundle]:
    def imported(content: Checkpoint, **options: Any) -> Bundle:
        out, plugins = tmp_path / "out", Plugins.discover()
        import_xlm(saved(content, **options), out, plugins)
        return Bundle.load(out, plugins)

    return imported


@torch.inference_mode()
def assert_alike(bundle: Bundle, content: Checkpoint) -> None:
    """Compare every stack's states and scores with the plain computation."""
    params, language = content["params"], len(content["params"]["lang2id"]) - 1
    reference = Reference(content.get("model") or content["encoder"], params)
    batch = batch_of(SENTENCES, language)
    states = bundle.model.stack("encoder")(batch)
    expected = [reference.states(torch.tensor(row), language) for row in SENTENCES]
    torch.testing.assert_close(states, torch.cat(expected), **TOLERANCE)
    scores = bundle.model.stack("encoder").scores(states)
    torch.testing.assert_close(scores, reference.scores(torch.cat(expected)), **TOLERANCE)
    if "decoder" in content:
        decoder = Reference(content["decoder"], params)
        source = Source(states, batch.offsets)
        written = [[1, 30, 31], [1, 58, 20, 44, 45], [1]]
        states = bundle.model.stack("decoder")(batch_of(written, 0), causal=True, source=source)
        expected = [
            decoder.states(torch.tensor(row), 0, causal=True, source=read)
            for row, read in zip(written, expected, strict=True)
        ]
        torch.testing.assert_close(states, torch.cat(expected), **TOLERANCE)
        scores = bundle.model.stack("decoder").scores(states)
        torch.testing.assert_close(scores, decoder.scores(torch.cat(expected)), **TOLERANCE)


@pytest.mark.parametrize("setting", SETTINGS)
def test_states_and_scores(
    setting: str, imported: Callable[..., Bundle], xlm_checkpoint: Callable[..., Checkpoint]
) -> None:
    content = xlm_checkpoint(**SETTINGS[setting])
    assert_alike(imported(content), content)


def test_a_causal_encoder(
    imported: Callable[..., Bundle], xlm_checkpoint: Callable[..., Checkpoint]
) -> None:
    content = xlm_checkpoint(clm_steps=[("en", None)])
    with torch.inference_mode():
        states = imported(content).model.stack("encoder")(batch_of(SENTENCES, 1), causal=True)
    reference = Reference(content["model"], content["params"])
    expected = [reference.states(torch.tensor(row), 1, causal=True) for row in SENTENCES]
    torch.testing.assert_close(states, torch.cat(expected), **TOLERANCE)


def test_names_with_the_prefix_of_a_wrapper(
    imported: Callable[..., Bundle], xlm_checkpoint: Callable[..., Checkpoint]
) -> None:
    content = xlm_checkpoint(decoder=True)
    wrapped = {
        stack: {f"module.{name}": tensor for name, tensor in content[stack].items()}
        for stack in ("encoder", "decoder")
    }
    assert_alike(imported({**content, **wrapped}), content)


def test_a_file_of_the_old_format_and_weights_in_half_precision(
    imported: Callable[..., Bundle], xlm_checkpoint: Callable[..., Checkpoint]
) -> None:
    content = xlm_checkpoint()
    halved = {name: tensor.half() for name, tensor in content["model"].items()}
    bundle = imported({**content, "model": halved}, _use_new_zipfile_serialization=False)
    single = {name: tensor.float() for name, tensor in halved.items()}
    assert_alike(bundle, {**content, "model": single})


def test_params_as_a_namespace_and_without_what_came_later(
    imported: Callable[..., Bundle], xlm_checkpoint: Callable[..., Checkpoint]
) -> None:
    """The first published checkpoints have neither memories nor use_lang_emb."""
    import argparse

    content = xlm_checkpoint()
    params = argparse.Namespace(**content["params"], lambda_mlm="1", n_langs=2)
    assert_alike(imported({**content, "params": params}), content)
