"""Folders in Hugging Face's format: ``config.json``, and weights by name in one file or several."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from xlm_plugins.core.errors import BundleError
from xlm_plugins.core.files import read_json
from xlm_plugins.interop.pickles import read_checkpoint
from xlm_plugins.model.weights import load_tensors

CONFIG_NAME = "config.json"
SAFETENSORS_NAME = "model.safetensors"
PICKLE_NAME = "pytorch_model.bin"
INDEX_SUFFIX = ".index.json"


def read_config(folder: Path) -> dict[str, Any]:
    """Read ``config.json``.

    :raises BundleError: it is missing or damaged.
    """
    tree = read_json(folder / CONFIG_NAME)
    if not isinstance(tree.get("model_type"), str):
        raise BundleError(f"{folder / CONFIG_NAME} has no model_type")
    return tree


def read_weights(folder: Path) -> dict[str, Tensor]:
    """All weights in a folder by their names there; nothing in a file is run.

    :raises BundleError: there are none, or a file is damaged.
    """
    for name in (SAFETENSORS_NAME, PICKLE_NAME):
        index = folder / f"{name}{INDEX_SUFFIX}"
        if (folder / name).is_file():
            return _read(folder / name)
        if index.is_file():
            parts = sorted(set(read_json(index).get("weight_map", {}).values()))
            return {
                key: tensor
                for part in parts
                for key, tensor in _read(_inside(folder, part)).items()
            }
    raise BundleError(f"{folder} holds no weights", expected=f"{SAFETENSORS_NAME} or {PICKLE_NAME}")


def _inside(folder: Path, name: str) -> Path:
    """The file of a part; an index must not lead out of its folder."""
    if Path(name).name != name:
        raise BundleError(f"{folder} has an index that names {name}", expected="a file beside it")
    return folder / name


def _read(path: Path) -> dict[str, Tensor]:
    weights = load_tensors(path) if path.suffix == ".safetensors" else read_checkpoint(path)
    if not isinstance(weights, dict) or not all(isinstance(t, Tensor) for t in weights.values()):
        raise BundleError(f"{path} holds something other than weights by name")
    return weights
