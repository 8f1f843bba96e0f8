"""``xlm import xlm``: converts a checkpoint of XLM's original implementation into a bundle.

The file holds the weights (``model``, or ``encoder`` and ``decoder``), the options of the run
(``params``) and the vocabulary (``dico_id2word``, ``dico_counts``).
"""

from __future__ import annotations

import argparse
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from xlm_plugins.config.model import ModelOptions
from xlm_plugins.contracts.tokenizer import Tokenizer
from xlm_plugins.core.errors import BundleError, OptionError
from xlm_plugins.core.plugins import Plugins
from xlm_plugins.core.registry import Component
from xlm_plugins.core.selection import StackName
from xlm_plugins.interop.new_bundle import check_out, write_bundle
from xlm_plugins.interop.pickles import malformed_as_error, read_checkpoint
from xlm_plugins.interop.xlm.memories import placed_memories, shared_copies
from xlm_plugins.interop.xlm.options import (
    DEFAULTS,
    SUPPORTED,
    chosen_objectives,
    languages_of,
    model_options,
)
from xlm_plugins.interop.xlm.tokenizer import COMPONENT
from xlm_plugins.interop.xlm.vocabulary import Words, read_text, words_of
from xlm_plugins.interop.xlm.weights import stack_weights
from xlm_plugins.model.description import ModelDescription


def import_xlm(
    checkpoint: Path,
    out: Path,
    plugins: Plugins,
    *,
    codes: Path | None = None,
    vocabulary: Path | None = None,
) -> list[str]:
    """Write an XLM checkpoint as a bundle.

    :param codes: the fastBPE codes that were published with it; without them, the bundle takes
        text that has already been split into tokens.
    :param vocabulary: the file of ``token count`` lines that was published with them.
    :returns: what the user should know: assumptions, and what was left out.
    :raises XLMError: the checkpoint cannot be imported; says why, and nothing is written.
    """
    check_out(out)
    if codes and not vocabulary:
        raise OptionError(
            f"--codes {codes} without --vocab",
            expected="both, as they were published together",
            remedy="--vocab VOCAB, the file of `token count` lines",
        )
    content = _checked(read_checkpoint(checkpoint), checkpoint)
    with malformed_as_error(
        f"{checkpoint} holds something that XLM does not write", "a checkpoint as XLM saves it"
    ):
        model = _read(content, checkpoint, plugins, codes, vocabulary)
    write_bundle(
        out, model.description, model.component, model.tokenizer, model.weights, str(checkpoint)
    )
    return model.notes


@dataclass(frozen=True)
class _Model:
    """The content of a checkpoint in our terms.

    :param component: the tokenizer's.
    :param weights: by our names.
    """

    description: ModelDescription
    component: Component
    tokenizer: Tokenizer
    weights: dict[str, Tensor]
    notes: list[str]


def _read(
    content: Mapping[str, Any],
    checkpoint: Path,
    plugins: Plugins,
    codes: Path | None,
    vocabulary: Path | None,
) -> _Model:
    params = {**DEFAULTS, **content["params"]}
    words = words_of(content, params, checkpoint, vocabulary)
    parts = _stacks(content)
    _check_vocabulary(parts, words, checkpoint)
    options = _options(params, parts)
    component, tokenizer, notes = _tokenizer(words, codes, params, plugins)
    description, left_out = _description(params, options, tokenizer, tuple(parts), plugins)
    weights = _weights(parts, description)
    return _Model(description, component, tokenizer, weights, notes + left_out)


def _checked(content: Any, checkpoint: Path) -> dict[str, Any]:
    """The checkpoint, with ``params`` as a dictionary."""
    stacks = {"model", "encoder", "decoder"}
    if not isinstance(content, dict) or "params" not in content or not stacks & content.keys():
        kind = type(content).__name__
        found = ", ".join(map(str, content)) if isinstance(content, dict) else f"a {kind}"
        raise BundleError(
            f"{checkpoint} is not a checkpoint of XLM: it holds {found}",
            expected="params, and either model or encoder and decoder",
            remedy="for XLM-R, RoBERTa and Hugging Face folders: xlm import hf",
        )
    params = content["params"]
    if isinstance(params, argparse.Namespace):
        params = vars(params)
    return {**content, "params": params}


def _stacks(content: Mapping[str, Any]) -> dict[StackName, dict[str, Tensor]]:
    """The weights of each stack, without the prefixes that wrappers add to their names."""
    names: dict[StackName, str] = {"encoder": "model" if "model" in content else "encoder"}
    if "decoder" in content:
        names["decoder"] = "decoder"
    parts = {}
    for stack, key in names.items():
        given = content.get(key)
        if not isinstance(given, Mapping) or not all(
            isinstance(tensor, Tensor) for tensor in given.values()
        ):
            raise BundleError(
                f"the checkpoint's {key!r} is missing, or not a table of weights",
                expected=SUPPORTED,
            )
        parts[stack] = {_unwrapped(name): tensor for name, tensor in given.items()}
    return parts


def _unwrapped(name: str) -> str:
    while name.startswith("module."):
        name = name.removeprefix("module.")
    return name


def _check_vocabulary(
    parts: Mapping[StackName, Mapping[str, Tensor]], words: Words, checkpoint: Path
) -> None:
    for stack, weights in parts.items():
        n_rows = len(weights.get("embeddings.weight", ()))
        if n_rows != len(words.words):
            raise BundleError(
                f"{words.origin} has {len(words.words)} words, but the {stack} of {checkpoint} "
                f"has embeddings of {n_rows}",
                expected="one vocabulary",
            )


def _options(
    params: Mapping[str, Any], parts: Mapping[StackName, Mapping[str, Tensor]]
) -> ModelOptions:
    weights = parts["encoder"]
    widths = [len(t) for name, t in weights.items() if name.endswith("lin1.bias")]
    positions = weights.get("position_embeddings.weight")
    n_positions = 512 if positions is None else len(positions)
    return model_options(params, n_positions, widths[0] if widths else None)


def _description(
    params: Mapping[str, Any],
    options: ModelOptions,
    tokenizer: Tokenizer,
    stacks: tuple[StackName, ...],
    plugins: Plugins,
) -> tuple[ModelDescription, list[str]]:
    languages = languages_of(params)
    objectives, notes = chosen_objectives(params, stacks, languages, plugins)
    layers = placed_memories(params, stacks, plugins)
    vocabulary = tokenizer.vocabulary()
    return ModelDescription(options, vocabulary, languages, stacks, layers, objectives), notes


def _weights(
    parts: Mapping[StackName, Mapping[str, Tensor]], description: ModelDescription
) -> dict[str, Tensor]:
    weights: dict[str, Tensor] = {}
    for stack, given in parts.items():
        weights |= stack_weights(given, description.options, len(description.languages), stack)
    for copy in shared_copies(description.layers):
        weights.pop(copy, None)
    return weights


def _tokenizer(
    words: Words, codes: Path | None, params: Mapping[str, Any], plugins: Plugins
) -> tuple[Component, Tokenizer, list[str]]:
    """The tokenizer for the checkpoint's vocabulary, with notes on the text that it takes."""
    component = plugins.get("tokenizer", COMPONENT)
    build = component.load().from_vocabulary
    languages = tuple(languages_of(params))
    if codes is None:
        tokenizer: Tokenizer = build(words.words, words.counts, None, languages=languages)
        note = "no codes were given: text must already be split into the vocabulary's tokens"
        return component, tokenizer, [note]
    lowercase, unaccented = _is_lowercase(words.words), _is_unaccented(words.words)
    tokenizer = build(
        words.words,
        words.counts,
        read_text(codes),
        languages=languages,
        lowercase=lowercase,
        remove_accents=unaccented,
    )
    notes = (
        ["no word of the vocabulary has a capital letter: text is lower-cased"] if lowercase else []
    )
    notes += ["no word of the vocabulary has an accent: accents are removed"] if unaccented else []
    return component, tokenizer, notes


def _is_lowercase(words: Sequence[str]) -> bool:
    """Whether a vocabulary was made from lower-cased text, as for XLM's English and XNLI-15 models.

    Nothing else in a checkpoint tells.
    """
    return all(word == word.lower() for word in words)


def _is_unaccented(words: Sequence[str]) -> bool:
    """Whether a vocabulary was made from text without accents."""
    return not any(
        unicodedata.category(character) == "Mn"
        for word in words
        for character in unicodedata.normalize("NFD", word)
    )
