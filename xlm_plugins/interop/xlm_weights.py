"""What XLM calls its weights, and what our stacks call them."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from xlm_plugins.core.errors import BundleError
from xlm_plugins.model.config import ModelOptions
from xlm_plugins.model.embeddings import SinusoidalPositions

SUPPORTED = (
    "XLM's transformer: an encoder, or an encoder and a decoder; learned or sinusoidal positions; "
    "GELU or ReLU; a tied, an untied or an adaptive output layer; product-key memories"
)
SINUSOIDS_DIFFER = 1e-3
"""Tables of sinusoids differ by rounding, and by no more than this."""

_NAMES = {
    r"embeddings\.": "embeddings.tokens.",
    r"position_embeddings\.": "embeddings.positions.",
    r"lang_embeddings\.": "embeddings.languages.",
    r"layer_norm_emb\.": "embeddings.norm.",
    r"attentions\.(\d+)\.out_lin\.": r"layers.\1.attention.output.",
    r"layer_norm1\.(\d+)\.": r"layers.\1.attention_norm.",
    r"encoder_attn\.(\d+)\.out_lin\.": r"layers.\1.source_attention.output.",
    r"layer_norm15\.(\d+)\.": r"layers.\1.source_attention_norm.",
    r"ffns\.(\d+)\.lin1\.": r"layers.\1.feed_forward.expand.",
    r"ffns\.(\d+)\.lin2\.": r"layers.\1.feed_forward.contract.",
    r"layer_norm2\.(\d+)\.": r"layers.\1.feed_forward_norm.",
    r"memories\.(\d+)_in\.": r"layers.\1.feed_forward.",
    r"memories\.(\d+)_after\.": r"layers.\1.after.",
    r"pred_layer\.proj\.(?=head|tail)": "output.adaptive.",
    r"pred_layer\.proj\.": "output.",
}
_PROJECTION = re.compile(r"(attentions|encoder_attn)\.(\d+)\.([qkv])_lin\.(weight|bias)")
_ATTENTION = {"attentions": "attention", "encoder_attn": "source_attention"}
_QUERY = re.compile(r"query_proj\.query_mlps\.0\.(?:(\d+)\.)?")


def renamed(theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """One stack's weights, or gradients, under our names: queries, keys and values in one.

    :raises BundleError: a weight that XLM's transformer does not have.
    """
    ours: dict[str, Tensor] = {}
    projections: dict[str, dict[str, Tensor]] = {}
    for name, tensor in theirs.items():
        if match := _PROJECTION.fullmatch(name):
            which, index, part, kind = match.groups()
            whole = f"layers.{index}.{_ATTENTION[which]}.qkv.{kind}"
            projections.setdefault(whole, {})[part] = tensor
        else:
            ours[_renamed(name, theirs)] = tensor
    for name, parts in projections.items():
        if missing := set("qkv") - set(parts):
            raise BundleError(f"the checkpoint has no {min(missing)}_lin beside {name}")
        ours[name] = torch.cat([parts[part] for part in "qkv"])
    return ours


def _renamed(name: str, theirs: Mapping[str, Tensor]) -> str:
    for pattern, replacement in _NAMES.items():
        if match := re.match(pattern, name):
            rest = name[match.end() :]
            if name.startswith("memories."):
                rest = _memory_name(name[: match.end()], rest, theirs)
            return match.expand(replacement) + rest
    raise BundleError(
        f"the checkpoint has a weight {name!r}: its architecture is not supported",
        expected=SUPPORTED,
    )


def _memory_name(prefix: str, name: str, theirs: Mapping[str, Tensor]) -> str:
    """A memory's own weight; a query network is one linear layer, or numbered parts."""
    if name == "values.weight":
        return "values"
    match = _QUERY.match(name)
    if not match:
        return name
    rest = name[match.end() :]
    if match[1] is None:
        return f"query.{rest}"
    numbered = [
        int(part[1])
        for other, tensor in theirs.items()
        if other.startswith(prefix) and other.endswith(".weight") and tensor.dim() == 2
        if (part := _QUERY.match(other.removeprefix(prefix))) and part[1]
    ]
    number, last = int(match[1]), max(numbered, default=0)  # the last linear layer gives queries
    if number < last:
        return f"query_hidden.{number}.{rest}"
    return f"query.{rest}" if number == last else f"query_norm.{rest}"


def stack_weights(
    theirs: Mapping[str, Tensor], options: ModelOptions, stack: str
) -> dict[str, Tensor]:
    """The weights of a stack as our model saves them: without what it computes or shares.

    :param stack: what the errors call it, and what stands before each name.
    :raises BundleError: the weights are not what the options say.
    """
    ours = renamed(theirs)
    if options.position_embeddings == "sinusoidal":
        _check_sinusoids(ours.pop("embeddings.positions.weight", None), options, stack)
    if options.adaptive_cutoffs:
        ours.pop("output.weight", None)
    elif options.tied_output:
        _check_tied(ours.pop("output.weight", None), ours.get("embeddings.tokens.weight"), stack)
    return {f"{stack}.{name}": tensor for name, tensor in ours.items()}


def _check_sinusoids(table: Tensor | None, options: ModelOptions, stack: str) -> None:
    if table is None:
        return
    wanted = SinusoidalPositions(options.max_positions, options.dim).table
    if table.shape != wanted.shape or (table - wanted).abs().max() > SINUSOIDS_DIFFER:
        raise BundleError(
            f"the {stack}'s positions should be sinusoids (sinusoidal_embeddings), and are not",
            expected="the positions of arXiv 1706.03762, section 3.5",
        )


def _check_tied(output: Tensor | None, tokens: Tensor | None, stack: str) -> None:
    if output is None or tokens is None or output.data_ptr() == tokens.data_ptr():
        return
    if not torch.equal(output, tokens):
        raise BundleError(
            f"the {stack}'s output layer should share the token embedding's weight "
            "(share_inout_emb), and has another",
            expected="two equal tensors, or share_inout_emb = False",
        )
