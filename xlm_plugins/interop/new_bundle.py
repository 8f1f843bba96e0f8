"""Writing an imported model as a bundle, whole or not at all, one tensor at a time.

The model is never built with its weights, so an import needs no more memory than reading them.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from xlm_plugins.contracts.tokenizer import Tokenizer
from xlm_plugins.core.errors import BundleError
from xlm_plugins.core.files import whole_folder
from xlm_plugins.core.registry import Component
from xlm_plugins.core.saved_tokenizers import save_tokenizer
from xlm_plugins.model.bundle import write_description
from xlm_plugins.model.description import ModelDescription
from xlm_plugins.model.weights import misfits, named_weights
from xlm_plugins.runs.layout import WEIGHTS_NAME

_NAMES = {torch.float32: "F32", torch.int64: "I64"}


def check_out(out: Path) -> None:
    """Refuse to overwrite anything.

    :raises BundleError: ``out`` exists and is not an empty folder.
    """
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise BundleError(
            f"{out} already exists",
            expected="a folder that does not exist yet",
            remedy=f"choose another name, or remove it: rm -r {out}",
        )


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A temporary folder to write into, which becomes ``out`` if the block succeeds.

    :raises BundleError: ``out`` exists.
    """
    check_out(out)
    with whole_folder(out, shared=True) as folder:
        yield folder


def write_bundle(
    out: Path,
    description: ModelDescription,
    component: Component,
    tokenizer: Tokenizer,
    weights: Mapping[str, Tensor],
    origin: str,
) -> None:
    """Write a bundle.

    :param component: the tokenizer's.
    :param weights: by our names; floats are stored in fp32, other numbers in int64.
    :param origin: where the weights come from, for error messages.
    :raises BundleError: the weights do not match the description, or ``out`` exists.
    """
    if faults := misfits(_expected(description), weights):
        raise BundleError(f"the weights of {origin} do not match its options: {faults}")
    with new_folder(out) as folder, tempfile.TemporaryDirectory() as saved:
        save_tokenizer(component, tokenizer, Path(saved))
        write_description(folder, description, Path(saved))
        write_tensors(folder / WEIGHTS_NAME, weights)


def _expected(description: ModelDescription) -> dict[str, Tensor]:
    """The tensors that a bundle of the described model must hold; only their shapes matter."""
    # A plugin's layer may compute something when it is built, which the device meta cannot.
    with torch.device("cpu" if description.layers else "meta"):
        return named_weights(description.build_model(description.build_objectives()))


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write a safetensors file, converting one tensor at a time.

    safetensors' own writer needs all tensors in memory in the type that they are written in.
    """
    kinds = {
        name: torch.float32 if tensor.is_floating_point() else torch.int64
        for name, tensor in tensors.items()
    }
    order = sorted(tensors, key=lambda name: (-kinds[name].itemsize, name))  # keeps them aligned
    table: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name in order:
        begin, end = end, end + tensors[name].numel() * kinds[name].itemsize
        shape = list(tensors[name].shape)
        table[name] = {"dtype": _NAMES[kinds[name]], "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(table).encode()
    text += b" " * (-len(text) % 8)
    with path.open("xb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in order:
            values = tensors[name].detach().to(kinds[name]).contiguous()
            file.write(values.view(-1).numpy().data.cast("B"))
