"""What others call the weights of a stack, and how theirs become ours and ours theirs.

A weight of ours is one of theirs, or several laid end to end along the first axis: our projection
to queries, keys and values is three of theirs.  Imports and exports read the same tables.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from xlm_plugins.config.model import ModelOptions
from xlm_plugins.core.errors import BundleError
from xlm_plugins.core.selection import StackName

Names = dict[str, tuple[str, ...]]
"""Our name -> their names, in order."""

TOKENS = "encoder.embeddings.tokens.weight"
POSITIONS = "encoder.embeddings.positions.weight"
LANGUAGES = "encoder.embeddings.languages.weight"
OUTPUT_BIAS = "encoder.output.bias"

ACTIVATIONS = ("gelu", "relu")

# Modules with a weight and a bias; {} is the number of a layer.
_XLM = {
    "embeddings.norm": ("layer_norm_emb",),
    "layers.{}.attention.qkv": tuple(f"attentions.{{}}.{part}_lin" for part in "qkv"),
    "layers.{}.attention.output": ("attentions.{}.out_lin",),
    "layers.{}.attention_norm": ("layer_norm1.{}",),
    "layers.{}.feed_forward.expand": ("ffns.{}.lin1",),
    "layers.{}.feed_forward.contract": ("ffns.{}.lin2",),
    "layers.{}.feed_forward_norm": ("layer_norm2.{}",),
}
_XLM_DECODER = _XLM | {
    "layers.{}.source_attention.qkv": tuple(f"encoder_attn.{{}}.{part}_lin" for part in "qkv"),
    "layers.{}.source_attention.output": ("encoder_attn.{}.out_lin",),
    "layers.{}.source_attention_norm": ("layer_norm15.{}",),
}
_ROBERTA = {
    "embeddings.norm": ("embeddings.LayerNorm",),
    "layers.{}.attention.qkv": tuple(
        f"encoder.layer.{{}}.attention.self.{part}" for part in ("query", "key", "value")
    ),
    "layers.{}.attention.output": ("encoder.layer.{}.attention.output.dense",),
    "layers.{}.attention_norm": ("encoder.layer.{}.attention.output.LayerNorm",),
    "layers.{}.feed_forward.expand": ("encoder.layer.{}.intermediate.dense",),
    "layers.{}.feed_forward.contract": ("encoder.layer.{}.output.dense",),
    "layers.{}.feed_forward_norm": ("encoder.layer.{}.output.LayerNorm",),
}
_FAIRSEQ = {
    "layers.{}.attention.qkv": tuple(f"layers.{{}}.self_attn.{part}_proj" for part in "qkv"),
    "layers.{}.attention.output": ("layers.{}.self_attn.out_proj",),
    "layers.{}.attention_norm": ("layers.{}.self_attn_layer_norm",),
    "layers.{}.feed_forward.expand": ("layers.{}.fc1",),
    "layers.{}.feed_forward.contract": ("layers.{}.fc2",),
    "layers.{}.feed_forward_norm": ("layers.{}.final_layer_norm",),
}
_ROBERTA_HEAD = {"output.dense": ("dense",), "output.norm": ("layer_norm",)}


def xlm_names(
    options: ModelOptions,
    n_languages: int,
    base: str = "",
    stack: StackName = "encoder",
) -> Names:
    """XLM's names, which transformers' ``XLMModel`` kept; without product-key memories.

    :param base: before each name of a stack but its output layer's, such as ``transformer.``.
    """
    names = _expanded(_XLM if stack == "encoder" else _XLM_DECODER, options, base)
    names["embeddings.tokens.weight"] = (f"{base}embeddings.weight",)
    if options.position_embeddings == "learned":
        names["embeddings.positions.weight"] = (f"{base}position_embeddings.weight",)
    if options.language_embeddings and n_languages > 1:
        names["embeddings.languages.weight"] = (f"{base}lang_embeddings.weight",)
    head = "pred_layer.proj."
    if options.adaptive_cutoffs:
        tails = [f"tail.{n}.{i}.weight" for n in range(len(options.adaptive_cutoffs)) for i in "01"]
        for name in ("head.weight", "head.bias", *tails):
            names[f"output.adaptive.{name}"] = (head + name,)
        return _of(stack, names)
    return _of(stack, names | _output(options, f"{head}weight", f"{head}bias"))


def roberta_names(options: ModelOptions, base: str) -> Names:
    """transformers' names of RoBERTa and XLM-R.  (The table of positions is longer there.)

    :param base: before each name of the encoder: ``roberta.``, or nothing.
    """
    names = _expanded(_ROBERTA, options, base)
    names["embeddings.tokens.weight"] = (f"{base}embeddings.word_embeddings.weight",)
    names["embeddings.positions.weight"] = (f"{base}embeddings.position_embeddings.weight",)
    return _of("encoder", names | _roberta_head(options, "lm_head.", "lm_head.decoder.weight"))


def fairseq_names(options: ModelOptions, base: str, norm: str) -> Names:
    """fairseq's names of RoBERTa and XLM-R.

    :param base: before each name of the encoder, ``encoder.sentence_encoder.``.
    :param norm: the name of the LayerNorm behind the embeddings.
    """
    names = _expanded({"embeddings.norm": (norm,)} | _FAIRSEQ, options, base)
    names["embeddings.tokens.weight"] = (f"{base}embed_tokens.weight",)
    names["embeddings.positions.weight"] = (f"{base}embed_positions.weight",)
    head = "encoder.lm_head."
    return _of("encoder", names | _roberta_head(options, head, f"{head}weight"))


def theirs_as_ours(
    names: Names, theirs: Mapping[str, Tensor], what: str, supported: str
) -> dict[str, Tensor]:
    """Weights by our names; none of theirs may be missing, and none would be lost.

    :param theirs: without what is no weight of ours, such as buffers.
    :param what: what the error calls the model.
    :param supported: what can be imported.
    :raises BundleError: names the first that is missing or has no place.
    """
    taken = {name for parts in names.values() for name in parts}
    faults = [f"lacks the weight {name!r}" for name in sorted(taken - theirs.keys())]
    lost = sorted(theirs.keys() - taken)
    faults += [f"has a weight {name!r}, which has no place here" for name in lost]
    if faults:
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        raise BundleError(f"{what} {faults[0]}{more}", expected=supported)
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


def _expanded(table: Mapping[str, tuple[str, ...]], options: ModelOptions, base: str) -> Names:
    """The weight and the bias of each module of a table, in every layer."""
    return {
        f"{own.format(index)}.{kind}": tuple(f"{base}{part.format(index)}.{kind}" for part in parts)
        for own, parts in table.items()
        for index in (range(options.n_layers) if "{}" in own else (0,))
        for kind in ("weight", "bias")
    }


def _output(options: ModelOptions, weight: str, bias: str) -> Names:
    """A plain output layer; where it is tied, its weight is the token embedding's."""
    names: Names = {"output.bias": (bias,)}
    if not options.tied_output:
        names["output.weight"] = (weight,)
    return names


def _roberta_head(options: ModelOptions, head: str, weight: str) -> Names:
    """RoBERTa's head; a model without one has none of these names."""
    if not options.output_dense:
        return {}
    return _expanded(_ROBERTA_HEAD, options, head) | _output(options, weight, f"{head}bias")


def _of(stack: StackName, names: Names) -> Names:
    return {f"{stack}.{own}": theirs for own, theirs in names.items()}


def positions_from_pad(table: Tensor, pad: int, types: Tensor | None = None) -> Tensor:
    """RoBERTa's table of positions as ours: its first position is row ``pad + 1``.

    :param table: shape (n_positions + pad + 1, dim).
    :param types: the table of token types, of which every token has the first; it is added.
        Shape: (n_types, dim)
    :returns: shape (n_positions, dim).
    """
    own = table[pad + 1 :]
    # Where the type says nothing, as in all published models, not even rounding is left behind.
    return own if types is None or not types[0].any() else own + types[0]
