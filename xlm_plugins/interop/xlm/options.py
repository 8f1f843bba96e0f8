"""The options that a checkpoint of XLM records, its ``params``, as ours."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import permutations
from typing import Any

from xlm_plugins.config.model import ModelOptions
from xlm_plugins.contracts.batch import Step
from xlm_plugins.core.errors import BundleError
from xlm_plugins.core.options import build
from xlm_plugins.core.plugins import Plugins
from xlm_plugins.core.selection import StackName
from xlm_plugins.model.description import ChosenObjective

SUPPORTED = (
    "XLM's transformer: an encoder, or an encoder and a decoder; learned or sinusoidal positions; "
    "GELU or ReLU; a tied, an untied or an adaptive output layer; product-key memories"
)
"""What can be imported, for error messages."""

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
}
"""The defaults of XLM's code: older checkpoints lack options that were added later."""

OBJECTIVES = ("clm", "mlm", "pc", "ae", "mt", "bt")
"""The steps of each are in ``clm_steps`` and so on."""


def model_options(params: Mapping[str, Any], n_positions: int, ffn_dim: int | None) -> ModelOptions:
    """The shape of the stacks.

    :param params: completed by `DEFAULTS`.
    :param n_positions: rows of the position embedding.
    :param ffn_dim: width of the feed-forward layers; None if memories replace all of them.
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
        values["adaptive_cutoffs"] = [int(cutoff) for cutoff in listed(params["asm_cutoffs"])]
        values["adaptive_div_value"] = float(params["asm_div_value"])
    return build(ModelOptions, values, "the checkpoint")


def languages_of(params: Mapping[str, Any]) -> dict[str, int]:
    """The id of each language.

    :raises BundleError: the checkpoint does not tell.
    """
    ids = params.get("lang2id") or {c: i for i, c in (params.get("id2lang") or {}).items()}
    ids = ids or {code: i for i, code in enumerate(sorted(filter(None, params["lgs"].split("-"))))}
    if not ids or sorted(ids.values()) != list(range(len(ids))):
        raise BundleError(
            "the checkpoint does not say which languages it knows",
            expected="lang2id, id2lang or lgs in its params",
        )
    return {str(code): ids[code] for code in sorted(ids, key=lambda code: ids[code])}


def chosen_objectives(
    params: Mapping[str, Any],
    stacks: tuple[StackName, ...],
    languages: Mapping[str, int],
    plugins: Plugins,
) -> tuple[tuple[ChosenObjective, ...], list[str]]:
    """What the model was trained on; if that is not recorded, what its stacks are usually for.

    :returns: the objectives, and notes on those that were left out.
    """
    recorded = _recorded_steps(params)
    notes = []
    if recorded.pop("pc", None):
        notes.append(
            "pc is left out: its classifier is built differently here, and must be trained"
        )
    if not recorded:
        recorded = _usual_steps(stacks, tuple(languages))
    chosen = []
    for name, steps in recorded.items():
        component = plugins.get("objective", name)
        options = component.options_from(_objective_options(name, params))
        chosen.append(ChosenObjective(component, options, tuple(map(str, steps))))
    return tuple(chosen), notes


def _recorded_steps(params: Mapping[str, Any]) -> dict[str, list[Step]]:
    """Recorded steps by objective; XLM's MLM on a pair is TLM."""
    found: dict[str, list[Step]] = {}
    for objective in OBJECTIVES:
        for written in listed(params.get(f"{objective}_steps")):
            step = _step(written)
            name = "tlm" if objective == "mlm" and len(step.languages) == 2 else objective
            found.setdefault(name, []).append(step)
    return found


def _step(written: Any) -> Step:
    """Read ``en-fr``, or the tuple that XLM's code makes of it; ``('en', None)`` is ``en``."""
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
        _, keep, random = (float(share) for share in listed(params["word_mask_keep_rand"]))
        shares = {"keep_share": keep, "random_share": random}
        return {"mask_prob": params["word_pred"], "sample_alpha": params["sample_alpha"], **shares}
    names = {"clm": ["context_size"], "ae": ["word_shuffle", "word_dropout", "word_blank"]}
    return {key: params[key] for key in names.get(name, [])}


def listed(value: Any) -> list[Any]:
    """A list, which may be written as ``a,b``."""
    if isinstance(value, str):
        return [part for part in value.split(",") if part]
    return list(value or ())
