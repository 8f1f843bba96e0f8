"""Bundles: a model on disk with all that it needs to be used.

``model.json`` (the description), ``model.safetensors`` (fp32 weights by parameter name, a tied
tensor once), ``tokenizer/`` and ``plugins.json`` (which distributions made it).  Nothing in a
bundle is ever executed when it is loaded.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from xlm_plugins.core.contracts import Objective, Tokenizer
from xlm_plugins.core.errors import BundleError
from xlm_plugins.core.plugins import Plugins
from xlm_plugins.core.registry import Component
from xlm_plugins.core.tokenizers import load_tokenizer, save_tokenizer
from xlm_plugins.model.description import ModelDescription
from xlm_plugins.model.root import Model

FORMAT = 1
MODEL_NAME = "model.json"
WEIGHTS_NAME = "model.safetensors"
PLUGINS_NAME = "plugins.json"
TOKENIZER_NAME = "tokenizer"


@dataclass(frozen=True)
class Bundle:
    """A model that is ready to be used, in eval mode."""

    path: Path
    description: ModelDescription
    model: Model
    tokenizer: Tokenizer
    objectives: dict[str, Objective]

    @classmethod
    def load(cls, path: Path, plugins: Plugins, device: str | torch.device = "cpu") -> Bundle:
        """Build the model of a bundle folder and put its weights in.

        :raises BundleError: the folder is no bundle, or is damaged.
        :raises PluginError: a plugin that made it is missing.
        """
        description = read_description(path, plugins)
        objectives = description.build_objectives()
        model = description.build_model(objectives)
        load_weights(model, read_weights(path), str(path))
        tokenizer = load_tokenizer(plugins, path / TOKENIZER_NAME)
        return cls(path, description, model.eval().to(device), tokenizer, objectives)


def write_description(
    folder: Path, description: ModelDescription, component: Component, tokenizer: Tokenizer
) -> None:
    """Write all of a bundle but the weights.

    :param component: the component that the tokenizer came from.
    """
    tree = {"format": FORMAT, **description.to_json()}
    _write_json(folder / MODEL_NAME, tree)
    _write_json(folder / PLUGINS_NAME, made_with(description, component))
    (folder / TOKENIZER_NAME).mkdir(exist_ok=True)
    save_tokenizer(component, tokenizer, folder / TOKENIZER_NAME)


def made_with(description: ModelDescription, tokenizer: Component) -> dict[str, str]:
    """``distribution version`` of every component in use, by ``kind/name``."""
    used = [placed.component for placed in description.layers]
    used += [chosen.component for chosen in description.objectives] + [tokenizer]
    return {f"{c.kind}/{c.name}": f"{c.distribution} {c.version}" for c in used}


def write_weights(folder: Path, weights: dict[str, Tensor]) -> None:
    """Write weights by name; they are copied to the CPU in fp32."""
    whole = {name: t.detach().to("cpu").contiguous() for name, t in weights.items()}
    save_file(whole, folder / WEIGHTS_NAME, metadata={"format": "pt"})


def read_description(path: Path, plugins: Plugins) -> ModelDescription:
    """The description in a bundle folder.

    :raises BundleError: the folder is no bundle, is damaged, or of another format.
    """
    if not (path / MODEL_NAME).is_file():
        raise BundleError(
            f"{path} is neither a run nor a model bundle: it has no {MODEL_NAME}",
            expected="a folder that `xlm train` wrote",
        )
    try:
        tree = json.loads((path / MODEL_NAME).read_text(encoding="utf-8"))
        origins = json.loads((path / PLUGINS_NAME).read_text(encoding="utf-8"))
        version = tree.pop("format")
    except (OSError, ValueError, KeyError) as error:
        raise BundleError(f"{path} is a damaged bundle: {error}") from error
    if version != FORMAT:
        raise BundleError(f"{path} has bundle format {version}", expected=f"format {FORMAT}")
    return ModelDescription.from_json(tree, plugins, origins)


def read_weights(path: Path) -> dict[str, Tensor]:
    """The weights in a bundle folder, on the CPU.

    :raises BundleError: the file is missing or damaged.
    """
    try:
        weights: dict[str, Tensor] = load_file(path / WEIGHTS_NAME)
    except (OSError, SafetensorError) as error:
        raise BundleError(f"{path / WEIGHTS_NAME} cannot be read: {error}") from error
    return weights


def load_weights(model: Model, weights: dict[str, Tensor], origin: str) -> None:
    """Put weights into a model that they fit exactly.

    :raises BundleError: names or shapes differ; the first few are named.
    """
    own = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    kept = {name: own[name] for name in own if name in model.state_dict()}
    faults = [f"{name} is missing" for name in sorted(kept.keys() - weights.keys())]
    faults += [f"{name} is not in the model" for name in sorted(weights.keys() - kept.keys())]
    faults += [
        f"{name} is {tuple(weights[name].shape)}, the model's is {tuple(kept[name].shape)}"
        for name in sorted(kept.keys() & weights.keys())
        if weights[name].shape != kept[name].shape
    ]
    if faults:
        more = f" and {len(faults) - 3} more" if len(faults) > 3 else ""
        raise BundleError(f"the weights in {origin} do not fit: {'; '.join(faults[:3])}{more}")
    with torch.no_grad():
        for name, tensor in kept.items():
            tensor.copy_(weights[name])


def _write_json(path: Path, tree: object) -> None:
    path.write_text(json.dumps(tree, indent=1) + "\n", encoding="utf-8")
