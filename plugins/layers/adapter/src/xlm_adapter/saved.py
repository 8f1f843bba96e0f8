"""Adapters on disk without their base: a bundle without what is in the base.

::

    ADAPTER/model.json, plugins.json   as the bundle has them
    ADAPTER/adapter.safetensors        what was trained: adapters and head
    ADAPTER/adapter.json               which base they need
"""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from xlm_adapter.layer import Adapter
from xlm_plugins import (
    Bundle,
    BundleError,
    Model,
    Plugins,
    find_bundle,
    named_weights,
    read_json,
    whole_folder,
    write_json,
)

FORMAT = 1
RECORD_NAME = "adapter.json"
TENSORS_NAME = "adapter.safetensors"
DESCRIPTION_NAMES = ("model.json", "plugins.json")


@dataclass(frozen=True)
class Record:
    """Which base the adapters need.

    :param tokenizer: fingerprint of its tokenizer.
    :param base: SHA-256 of each frozen parameter, by name.
    """

    format: int
    tokenizer: str
    base: dict[str, str]


def save(reference: str, out: Path, plugins: Plugins) -> tuple[int, int]:
    """Write the trained part of a model with adapters.

    :param reference: a run or a bundle, as for `find_bundle`.
    :param out: the folder to write, which must not exist.
    :returns: the number of parameters written, and of all parameters.
    :raises BundleError: there is no such model, it has no adapters, or ``out`` exists.
    """
    _check_free(out)
    bundle = Bundle.load(find_bundle(reference), plugins)
    frozen = _frozen(bundle.model)
    if not frozen:
        raise BundleError(
            f"{reference} has no adapters",
            expected="a model trained with --layer adapter",
        )
    weights = named_weights(bundle.model)
    trained = {name: tensor for name, tensor in weights.items() if name not in frozen}
    checksums = {name: _checksum(weights[name]) for name in sorted(frozen)}
    record = Record(FORMAT, bundle.tokenizer.fingerprint, checksums)
    with whole_folder(out, shared=True) as folder:
        for name in DESCRIPTION_NAMES:
            shutil.copy(bundle.path / name, folder)
        save_file(trained, folder / TENSORS_NAME)
        write_json(folder / RECORD_NAME, asdict(record))
    return _size(trained), _size(weights)


def apply(reference: str, adapter: Path, out: Path, plugins: Plugins) -> None:
    """Write the bundle of a base with adapters that `save` wrote.

    :param reference: the base: a run or a bundle, as for `find_bundle`.
    :param out: the folder to write, which must not exist.
    :raises BundleError: the adapters were trained on other weights or with another tokenizer,
        something is missing or damaged, or ``out`` exists.
    """
    _check_free(out)
    record, trained = _read(adapter)
    base = Bundle.load(find_bundle(reference), plugins)
    weights = named_weights(base.model)
    _check_base(reference, adapter, record, base.tokenizer.fingerprint, weights)
    frozen = {name: weights[name] for name in record.base}
    with whole_folder(out, shared=True) as folder:
        for name in DESCRIPTION_NAMES:
            shutil.copy(adapter / name, folder)
        shutil.copytree(base.path / "tokenizer", folder / "tokenizer")
        save_file(frozen | trained, folder / "model.safetensors", metadata={"format": "pt"})
        Bundle.load(folder, plugins)  # refuses a bundle that cannot be loaded, before it is renamed


def _read(adapter: Path) -> tuple[Record, dict[str, Tensor]]:
    expected = "a folder that `xlm adapter save` wrote"
    if not (adapter / RECORD_NAME).is_file():
        raise BundleError(f"{adapter} has no adapters: no {RECORD_NAME}", expected=expected)
    try:
        record = Record(**read_json(adapter / RECORD_NAME))
        trained = load_file(adapter / TENSORS_NAME)
    except (OSError, TypeError, SafetensorError) as error:
        raise BundleError(f"{adapter} is damaged: {error}", expected=expected) from error
    if record.format != FORMAT:
        raise BundleError(f"{adapter} has format {record.format}", expected=f"format {FORMAT}")
    return record, trained


def _check_base(
    reference: str,
    adapter: Path,
    record: Record,
    tokenizer: str,
    weights: dict[str, Tensor],
) -> None:
    """Check that a base is the one that the adapters were trained on."""
    remedy = "use the model that was given to the run of the adapters by --init"
    if tokenizer != record.tokenizer:
        raise BundleError(
            f"{reference} has the tokenizer {tokenizer}",
            expected=f"{record.tokenizer}, which {adapter} was trained with",
            remedy=remedy,
        )
    differing = [
        name
        for name, checksum in record.base.items()
        if name not in weights or _checksum(weights[name]) != checksum
    ]
    if differing:
        more = f" and {len(differing) - 3} more differ" if len(differing) > 3 else " differ"
        raise BundleError(
            f"{reference} is not the base of {adapter}: {', '.join(differing[:3])}{more}",
            expected="the weights that were frozen when the adapters were trained",
            remedy=remedy,
        )


def _frozen(model: Model) -> set[str]:
    """The parameters that are not trained; none without adapters."""
    layers = model.layers_by_position.values()
    if not any(isinstance(layer, Adapter) for layer in layers):
        return set()
    asking = [layer for layer in layers if layer.train_only()]
    own = {id(parameter) for layer in asking for parameter in layer.parameters()}
    patterns = {pattern for layer in asking for pattern in layer.train_only()}
    return {
        name
        for name, parameter in model.named_parameters()
        if id(parameter) not in own and not any(fnmatchcase(name, p) for p in patterns)
    }


def _checksum(tensor: Tensor) -> str:
    return hashlib.sha256(tensor.detach().contiguous().numpy().data).hexdigest()


def _size(tensors: dict[str, Tensor]) -> int:
    return sum(tensor.numel() for tensor in tensors.values())


def _check_free(out: Path) -> None:
    if out.exists():
        raise BundleError(f"{out} already exists", remedy="remove it, or choose another folder")
