"""Weights by name: from a model, into a model, and on disk."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from xlm_plugins.core.errors import BundleError
from xlm_plugins.core.messages import LOG


def named_weights(model: nn.Module) -> dict[str, Tensor]:
    """Parameters, tied ones once, and persistent buffers."""
    weights: dict[str, Tensor] = dict(model.named_parameters())
    kept = model.state_dict().keys()
    weights.update((name, buffer) for name, buffer in model.named_buffers() if name in kept)
    return weights


def load_weights(model: nn.Module, weights: Mapping[str, Tensor], origin: str) -> None:
    """Copy weights into a model with exactly the same names and shapes.

    :param origin: what the error calls the weights.
    :raises BundleError: names or shapes differ; lists the first few.
    """
    own = named_weights(model)
    if faults := misfits(own, weights):
        raise BundleError(
            f"{origin} does not fit the model: {faults}",
            remedy="resume a run with the options that it was started with: RUN/config.toml",
        )
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(weights[name])


def misfits(own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> str:
    """Why given weights do not fit a model: the first three mismatches, or nothing.

    :param own: the model's weights, on any device.
    """
    faults = [f"{name} is missing" for name in sorted(own.keys() - given.keys())]
    faults += [f"{name} is not in the model" for name in sorted(given.keys() - own.keys())]
    faults += [
        f"{name} is {tuple(given[name].shape)}, the model's is {tuple(tensor.shape)}"
        for name, tensor in own.items()
        if name in given and given[name].shape != tensor.shape
    ]
    more = f" and {len(faults) - 3} more" if len(faults) > 3 else ""
    return "; ".join(faults[:3]) + more


def save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors on the CPU as a safetensors file.

    :raises OSError: the system refuses it, for example because the disk is full.
    """
    whole = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
    try:
        save_file(whole, path, metadata={"format": "pt"})
    except SafetensorError as error:
        if number := re.search(r"\(os error (\d+)\)", str(error)):
            raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from error
        raise


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file onto the CPU.

    :raises BundleError: it is missing or damaged.
    """
    try:
        LOG.debug("reading %s", path)
        tensors: dict[str, Tensor] = load_file(path)
    except (OSError, SafetensorError) as error:
        raise BundleError(f"{path} cannot be read: {error}") from error
    return tensors
