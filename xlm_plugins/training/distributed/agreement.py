"""A check that all ranks are about to do the same, before anything is trained.

Ranks with different objectives, data or code would train wrongly or hang without a visible reason.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch.distributed as dist

import xlm_plugins
from xlm_plugins.config.training import OptimizerOptions, RunOptions
from xlm_plugins.core.errors import RunError
from xlm_plugins.core.plugins import Plugins

_OWN = {
    "out", "resume", "data", "data_cache", "data_cache_gb", "workers", "threads", "deepspeed_config"
}  # fmt: skip
"""Options that may differ between ranks: paths on their machines, and what affects speed alone."""

_SHOWN = 3


def facts(
    options: RunOptions,
    optimizer: OptimizerOptions,
    description: Mapping[str, Any],
    data: str,
    update: int,
    updates: Sequence[str],
    plugins: Plugins,
) -> dict[str, str]:
    """Everything that decides what a rank does, by name, each as a short text.

    :param description: of the model, as in model.json.
    :param data: fingerprint of the training data.
    :param update: updates made.
    :param updates: what each of the next updates trains on.
    """
    settings = {**dataclasses.asdict(options), **dataclasses.asdict(optimizer)}
    found = {
        f"--{name.replace('_', '-')}": str(value)
        for name, value in settings.items()
        if name not in _OWN
    }
    if options.resume is not None or update:
        found["checkpoint"] = f"after {update} updates"
    versions = {state.distribution: state.version for state in plugins.states}
    return {
        **found,
        "data": data,
        "model": _digest(json.dumps(description, sort_keys=True, default=str)),
        "objectives of the next updates": f"{_digest(' '.join(updates))} "
        f"{' '.join(updates[:_SHOWN])}",
        "xlm-plugins": f"{version('xlm-plugins')} {_sources()}",
        "torch": version("torch"),
        "plugins": " ".join(f"{name} {number}" for name, number in sorted(versions.items())),
    }


def check(mine: Mapping[str, str]) -> None:
    """Compare all ranks.  Collective: every rank raises an error, or none.

    :param mine: this rank's `facts`.
    :raises RunError: says which ranks differ from rank 0, and in what.
    """
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return
    found: list[dict[str, str]] = [{} for _ in range(dist.get_world_size())]
    dist.all_gather_object(found, dict(mine))
    if faults := differences(found):
        raise RunError(
            f"the ranks are not about to do the same: {'; '.join(faults)}",
            expected="the same command, data, code and packages on every node",
            remedy="start all ranks with the same command line; keep code and data on a shared "
            "file system, or copy them to the nodes again",
        )


def differences(found: Sequence[Mapping[str, str]]) -> list[str]:
    """How ranks differ from rank 0: one text per fact, naming the first few ranks.

    :param found: the facts of each rank, in order.
    """
    faults = []
    for name in {name: None for facts in found for name in facts}:
        first = found[0].get(name, "nothing")
        others = [(rank, facts.get(name, "nothing")) for rank, facts in enumerate(found)]
        differing = [(rank, value) for rank, value in others if value != first]
        if differing:
            shown = ", ".join(f"rank {rank} has {value}" for rank, value in differing[:_SHOWN])
            more = f" and {len(differing) - _SHOWN} more ranks" * (len(differing) > _SHOWN)
            faults.append(f"{name}: rank 0 has {first}, {shown}{more}")
    return faults


def _sources() -> str:
    """A digest of the source code: an installed copy may be older than its version suggests."""
    root = Path(xlm_plugins.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]
