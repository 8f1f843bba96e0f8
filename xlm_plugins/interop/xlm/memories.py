"""XLM's product-key memories: their options, positions, and the names of their weights."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor

from xlm_plugins.core.errors import BundleError
from xlm_plugins.core.plugins import Plugins
from xlm_plugins.core.selection import Position, StackName, parse_positions
from xlm_plugins.interop.weight_names import Names
from xlm_plugins.interop.xlm.options import SUPPORTED, listed
from xlm_plugins.model.description import PlacedLayer

_SAME: Mapping[str, Any] = {
    "heads": 4,
    "knn": 32,
    "n_keys": 512,
    "k_dim": 256,
    "share_values": False,
    "query_batchnorm": False,
    "normalize_query": False,
    "input_dropout": 0,
    "query_dropout": 0,
    "value_dropout": 0,
}
"""Options that XLM calls the same, prefixed with ``mem_``; with the defaults of XLM's code."""

DEFAULTS: Mapping[str, Any] = {f"mem_{name}": value for name, value in _SAME.items()} | {
    "mem_enc_positions": "",
    "mem_dec_positions": "",
    "mem_implementation": "pq_fast",
    "mem_values_optimizer": "adam,lr=0.001",
    "mem_sparse": False,
    "mem_shuffle_indices": False,
    "mem_modulo_size": -1,
    "mem_keys_type": "uniform",
    "mem_use_different_keys": True,
    "mem_query_layer_sizes": "0,0",
    "mem_temperature": 1,
    "mem_score_softmax": True,
    "mem_score_subtract": "",
    "mem_score_normalize": False,
}
"""The defaults of XLM's code: older checkpoints lack options that were added later."""

MUST_BE: Mapping[str, tuple[Any, ...]] = {
    "mem_implementation": ("pq_fast", "pq_default", "flat"),
    "mem_grouped_conv": (False,),
    "mem_input2d": (False,),
    "mem_v_dim": (-1,),
    "mem_shuffle_query": (False,),
    "mem_query_kernel_sizes": ("", None, []),
    "mem_query_residual": (False,),
    "mem_multi_query_net": (False,),
    "mem_query_bias": (True,),
}
"""The supported values; the first one is the default of XLM's code."""

_PLACES = {"in": "feed_forward", "after": "after"}
_WEIGHT = re.compile(r"(memories\.(\d+)_(in|after)\.)(.*)")
_QUERY = re.compile(r"query_proj\.query_mlps\.0\.(?:(\d+)\.)?(.*)")


def placed_memories(
    params: Mapping[str, Any], stacks: tuple[StackName, ...], plugins: Plugins
) -> tuple[PlacedLayer, ...]:
    """The product-key memories at their positions.

    :raises BundleError: a variant that is not supported.
    """
    if not params["use_memory"]:
        return ()
    params = {**DEFAULTS, **params}
    for name, values in MUST_BE.items():
        if params.get(name, values[0]) not in values:
            raise BundleError(
                f"the checkpoint's memories have {name} = {params[name]!r}: not supported",
                expected=f"{name} = {' or '.join(map(repr, values))}; {SUPPORTED}",
            )
    component = plugins.get("layer", "pkm")
    options = component.options_from(_options(params))
    return tuple(
        PlacedLayer(position, component, options)
        for stack in stacks
        for position in _positions(params[f"mem_{stack[:3]}_positions"], stack)
    )


def shared_copies(layers: Sequence[PlacedLayer]) -> list[str]:
    """Our names of value tables that are shared with an earlier memory; a bundle holds one."""
    if not any(placed.options.share_values for placed in layers):
        return []
    places = [placed.position for placed in layers]
    _, *others = sorted(places, key=lambda at: (at.stack == "decoder", at.index, at.after))
    return [_prefix(at.stack, at.index, "after" if at.after else "in") + "values" for at in others]


def with_memories(names: Names, theirs: Mapping[str, Tensor], stack: StackName) -> Names:
    """The names of a stack and its memories, some of which replace a feed-forward network.

    :param names: those of the stack without memories.
    :param theirs: weights by XLM's names; nothing else tells how many layers a query network has.
    """
    memories: Names = {}
    prefixes = set()
    for name in theirs:
        if match := _WEIGHT.fullmatch(name):
            memory, index, where, rest = match.groups()
            prefix = _prefix(stack, int(index), where)
            prefixes.add(prefix)
            memories[prefix + _own_name(rest, _queries(memory, theirs))] = (name,)
    replaced = tuple(prefixes)
    kept = {own: parts for own, parts in names.items() if not own.startswith(replaced)}
    return kept | memories


def _prefix(stack: str, index: int, where: str) -> str:
    return f"{stack}.layers.{index}.{_PLACES[where]}."


def _queries(memory: str, theirs: Mapping[str, Tensor]) -> int:
    """The number of the linear layer that outputs the queries: the last one of its network."""
    numbered = [
        int(match[1])
        for name, tensor in theirs.items()
        if name.startswith(memory) and name.endswith(".weight") and tensor.dim() == 2
        if (match := _QUERY.fullmatch(name.removeprefix(memory))) and match[1]
    ]
    return max(numbered, default=0)


def _own_name(name: str, queries: int) -> str:
    """Our name of a memory's weight; a query network is one linear layer, or numbered modules.

    :param queries: the number of the module that outputs the queries.
    """
    if name == "values.weight":
        return "values"
    match = _QUERY.fullmatch(name)
    if not match:
        return name
    number, rest = int(match[1] or queries), match[2]
    if number < queries:
        return f"query_hidden.{number}.{rest}"
    return f"query.{rest}" if number == queries else f"query_norm.{rest}"


def _positions(written: Any, stack: StackName) -> Iterator[Position]:
    """Read ``4,7+``, or the pairs that XLM's code makes of it: ``(4, 'in'), (7, 'after')``."""
    if isinstance(written, str):
        found = parse_positions(written) if written else ()
        yield from (Position(stack, place.index, place.after) for place in found)
    else:
        yield from (Position(stack, int(index), where == "after") for index, where in written)


def _options(params: Mapping[str, Any]) -> dict[str, Any]:
    """A checkpoint's options as ours."""
    widths = [int(width) for width in listed(params["mem_query_layer_sizes"])]
    if len(widths) < 2:
        raise BundleError(
            "the checkpoint's memories have no query network (mem_query_layer_sizes is empty)",
            expected="0,0 for one linear layer, or with hidden widths in between",
        )
    weighting = "sum" if params["mem_score_normalize"] else "none"
    return {name: params[f"mem_{name}"] for name in _SAME} | {
        "flat": params["mem_implementation"] == "flat",
        "share_keys": not params["mem_use_different_keys"],
        "keys_init": params["mem_keys_type"],
        "query_hidden": widths[1:-1],
        "score_subtract": params["mem_score_subtract"] or None,
        "score_norm": "softmax" if params["mem_score_softmax"] else weighting,
        "temperature": float(params["mem_temperature"]),
        "shuffle_slots": params["mem_shuffle_indices"],
        "modulo_size": params["mem_modulo_size"] if params["mem_modulo_size"] > 0 else None,
        "value_lr": _rate(params["mem_values_optimizer"]),
        "sparse_update": params["mem_sparse"],
    }


def _rate(optimizer: str) -> float:
    """The learning rate in ``adam,lr=0.001``."""
    given = dict(part.split("=") for part in optimizer.split(",") if "=" in part)
    return float(given.get("lr", 1e-3))
