"""What others call the weights of an encoder, and how theirs become ours and ours theirs.

A weight of ours is one of theirs, or several laid end to end along the first axis: our projection
to queries, keys and values is three of theirs.  The same table serves both ways.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from xlm_plugins.model.config import ModelOptions

Names = dict[str, tuple[str, ...]]
"""Our name -> their names, in order."""

POSITIONS = "encoder.embeddings.positions.weight"
LANGUAGES = "encoder.embeddings.languages.weight"
OUTPUT_BIAS = "encoder.output.bias"

_KINDS = ("weight", "bias")
_XLM_LAYER = {
    "attention.qkv": tuple(f"attentions.{{}}.{part}_lin" for part in "qkv"),
    "attention.output": ("attentions.{}.out_lin",),
    "attention_norm": ("layer_norm1.{}",),
    "feed_forward.expand": ("ffns.{}.lin1",),
    "feed_forward.contract": ("ffns.{}.lin2",),
    "feed_forward_norm": ("layer_norm2.{}",),
}
_ROBERTA_LAYER = {
    "attention.qkv": tuple(
        f"encoder.layer.{{}}.attention.self.{part}" for part in ("query", "key", "value")
    ),
    "attention.output": ("encoder.layer.{}.attention.output.dense",),
    "attention_norm": ("encoder.layer.{}.attention.output.LayerNorm",),
    "feed_forward.expand": ("encoder.layer.{}.intermediate.dense",),
    "feed_forward.contract": ("encoder.layer.{}.output.dense",),
    "feed_forward_norm": ("encoder.layer.{}.output.LayerNorm",),
}
_FAIRSEQ_LAYER = {
    "attention.qkv": tuple(f"layers.{{}}.self_attn.{part}_proj" for part in "qkv"),
    "attention.output": ("layers.{}.self_attn.out_proj",),
    "attention_norm": ("layers.{}.self_attn_layer_norm",),
    "feed_forward.expand": ("layers.{}.fc1",),
    "feed_forward.contract": ("layers.{}.fc2",),
    "feed_forward_norm": ("layers.{}.final_layer_norm",),
}


def xlm_names(options: ModelOptions, n_languages: int, base: str, head: str) -> Names:
    """XLM's names, which transformers' ``XLMModel`` kept.

    :param base: before each name of the encoder, such as ``transformer.``.
    :param head: before each name of the output layer, such as ``pred_layer.proj.``.
    """
    names = _layers(options, _XLM_LAYER, base)
    names["encoder.embeddings.tokens.weight"] = (f"{base}embeddings.weight",)
    if options.position_embeddings == "learned":
        names[POSITIONS] = (f"{base}position_embeddings.weight",)
    if options.language_embeddings and n_languages > 1:
        names[LANGUAGES] = (f"{base}lang_embeddings.weight",)
    names |= _both("encoder.embeddings.norm", (f"{base}layer_norm_emb",))
    return names | _output(options, head)


def roberta_names(options: ModelOptions, base: str) -> Names:
    """transformers' names of RoBERTa and XLM-R.  (The table of positions is longer there.)

    :param base: before each name of the encoder: ``roberta.``, or nothing.
    """
    names = _layers(options, _ROBERTA_LAYER, base)
    names["encoder.embeddings.tokens.weight"] = (f"{base}embeddings.word_embeddings.weight",)
    names[POSITIONS] = (f"{base}embeddings.position_embeddings.weight",)
    names |= _both("encoder.embeddings.norm", (f"{base}embeddings.LayerNorm",))
    return names | _roberta_head(options, "lm_head.", "decoder.weight")


def fairseq_names(options: ModelOptions, base: str, norm: str) -> Names:
    """fairseq's names of RoBERTa and XLM-R.

    :param base: before each name of the encoder, ``encoder.sentence_encoder.``.
    :param norm: the name of the LayerNorm behind the embeddings.
    """
    names = _layers(options, _FAIRSEQ_LAYER, base)
    names["encoder.embeddings.tokens.weight"] = (f"{base}embed_tokens.weight",)
    names[POSITIONS] = (f"{base}embed_positions.weight",)
    names |= _both("encoder.embeddings.norm", (base + norm,))
    return names | _roberta_head(options, "encoder.lm_head.", "weight")


def theirs_as_ours(names: Names, theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights by our names.

    :raises KeyError: one of theirs is missing, by its name.
    """
    return {
        own: torch.cat([theirs[name] for name in parts]) if len(parts) > 1 else theirs[parts[0]]
        for own, parts in names.items()
    }


def ours_as_theirs(names: Names, ours: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights by their names; the inverse of `theirs_as_ours`."""
    theirs: dict[str, Tensor] = {}
    for own, parts in names.items():
        theirs.update(zip(parts, ours[own].detach().chunk(len(parts)), strict=True))
    return theirs


def left_over(names: Names, theirs: Iterable[str]) -> list[str]:
    """Names of theirs that no weight of ours takes in."""
    taken = {name for parts in names.values() for name in parts}
    return sorted(name for name in theirs if name not in taken)


def _layers(options: ModelOptions, table: Mapping[str, tuple[str, ...]], base: str) -> Names:
    names: Names = {}
    for index in range(options.n_layers):
        for own, parts in table.items():
            theirs = tuple(base + part.format(index) for part in parts)
            names |= _both(f"encoder.layers.{index}.{own}", theirs)
    return names


def _both(own: str, parts: tuple[str, ...]) -> Names:
    """A module's weight and bias."""
    return {f"{own}.{kind}": tuple(f"{part}.{kind}" for part in parts) for kind in _KINDS}


def _output(options: ModelOptions, head: str) -> Names:
    """XLM's output layer, plain or adaptive."""
    if options.adaptive_cutoffs:
        own = ["head.weight", "head.bias"]
        own += [
            f"tail.{n}.{i}.weight" for n in range(len(options.adaptive_cutoffs)) for i in (0, 1)
        ]
        return {f"encoder.output.adaptive.{name}": (head + name,) for name in own}
    names: Names = {OUTPUT_BIAS: (f"{head}bias",)}
    if not options.tied_output:
        names["encoder.output.weight"] = (f"{head}weight",)
    return names


def _roberta_head(options: ModelOptions, head: str, own_weight: str) -> Names:
    """RoBERTa's head; a model without one has none of these names."""
    if not options.output_dense:
        return {}
    names = _both("encoder.output.dense", (f"{head}dense",))
    names |= _both("encoder.output.norm", (f"{head}layer_norm",))
    names[OUTPUT_BIAS] = (f"{head}bias",)
    if not options.tied_output:
        names["encoder.output.weight"] = (f"{head}{own_weight}",)
    return names
