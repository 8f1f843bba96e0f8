"""The state that an engine resumes from, in memory and on disk; nothing is pickled."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from xlm_plugins.core.errors import BundleError
from xlm_plugins.core.files import write_json
from xlm_plugins.model.weights import load_tensors, save_tensors
from xlm_plugins.runs.layout import WEIGHTS_NAME
from xlm_plugins.training.optim.adamw import MOMENTS

MOMENTS_NAME = "optimizer.safetensors"
STATE_NAME = "state.json"


@dataclass(frozen=True)
class TrainingState:
    """Everything that an engine needs to resume, whatever engine and world size wrote it.

    :param weights: fp32 parameters and buffers by name, on the CPU; tied parameters once.
    :param moments: by moment (``exp_avg``, ``exp_avg_sq``), then by trained parameter.
    :param n_updates: updates made, without skipped ones.
    :param loss_scale: fp16's dynamic loss scaling; empty for other precisions.
    """

    weights: dict[str, Tensor]
    moments: dict[str, dict[str, Tensor]]
    n_updates: int = 0
    loss_scale: dict[str, float] = field(default_factory=dict)


def moments_for(state: TrainingState, names: Iterable[str]) -> dict[str, dict[str, Tensor]]:
    """The state's moments, checked against the parameters that are trained.

    :raises BundleError: other parameters were trained.
    """
    wanted = set(names)
    for key in MOMENTS:
        if wanted != (found := state.moments.get(key, {}).keys()):
            differing = sorted(wanted ^ found)
            raise BundleError(
                f"the checkpoint's moments {key} are not those of the parameters to train now: "
                f"{len(differing)} differ, such as {differing[0]}",
                remedy="use the --train-only of the run that wrote it: see RUN/config.toml",
            )
    return state.moments


def save_training_state(folder: Path, state: TrainingState) -> None:
    """Write weights, moments and counters into a folder that `write_folder` fills."""
    moments = {
        f"{name}.{key}": tensor
        for key, tensors in state.moments.items()
        for name, tensor in tensors.items()
    }
    save_tensors(folder / WEIGHTS_NAME, state.weights)
    save_tensors(folder / MOMENTS_NAME, moments)
    counters = {"n_updates": state.n_updates, "loss_scale": state.loss_scale}
    write_json(folder / STATE_NAME, counters)


def load_training_state(folder: Path) -> TrainingState:
    """Read what `save_training_state` wrote.

    :raises BundleError: a file is missing or unreadable, by name.
    """
    moments: dict[str, dict[str, Tensor]] = {}
    for full_name, tensor in load_tensors(folder / MOMENTS_NAME).items():
        name, _, key = full_name.rpartition(".")
        moments.setdefault(key, {})[name] = tensor
    try:
        counters = json.loads((folder / STATE_NAME).read_text(encoding="utf-8"))
        n_updates, loss_scale = int(counters["n_updates"]), dict(counters["loss_scale"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BundleError(f"{folder / STATE_NAME} cannot be read: {error}") from error
    return TrainingState(load_tensors(folder / WEIGHTS_NAME), moments, n_updates, loss_scale)
