"""XLM-R and RoBERTa as fairseq saved them: ``model.pt``, ``dict.txt``, and a tokenizer's files.

XLM-R comes with a SentencePiece model, whose pieces its dictionary lists; RoBERTa uses GPT-2's
merges, and its dictionary lists GPT-2's ids.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from xlm_plugins.config.model import ModelOptions
from xlm_plugins.core.errors import BundleError
from xlm_plugins.core.options import build
from xlm_plugins.interop.imported_encoder import ImportedEncoder
from xlm_plugins.interop.pickles import malformed_as_error, read_checkpoint
from xlm_plugins.interop.weight_names import (
    ACTIVATIONS,
    POSITIONS,
    fairseq_names,
    import_weights,
    positions_from_pad,
)

MODEL_NAME = "model.pt"
DICTIONARY_NAME = "dict.txt"
SUPPORTED = "XLM-R or RoBERTa with its head"
PAD = 1
"""The id of ``<pad>`` in fairseq."""

_BASE = "encoder.sentence_encoder."
_NORMS = ("layernorm_embedding", "emb_layer_norm")


def read_encoder(folder: Path) -> ImportedEncoder:
    """Read the encoder in a fairseq folder.

    :raises BundleError: the file is damaged, or has another architecture.
    """
    path = folder / MODEL_NAME
    content = read_checkpoint(path)
    if not isinstance(content, dict) or not isinstance(content.get("model"), dict):
        raise BundleError(f"{path} is not a fairseq checkpoint", expected="one with `model`")
    theirs = {_newer(name): tensor for name, tensor in content["model"].items()}
    _split_projections(theirs)
    with malformed_as_error(f"{path} is not an encoder of RoBERTa's family", SUPPORTED):
        return _encoder(_arguments(content), theirs)


def is_byte_level(folder: Path) -> bool:
    """Whether ``dict.txt`` lists GPT-2's ids, as RoBERTa's does: then it is the vocabulary."""
    words = _dictionary(folder)[:10] if (folder / DICTIONARY_NAME).is_file() else []
    return bool(words) and all(word.isdecimal() for word in words)


def check_dictionary(folder: Path, tokens: list[str]) -> None:
    """Compare ``dict.txt`` with the tokens of the SentencePiece model.

    :param tokens: the four special tokens first, ``<mask>`` last.
    :raises BundleError: they differ, or the file is missing.
    """
    path = folder / DICTIONARY_NAME
    found, wanted = _dictionary(folder), tokens[4:-1]
    if len(found) != len(wanted):
        raise BundleError(
            f"{path} has {len(found)} pieces, but the SentencePiece model beside it {len(wanted)}",
            expected="the files that were published together",
        )
    for number, (theirs, own) in enumerate(zip(found, wanted, strict=True), start=1):
        if theirs != own:
            raise BundleError(
                f"{path}, line {number}, is {theirs!r}, but {own!r} in the SentencePiece model",
                expected="the files that were published together",
            )


def _dictionary(folder: Path) -> list[str]:
    """The words of ``dict.txt``, in order.

    :raises BundleError: it is missing or damaged.
    """
    path = folder / DICTIONARY_NAME
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, ValueError) as error:
        raise BundleError(f"{path} cannot be read: {error}") from error
    return [line.rpartition(" ")[0] for line in lines if line]


def _encoder(arguments: Mapping[str, Any], theirs: dict[str, Tensor]) -> ImportedEncoder:
    if f"{_BASE}layer_norm.weight" in theirs:
        raise BundleError(
            "LayerNorm comes before the layers (pre-norm), as in XLM-R XL: not supported",
            expected="XLM-R base or large, or a similar model",
        )
    options = build(ModelOptions, _options(arguments, theirs), "model.pt")
    norm = next((n for n in _NORMS if f"{_BASE}{n}.weight" in theirs), _NORMS[0])
    if options.tied_output:
        del theirs["encoder.lm_head.weight"]
    kept = {name: tensor for name, tensor in theirs.items() if not _is_ignored(name)}
    ours = import_weights(fairseq_names(options, _BASE, norm), kept, MODEL_NAME, SUPPORTED)
    ours[POSITIONS] = positions_from_pad(ours[POSITIONS], PAD)
    heads = sorted(name for name in theirs if name.startswith("classification_heads."))
    note = f"its classification heads are left out: {', '.join(heads)}"
    return ImportedEncoder(options, ours, {}, {"pad": PAD}, "mlm", (note,) if heads else ())


def _is_ignored(name: str) -> bool:
    ignored = (f"{_BASE}version", f"{_BASE}embed_positions._float_tensor")
    return name in ignored or name.startswith("classification_heads.")


def _options(arguments: Mapping[str, Any], theirs: Mapping[str, Tensor]) -> dict[str, Any]:
    activation = arguments.get("activation_fn", "gelu")
    if activation not in ACTIVATIONS:
        raise BundleError(f"activation_fn = {activation!r}", expected=" or ".join(ACTIVATIONS))
    tokens = theirs[f"{_BASE}embed_tokens.weight"]
    n_layers = 1 + max(
        (int(name[len(_BASE) :].split(".")[1]) for name in theirs if ".fc1.weight" in name),
        default=-1,
    )
    return {
        "dim": tokens.shape[1],
        "n_layers": n_layers,
        "n_heads": arguments["encoder_attention_heads"],
        "ffn_dim": len(theirs[f"{_BASE}layers.0.fc1.weight"]),
        "max_positions": len(theirs[f"{_BASE}embed_positions.weight"]) - PAD - 1,
        "dropout": arguments.get("dropout", 0.1),
        "attention_dropout": arguments.get("attention_dropout", 0.1),
        "activation": activation,
        "language_embeddings": False,
        "tied_output": torch.equal(tokens, theirs["encoder.lm_head.weight"]),
        "output_dense": True,
        "layer_norm_eps": 1e-5,
    }


def _arguments(content: Mapping[str, Any]) -> Mapping[str, Any]:
    """The model's options: ``args``, or ``cfg.model`` in newer checkpoints."""
    found = content.get("args") or (content.get("cfg") or {}).get("model")
    if found is None:
        raise BundleError(
            "model.pt has neither args nor cfg", expected="the options that fairseq trained with"
        )
    return found if isinstance(found, Mapping) else vars(found)


def _newer(name: str) -> str:
    """A weight's name in newer versions: older ones called the encoder decoder."""
    return f"encoder.{name.removeprefix('decoder.')}" if name.startswith("decoder.") else name


def _split_projections(theirs: dict[str, Tensor]) -> None:
    """Split the single projection that older versions had for queries, keys and values."""
    for name in [name for name in theirs if ".self_attn.in_proj_" in name]:
        base, _, kind = name.partition("in_proj_")
        for part, tensor in zip("qkv", theirs.pop(name).chunk(3), strict=True):
            theirs[f"{base}{part}_proj.{kind}"] = tensor
