"""``xlm export safetensors``: the weights of any model, with a description, for other programs."""

from __future__ import annotations

from pathlib import Path

from xlm_plugins.core.files import write_json
from xlm_plugins.interop.new_bundle import new_folder, write_tensors
from xlm_plugins.model.bundle import Bundle
from xlm_plugins.model.weights import named_weights
from xlm_plugins.runs.layout import WEIGHTS_NAME

DESCRIPTION_NAME = "description.json"


def export_safetensors(bundle: Bundle, out: Path) -> None:
    """Write ``model.safetensors`` and ``description.json`` into a new folder.

    The description is the bundle's, with the tokens in order of their ids and each tensor's shape.

    :raises BundleError: ``out`` exists.
    """
    weights = named_weights(bundle.model)
    tensors = {name: {"shape": list(t.shape)} for name, t in sorted(weights.items())}
    described = {
        **bundle.description.to_json(),
        "tokens": bundle.tokenizer.tokens(),
        "tensors": tensors,
    }
    with new_folder(out) as folder:
        write_json(folder / DESCRIPTION_NAME, described)
        write_tensors(folder / WEIGHTS_NAME, weights)
