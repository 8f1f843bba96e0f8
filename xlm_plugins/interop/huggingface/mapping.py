"""Our encoder as a model of transformers: its class, configuration and weights.

RoBERTa's class, and XLM-R's, which differs in its tokenizer only, has the dense layer before the
output, but no languages; XLM's has languages, but no dense layer.  A model with anything that none
of them has cannot be exported, and the error says why.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from xlm_plugins.contracts.batch import Layout, Samples, Step
from xlm_plugins.contracts.ragged import Ragged
from xlm_plugins.core.errors import BundleError
from xlm_plugins.inference.common import is_causal
from xlm_plugins.interop.huggingface.tokenizer import is_byte_level
from xlm_plugins.interop.weight_names import POSITIONS, export_weights, roberta_names, xlm_names
from xlm_plugins.model.bundle import Bundle
from xlm_plugins.model.nn.embeddings import SinusoidalPositions
from xlm_plugins.model.weights import named_weights

XLM_CLASS = "XLMWithLMHeadModel"
XLM_R_CLASS, ROBERTA_CLASS = "XLMRobertaForMaskedLM", "RobertaForMaskedLM"
_MODEL_TYPES = {XLM_CLASS: "xlm", XLM_R_CLASS: "xlm-roberta", ROBERTA_CLASS: "roberta"}


def class_of(bundle: Bundle) -> str:
    """The class in transformers for a model.

    :raises BundleError: there is none; lists all reasons.
    """
    reasons = list(_reasons(bundle))
    if reasons:
        raise BundleError(
            f"transformers has no class for this model: {'; '.join(reasons)}",
            expected=f"an encoder like {XLM_CLASS}, {XLM_R_CLASS} or {ROBERTA_CLASS}",
            remedy="xlm export safetensors RUN OUT writes the weights of any model",
        )
    if not bundle.description.options.output_dense:
        return XLM_CLASS
    return ROBERTA_CLASS if is_byte_level(bundle) else XLM_R_CLASS


def notes_on(bundle: Bundle) -> list[str]:
    """What users of the exported model should know, as its class cannot express it."""
    notes = []
    if class_of(bundle) == XLM_CLASS and is_byte_level(bundle):
        notes.append(
            f"it becomes an {XLM_CLASS} with RoBERTa's tokenizer; to become a {ROBERTA_CLASS}, a "
            "model must be trained with --output-dense and without language embeddings"
        )
    if restarting := " and ".join(_restarting_positions(bundle)):
        notes.append(
            f"{restarting} restarted positions in the second sentence of a pair; transformers "
            "continues them, unless position_ids say otherwise"
        )
    if bundle.classifier is not None:
        notes.append(
            f"the head of {bundle.classifier.name} is left out: only the encoder is exported"
        )
    if _has_languages(bundle):
        ids = ", ".join(f"{name} = {i}" for name, i in bundle.description.languages.items())
        notes.append(
            f"the model needs the language of each token, langs ({ids}), which pipelines do not "
            "pass: for those, export it for one language with --language"
        )
    return notes


def config_of(bundle: Bundle) -> dict[str, Any]:
    """The content of ``config.json``."""
    name, vocabulary = class_of(bundle), bundle.description.vocabulary
    roles = vocabulary.roles
    common = {
        "architectures": [name],
        "model_type": _MODEL_TYPES[name],
        "vocab_size": vocabulary.size,
        "bos_token_id": vocabulary.frame[0],
        "eos_token_id": roles["eos"],
        "pad_token_id": roles["pad"],
        "layer_norm_eps": bundle.description.options.layer_norm_eps,
        "tie_word_embeddings": bundle.description.options.tied_output,
        "dtype": "float32",
    }
    return common | (_xlm_config(bundle) if name == XLM_CLASS else _roberta_config(bundle))


def weights_of(bundle: Bundle) -> dict[str, Tensor]:
    """All weights by their names in the class."""
    description, ours = bundle.description, named_weights(bundle.model)
    options = description.options
    if options.output_dense:
        names = roberta_names(options, "roberta.")
        theirs = export_weights(names, ours)
        table = names[POSITIONS][0]
        first = description.vocabulary.roles["pad"] + 1
        theirs[table] = torch.nn.functional.pad(theirs[table], (0, 0, first, 0))
        types = table.replace("position_embeddings", "token_type_embeddings")
        theirs[types] = torch.zeros(1, options.dim)
        if not options.tied_output:  # then the bias has two names
            theirs["lm_head.decoder.bias"] = theirs["lm_head.bias"].clone()
        return theirs
    theirs = export_weights(xlm_names(options, len(description.languages), "transformer."), ours)
    if options.position_embeddings == "sinusoidal":
        sinusoids = SinusoidalPositions(options.max_positions, options.dim).table
        theirs["transformer.position_embeddings.weight"] = sinusoids
    return theirs


def _reasons(bundle: Bundle) -> Iterator[str]:
    """Why no class fits."""
    description = bundle.description
    options, frame = description.options, description.vocabulary.frame
    if description.stacks != ("encoder",):
        yield f"it has {' and '.join(description.stacks)}, but no class has a decoder"
    for placed in description.layers:
        yield f"{placed.component.name} at {placed.position}, a layer of a plugin"
    if options.adaptive_cutoffs:
        yield "adaptive softmax, which its class cannot reload"
    if options.output_dense:
        if _has_languages(bundle):
            yield "a dense layer before the output together with languages"
        if options.position_embeddings != "learned":
            yield "a dense layer before the output together with sinusoidal positions"
        if frame[0] == frame[1]:
            yield "a dense layer before the output together with sentences that begin with EOS"
    elif (options.ffn_dim or 4 * options.dim) != 4 * options.dim:
        yield f"feed-forward layers of width {options.ffn_dim}, but the class has 4 x dim"


def _restarting_positions(bundle: Bundle) -> Iterator[str]:
    """The objectives whose batches restart positions in the second sentence of a pair."""
    word = Ragged(bundle.description.vocabulary.ordinary[:1], np.array([0, 1]))
    pair = Samples(np.zeros(1, np.int64), (word, word))
    for chosen in bundle.description.objectives:
        objective = bundle.objectives[chosen.component.name]
        batches = (
            batch
            for step in map(Step.parse, chosen.steps)
            if objective.layout(step) is Layout.PAIR
            for batch in objective.evaluation_batches(pair, step, np.random.default_rng(0)).values()
        )
        if any((batch.positions == 0).sum() >= len(batch.offsets) for batch in batches):
            yield objective.name


def _has_languages(bundle: Bundle) -> bool:
    known = bundle.description.known_languages
    return known is not None and len(known) > 1


def _roberta_config(bundle: Bundle) -> dict[str, Any]:
    options = bundle.description.options
    return {
        "hidden_size": options.dim,
        "num_hidden_layers": options.n_layers,
        "num_attention_heads": options.n_heads,
        "intermediate_size": options.ffn_dim or 4 * options.dim,
        "hidden_act": options.activation,
        "hidden_dropout_prob": options.dropout,
        "attention_probs_dropout_prob": options.attention_dropout,
        "max_position_embeddings": options.max_positions
        + bundle.description.vocabulary.roles["pad"]
        + 1,
        "type_vocab_size": 1,
    }


def _xlm_config(bundle: Bundle) -> dict[str, Any]:
    options, roles = bundle.description.options, bundle.description.vocabulary.roles
    languages = bundle.description.languages
    return {
        "emb_dim": options.dim,
        "n_layers": options.n_layers,
        "n_heads": options.n_heads,
        "dropout": options.dropout,
        "attention_dropout": options.attention_dropout,
        "gelu_activation": options.activation == "gelu",
        "sinusoidal_embeddings": options.position_embeddings == "sinusoidal",
        "causal": is_causal(bundle),
        "asm": False,
        "n_langs": max(len(languages), 1),
        "use_lang_emb": options.language_embeddings,
        "lang2id": dict(languages),
        "id2lang": {str(number): name for name, number in languages.items()},
        "max_position_embeddings": options.max_positions,
        "embed_init_std": options.dim**-0.5,
        "unk_index": roles["unk"],
        "mask_index": roles["mask"],
        "mask_token_id": roles["mask"],
        "is_encoder": True,
    }
