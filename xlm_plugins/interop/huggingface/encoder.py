"""Reading encoders in transformers' format: XLM's, and those of RoBERTa's family.

transformers itself is not needed, only its files.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from xlm_plugins.config.model import ModelOptions
from xlm_plugins.core.errors import BundleError
from xlm_plugins.core.options import build
from xlm_plugins.interop.huggingface.files import read_config, read_weights
from xlm_plugins.interop.imported_encoder import ImportedEncoder
from xlm_plugins.interop.pickles import malformed_as_error
from xlm_plugins.interop.weight_names import (
    ACTIVATIONS,
    OUTPUT_BIAS,
    POSITIONS,
    TOKENS,
    import_weights,
    positions_from_pad,
    roberta_names,
)
from xlm_plugins.interop.xlm.weights import stack_weights

SUPPORTED = {
    "xlm": ("XLMModel", "XLMWithLMHeadModel"),
    "xlm-roberta": ("XLMRobertaModel", "XLMRobertaForMaskedLM"),
    "roberta": ("RobertaModel", "RobertaForMaskedLM"),
}
"""The architectures that can be imported, by model type."""

# Buffers, and second names of tied weights.
_NO_WEIGHT = re.compile(
    r"(.*\.)?(embeddings\.)?(position_ids|token_type_ids)|lm_head\.decoder\.bias|"
    r"(.*\.)?embeddings\.token_type_embeddings\.weight"
)
_POOLER = re.compile(r"(.*\.)?pooler\..*")


def read_encoder(folder: Path) -> ImportedEncoder:
    """Read the encoder in a folder in Hugging Face's format.

    :raises BundleError: there is no such folder, or it is damaged or has another architecture.
    """
    config = read_config(folder)
    kind = config["model_type"]
    classes = SUPPORTED.get(kind, ())
    named = config.get("architectures") or classes[:1] or [kind]
    name = named[0] if isinstance(named, Sequence) else named
    if name not in classes:
        raise BundleError(
            f"{folder} holds a {name} of type {kind}: not supported",
            expected=", ".join(known for names in SUPPORTED.values() for known in names),
        )
    read: Callable[[dict[str, Any], dict[str, Tensor]], ImportedEncoder]
    read = _read_xlm if kind == "xlm" else _read_roberta
    weights = read_weights(folder)
    with malformed_as_error(
        f"{folder} is not a {name} as transformers saves it",
        "a config.json with all entries of the model's class, and all of its weights",
    ):
        return read(config, weights)


def _read_xlm(config: dict[str, Any], theirs: dict[str, Tensor]) -> ImportedEncoder:
    base = "transformer."
    bare = not any(name.startswith(base) for name in theirs)
    plain = {name.removeprefix(base): tensor for name, tensor in theirs.items()}
    plain = {name: tensor for name, tensor in plain.items() if not _NO_WEIGHT.fullmatch(name)}
    tied = config.get("tie_word_embeddings", True) and not config.get("asm", False)
    options = build(ModelOptions, _xlm_options(config, tied or bare), "config.json")
    languages = _languages(config)
    if bare:
        plain["pred_layer.proj.bias"] = torch.zeros(len(plain["embeddings.weight"]))
    ours = stack_weights(plain, options, len(languages), "encoder")
    special = _special(config, {"pad": "pad_index"})
    special |= _special(config, {"pad": "pad_token_id", "mask": "mask_index"})
    objective = "clm" if config.get("causal") else "mlm"
    notes = _notes(bare, pooler=False)
    return ImportedEncoder(options, ours, languages, special, None if bare else objective, notes)


def _xlm_options(config: Mapping[str, Any], tied: bool) -> dict[str, Any]:
    several = config.get("n_langs", 1) > 1 and config.get("use_lang_emb", True)
    values = {
        "dim": config["emb_dim"],
        "n_layers": config["n_layers"],
        "n_heads": config["n_heads"],
        "max_positions": config.get("max_position_embeddings", 512),
        "dropout": config.get("dropout", 0.1),
        "attention_dropout": config.get("attention_dropout", 0.1),
        "activation": "gelu" if config.get("gelu_activation", True) else "relu",
        "position_embeddings": "sinusoidal" if config.get("sinusoidal_embeddings") else "learned",
        "language_embeddings": several,
        "tied_output": tied,
        "layer_norm_eps": config.get("layer_norm_eps", 1e-12),
    }
    if config.get("asm"):
        values["adaptive_cutoffs"] = config["asm_cutoffs"]
        values["adaptive_div_value"] = float(config["asm_div_value"])
    return values


def _languages(config: Mapping[str, Any]) -> dict[str, int]:
    """The id of each language; languages without names in the configuration are numbered."""
    n_languages = config.get("n_langs", 1)
    named = config.get("lang2id") or {f"lang{number}": number for number in range(n_languages)}
    if sorted(named.values()) != list(range(n_languages)):
        raise BundleError(
            f"config.json has {n_languages} languages, but lang2id lists others: {named}",
            expected=f"ids 0 to {n_languages - 1}",
        )
    return dict(named)


def _read_roberta(config: dict[str, Any], theirs: dict[str, Tensor]) -> ImportedEncoder:
    base = "roberta." if any(name.startswith("roberta.") for name in theirs) else ""
    bare = "lm_head.dense.weight" not in theirs
    tied = bare or config.get("tie_word_embeddings", True)
    # The bias has two names; if nothing is tied, the layer's own is the one in use.
    if "lm_head.decoder.bias" in theirs and (not tied or "lm_head.bias" not in theirs):
        theirs["lm_head.bias"] = theirs["lm_head.decoder.bias"]
    options = build(ModelOptions, _roberta_options(config, tied, bare), "config.json")
    if tied:
        theirs.pop("lm_head.decoder.weight", None)
    pooler = {name for name in theirs if _POOLER.fullmatch(name)}
    kept = {n: t for n, t in theirs.items() if n not in pooler and not _NO_WEIGHT.fullmatch(n)}
    supported = "an encoder with learned positions and RoBERTa's head"
    ours = import_weights(roberta_names(options, base), kept, "the model", supported)
    types = theirs.get(f"{base}embeddings.token_type_embeddings.weight")
    ours[POSITIONS] = positions_from_pad(ours[POSITIONS], config["pad_token_id"], types)
    if bare:
        ours[OUTPUT_BIAS] = torch.zeros(len(ours[TOKENS]))
    special = _special(config, {"pad": "pad_token_id", "eos": "eos_token_id"})
    notes = _notes(bare, bool(pooler))
    return ImportedEncoder(options, ours, {}, special, None if bare else "mlm", notes)


def _roberta_options(config: Mapping[str, Any], tied: bool, bare: bool) -> dict[str, Any]:
    if config.get("is_decoder") or config.get("add_cross_attention"):
        raise BundleError("the model is a decoder: not supported", expected="an encoder")
    for key, values in (
        ("hidden_act", ACTIVATIONS),
        ("position_embedding_type", ("absolute", None)),
    ):
        if (given := config.get(key, values[0])) not in values:
            raise BundleError(
                f"config.json has {key} = {given!r}: not supported",
                expected=" or ".join(value for value in values if value),
            )
    return {
        "dim": config["hidden_size"],
        "n_layers": config["num_hidden_layers"],
        "n_heads": config["num_attention_heads"],
        "ffn_dim": config["intermediate_size"],
        "max_positions": config["max_position_embeddings"] - config["pad_token_id"] - 1,
        "dropout": config.get("hidden_dropout_prob", 0.1),
        "attention_dropout": config.get("attention_probs_dropout_prob", 0.1),
        "activation": config.get("hidden_act", "gelu"),
        "language_embeddings": False,
        "tied_output": tied,
        "output_dense": not bare,
        "layer_norm_eps": config.get("layer_norm_eps", 1e-12),
    }


def _special(config: Mapping[str, Any], keys: Mapping[str, str]) -> dict[str, int]:
    """The ids of special tokens that a configuration has, by role."""
    return {role: config[key] for role, key in keys.items() if isinstance(config.get(key), int)}


def _notes(bare: bool, pooler: bool) -> tuple[str, ...]:
    notes = []
    if bare:
        notes.append("the model has no output layer: it can embed text, but not fill masks")
    if pooler:
        notes.append("its pooler is left out: fine-tuned heads read the first position's state")
    return tuple(notes)
