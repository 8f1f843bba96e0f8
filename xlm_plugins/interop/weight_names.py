"""The names of a stack's weights: ours, XLM's, and RoBERTa's in transformers and in fairseq.

One of our weights is one of theirs, or several concatenated along the first axis: our projection
to queries, keys and values is three of theirs.  Imports and exports read the same table.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

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

# The modules of a layer: ours, XLM's, RoBERTa's in transformers, and in fairseq.  {} stands for
# the number of the layer, and * for queries, keys and values.
_LAYER = (
    ("attention.qkv", "attentions.{}.*_lin", "attention.self.*", "self_attn.*_proj"),
    ("attention.output", "attentions.{}.out_lin", "attention.output.dense", "self_attn.out_proj"),
    ("attention_norm", "layer_norm1.{}", "attention.output.LayerNorm", "self_attn_layer_norm"),
    ("feed_forward.expand", "ffns.{}.lin1", "intermediate.dense", "fc1"),
    ("feed_forward.contract", "ffns.{}.lin2", "output.dense", "fc2"),
    ("feed_forward_norm", "layer_norm2.{}", "output.LayerNorm", "final_layer_norm"),
)
# Those of a layer that attends to a source, too: ours and XLM's.
_SOURCE_ATTENTION = (
    ("source_attention.qkv", "encoder_attn.{}.*_lin"),
    ("source_attention.output", "encoder_attn.{}.out_lin"),
    ("source_attention_norm", "layer_norm15.{}"),
)


def xlm_names(
    options: ModelOptions, n_languages: int, base: str = "", stack: StackName = "encoder"
) -> Names:
    """XLM's names, which ``XLMModel`` of transformers keeps; without product-key memories.

    :param base: prefix of all names of the stack but its output layer's, such as ``transformer.``.
    """
    rows = _LAYER if stack == "encoder" else (*_LAYER, *_SOURCE_ATTENTION)
    names = _layers(options, ((row[0], row[1]) for row in rows), base, "qkv")
    names |= _module("embeddings.norm", f"{base}layer_norm_emb")
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
    """transformers' names of RoBERTa and XLM-R, whose table of positions is longer than ours.

    :param base: prefix of the encoder's names: ``roberta.``, or nothing.
    """
    rows = ((row[0], row[2]) for row in _LAYER)
    names = _layers(options, rows, f"{base}encoder.layer.{{}}.", ("query", "key", "value"))
    names |= _module("embeddings.norm", f"{base}embeddings.LayerNorm")
    names["embeddings.tokens.weight"] = (f"{base}embeddings.word_embeddings.weight",)
    names["embeddings.positions.weight"] = (f"{base}embeddings.position_embeddings.weight",)
    return _of("encoder", names | _roberta_head(options, "lm_head.", "lm_head.decoder.weight"))


def fairseq_names(options: ModelOptions, base: str, norm: str) -> Names:
    """fairseq's names of RoBERTa and XLM-R.

    :param base: prefix of the encoder's names, ``encoder.sentence_encoder.``.
    :param norm: the name of the LayerNorm that follows the embeddings.
    """
    names = _layers(options, ((row[0], row[3]) for row in _LAYER), f"{base}layers.{{}}.", "qkv")
    names |= _module("embeddings.norm", f"{base}{norm}")
    names["embeddings.tokens.weight"] = (f"{base}embed_tokens.weight",)
    names["embeddings.positions.weight"] = (f"{base}embed_positions.weight",)
    head = "encoder.lm_head."
    return _of("encoder", names | _roberta_head(options, head, f"{head}weight"))


def import_weights(
    names: Names, theirs: Mapping[str, Tensor], what: str, supported: str
) -> dict[str, Tensor]:
    """Weights by our names; none of theirs may be missing or left over.

    :param theirs: by their names, without anything that we have no weight for, such as buffers.
    :param what: what the error calls the model.
    :param supported: what can be imported.
    :raises BundleError: names the first that is missing or left over.
    """
    used = {name for parts in names.values() for name in parts}
    faults = [f"lacks the weight {name!r}" for name in sorted(used - theirs.keys())]
    unused = sorted(theirs.keys() - used)
    faults += [f"has a weight {name!r}, which has no counterpart here" for name in unused]
    if faults:
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        raise BundleError(f"{what} {faults[0]}{more}", expected=supported)
    return {
        own: torch.cat([theirs[name] for name in parts]) if len(parts) > 1 else theirs[parts[0]]
        for own, parts in names.items()
    }


def export_weights(names: Names, ours: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights by their names; the inverse of `import_weights`."""
    theirs: dict[str, Tensor] = {}
    for own, parts in names.items():
        theirs.update(zip(parts, ours[own].detach().chunk(len(parts)), strict=True))
    return theirs


def positions_from_pad(table: Tensor, pad: int, types: Tensor | None = None) -> Tensor:
    """RoBERTa's table of positions as ours: its first position is row ``pad + 1``.

    :param table: shape (n_positions + pad + 1, dim).
    :param types: the table of token types, whose first row is added, as every token has that type.
        Shape: (n_types, dim)
    :returns: shape (n_positions, dim).
    """
    own = table[pad + 1 :]
    # All published models have zeros there; not adding them avoids even rounding.
    return own if types is None or not types[0].any() else own + types[0]


def _layers(
    options: ModelOptions, rows: Iterable[tuple[str, str]], prefix: str, qkv: Sequence[str]
) -> Names:
    """The modules of all layers.

    :param rows: our name and theirs, as in the table.
    :param prefix: of their names.
    :param qkv: what ``*`` stands for.
    """
    names: Names = {}
    for own, theirs in rows:
        for index in range(options.n_layers):
            name = (prefix + theirs).format(index)
            parts = [name.replace("*", part) for part in qkv] if "*" in name else [name]
            names |= _module(f"layers.{index}.{own}", *parts)
    return names


def _module(own: str, *theirs: str) -> Names:
    """The weight and the bias of a module."""
    return {
        f"{own}.{kind}": tuple(f"{name}.{kind}" for name in theirs) for kind in ("weight", "bias")
    }


def _output(options: ModelOptions, weight: str, bias: str) -> Names:
    """A plain output layer; if it is tied, its weight is the token embedding's."""
    names: Names = {"output.bias": (bias,)}
    if not options.tied_output:
        names["output.weight"] = (weight,)
    return names


def _roberta_head(options: ModelOptions, head: str, weight: str) -> Names:
    """RoBERTa's head; empty for a model without one."""
    if not options.output_dense:
        return {}
    names = _module("output.dense", f"{head}dense") | _module("output.norm", f"{head}layer_norm")
    return names | _output(options, weight, f"{head}bias")


def _of(stack: StackName, names: Names) -> Names:
    return {f"{stack}.{own}": theirs for own, theirs in names.items()}
