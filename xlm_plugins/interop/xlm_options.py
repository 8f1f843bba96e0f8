"""XLM's ``params``, the options that a checkpoint records, as our options."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import permutations
from typing import Any

from xlm_plugins.core.batch import Step
from xlm_plugins.core.contracts import StackName
from xlm_plugins.core.errors import BundleError
from xlm_plugins.core.options import build
from xlm_plugins.core.plugins import Plugins
from xlm_plugins.core.selection import Position, parse_positions
from xlm_plugins.interop.xlm_weights import SUPPORTED
from xlm_plugins.model.config import ModelOptions
from xlm_plugins.model.description import ChosenObjective, PlacedLayer

DEFAULTS: Mapping[str, Any] = {
    "emb_dim": 512,
    "n_layers": 4,
    "n_heads": 8,
    "dropout": 0,
    "attention_dropout": 0,
    "gelu_activation": False,
    "share_inout_emb": True,
    "sinusoidal_embeddings": False,
    "use_lang_emb": True,
    "asm": False,
    "asm_cutoffs": "8000,20000",
    "asm_div_value": 4,
    "context_size": 0,
    "word_pred": 0.15,
    "sample_alpha": 0,
    "word_mask_keep_rand": "0.8,0.1,0.1",
    "word_shuffle": 0,
    "word_dropout": 0,
    "word_blank": 0,
    "max_vocab": -1,
    "min_count": 0,
    "lgs": "",
    "use_memory": False,
    "mem_enc_positions": "",
    "mem_dec_positions": "",
    "mem_implementation": "pq_fast",
    "mem_values_optimizer": "adam,lr=0.001",
    "mem_sparse": False,
    "mem_k_dim": 256,
    "mem_heads": 4,
    "mem_knn": 32,
    "mem_share_values": False,
    "mem_shuffle_indices": False,
    "mem_modulo_size": -1,
    "mem_keys_type": "uniform",
    "mem_n_keys": 512,
    "mem_use_different_keys": True,
    "mem_query_layer_sizes": "0,0",
    "mem_query_batchnorm": False,
    "mem_normalize_query": False,
    "mem_temperature": 1,
    "mem_score_softmax": True,
    "mem_score_subtract": "",
    "mem_score_normalize": False,
    "mem_input_dropout": 0,
    "mem_query_dropout": 0,
    "mem_value_dropout": 0,
}
"""The reference's own: older checkpoints lack what was not there yet."""

MEMORY_MUST_BE: Mapping[str, tuple[Any, ...]] = {
    "mem_grouped_conv": (False,),
    "mem_input2d": (False,),
    "mem_v_dim": (-1,),
    "mem_shuffle_query": (False,),
    "mem_query_kernel_sizes": ("", None, []),
    "mem_query_residual": (False,),
    "mem_multi_query_net": (False,),
    "mem_query_bias": (True,),
}
"""Variants of the memory that we do not have, by the values that mean without."""

SAME_IN_MEMORIES = (
    "heads",
    "knn",
    "n_keys",
    "k_dim",
    "share_values",
    "query_batchnorm",
    "normalize_query",
    "input_dropout",
    "query_dropout",
    "value_dropout",
)
"""Options of memories that we call as XLM does, behind ``mem_``."""

STEPS = {
    "clm_steps": "clm",
    "mlm_steps": "mlm",
    "pc_steps": "pc",
    "ae_steps": "ae",
    "mt_steps": "mt",
    "bt_steps": "bt",
}


def model_options(params: Mapping[str, Any], n_positions: int, ffn_dim: int | None) -> ModelOptions:
    """The shape of the stacks.

    :param params: completed by `DEFAULTS`.
    :param n_positions: rows of the table of positions.
    :param ffn_dim: width of the feed-forward layers; None where memories stand in for all.
    """
    dim = params["emb_dim"]
    values = {
        "dim": dim,
        "n_layers": params["n_layers"],
        "n_heads": params["n_heads"],
        "ffn_dim": None if ffn_dim == 4 * dim else ffn_dim,
        "max_positions": n_positions,
        "dropout": params["dropout"],
        "attention_dropout": params["attention_dropout"],
        "activation": "gelu" if params["gelu_activation"] else "relu",
        "position_embeddings": "sinusoidal" if params["sinusoidal_embeddings"] else "learned",
        "language_embeddings": bool(params["use_lang_emb"]),
        "tied_output": bool(params["share_inout_emb"]) and not params["asm"],
    }
    if params["asm"]:
        values["adaptive_cutoffs"] = [int(cutoff) for cutoff in _listed(params["asm_cutoffs"])]
        values["adaptive_div_value"] = float(params["asm_div_value"])
    return build(ModelOptions, values, "the checkpoint")


def languages_of(params: Mapping[str, Any]) -> dict[str, int]:
    """The id of each language.

    :raises BundleError: the checkpoint does not say.
    """
    ids = params.get("lang2id") or {c: i for i, c in (params.get("id2lang") or {}).items()}
    ids = ids or {code: i for i, code in enumerate(sorted(filter(None, params["lgs"].split("-"))))}
    if not ids or sorted(ids.values()) != list(range(len(ids))):
        raise BundleError(
            "the checkpoint does not say which languages it knows",
            expected="lang2id, id2lang or lgs in its params",
        )
    return {str(code): ids[code] for code in sorted(ids, key=lambda code: ids[code])}


def placed_memories(
    params: Mapping[str, Any], stacks: tuple[StackName, ...], plugins: Plugins
) -> tuple[PlacedLayer, ...]:
    """The product-key memories, each where it stands.

    :raises BundleError: a variant that is not supported.
    """
    if not params["use_memory"]:
        return ()
    for name, values in MEMORY_MUST_BE.items():
        if params.get(name, values[0]) not in values:
            raise BundleError(
                f"the checkpoint's memories have {name} = {params[name]!r}: not supported",
                expected=f"{name} = {values[0]!r}; {SUPPORTED}",
            )
    component = plugins.get("layer", "pkm")
    options = component.options_from(_memory_options(params))
    positions = [
        position
        for stack in stacks
        for position in _positions(params[f"mem_{stack[:3]}_positions"], stack)
    ]
    return tuple(PlacedLayer(position, component, options) for position in positions)


def shared_copies(layers: Sequence[PlacedLayer]) -> list[str]:
    """Our names of tables of values that another memory's is: a bundle holds it once."""
    if not any(placed.options.share_values for placed in layers):
        return []
    places = [placed.position for placed in layers]
    _, *others = sorted(places, key=lambda at: (at.stack == "decoder", at.index, at.after))
    part = {False: "feed_forward", True: "after"}
    return [f"{at.stack}.layers.{at.index}.{part[at.after]}.values" for at in others]


def _positions(written: Any, stack: str) -> Iterator[Position]:
    """Read ``4,7+``, or the pairs that the reference makes of it: ``(4, 'in'), (7, 'after')``."""
    if isinstance(written, str):
        found = parse_positions(written) if written else ()
        yield from (Position(stack, place.index, place.after) for place in found)
    else:
        yield from (Position(stack, index, where == "after") for index, where in written)


def _memory_options(params: Mapping[str, Any]) -> dict[str, Any]:
    implementation = params["mem_implementation"]
    if implementation not in ("pq_fast", "pq_default", "flat"):
        raise BundleError(
            f"the checkpoint's memories have mem_implementation = {implementation!r}",
            expected="pq_fast, pq_default or flat",
        )
    widths = [int(width) for width in _listed(params["mem_query_layer_sizes"])]
    if len(widths) < 2:
        raise BundleError(
            "the checkpoint's memories have no query network (mem_query_layer_sizes is empty)",
            expected="0,0 for one linear layer, or widths between the two",
        )
    weighting = "sum" if params["mem_score_normalize"] else "none"
    return {name: params[f"mem_{name}"] for name in SAME_IN_MEMORIES} | {
        "flat": implementation == "flat",
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


def chosen_objectives(
    params: Mapping[str, Any],
    stacks: tuple[StackName, ...],
    languages: Mapping[str, int],
    plugins: Plugins,
) -> tuple[tuple[ChosenObjective, ...], list[str]]:
    """What the model was trained on; if nothing is recorded, what its stacks are made for.

    :returns: the objectives, and what there is to say about those that were left out.
    """
    recorded = _recorded_steps(params)
    notes = []
    if recorded.pop("pc", None):
        notes.append("pc is left out: its classifier is of another kind here, and must be trained")
    if not recorded:
        recorded = _usual_steps(stacks, tuple(languages))
    chosen = []
    for name, steps in recorded.items():
        component = plugins.get("objective", name)
        options = component.options_from(_objective_options(name, params))
        chosen.append(ChosenObjective(component, options, tuple(map(str, steps))))
    return tuple(chosen), notes


def _recorded_steps(params: Mapping[str, Any]) -> dict[str, list[Step]]:
    """By objective.  XLM's MLM on a pair is TLM."""
    found: dict[str, list[Step]] = {}
    for flag, objective in STEPS.items():
        for written in _listed(params.get(flag)):
            step = _step(written)
            name = "tlm" if objective == "mlm" and len(step.languages) == 2 else objective
            found.setdefault(name, []).append(step)
    return found


def _step(written: Any) -> Step:
    """Read ``en-fr``, or the tuple that the reference makes of it; ``('en', None)`` is ``en``."""
    parts = written.split("-") if isinstance(written, str) else written
    return Step(tuple(part for part in parts if part))


def _usual_steps(
    stacks: tuple[StackName, ...], languages: tuple[str, ...]
) -> dict[str, list[Step]]:
    if "decoder" not in stacks:
        return {"mlm": [Step((code,)) for code in languages]}
    if len(languages) == 1:
        return {"ae": [Step(languages)]}
    return {"mt": [Step(pair) for pair in permutations(languages, 2)]}


def _objective_options(name: str, params: Mapping[str, Any]) -> dict[str, Any]:
    if name in ("mlm", "tlm"):
        _, keep, random = (float(share) for share in _listed(params["word_mask_keep_rand"]))
        shares = {"keep_share": keep, "random_share": random}
        return {"mask_prob": params["word_pred"], "sample_alpha": params["sample_alpha"], **shares}
    names = {"clm": ["context_size"], "ae": ["word_shuffle", "word_dropout", "word_blank"]}
    return {key: params[key] for key in names.get(name, [])}


def _listed(value: Any) -> list[Any]:
    """A list, or one that is written as ``a,b``."""
    if isinstance(value, str):
        return [part for part in value.split(",") if part]
    return list(value or ())
