"""Bundles: a model on disk with everything needed to use it.

``model.json`` (the description), ``model.safetensors`` (fp32 weights by parameter name, tied
tensors once), ``tokenizer/`` and ``plugins.json`` (the distributions that made it).  Loading a
bundle never executes anything in it.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import torch

from xlm_plugins.contracts.objective import Objective
from xlm_plugins.contracts.tokenizer import Tokenizer
from xlm_plugins.core.errors import BundleError
from xlm_plugins.core.files import read_json, write_json
from xlm_plugins.core.plugins import Plugins
from xlm_plugins.core.recorded_components import PLUGINS_NAME
from xlm_plugins.core.saved_tokenizers import SavedTokenizer, load_tokenizer
from xlm_plugins.model.classifier import Classifier
from xlm_plugins.model.description import ModelDescription
from xlm_plugins.model.model import Model
from xlm_plugins.model.weights import load_tensors, load_weights, named_weights, save_tensors
from xlm_plugins.runs.layout import BUNDLE_FORMAT, MODEL_NAME, TOKENIZER_NAME, WEIGHTS_NAME


@dataclass(frozen=True)
class TextModel:
    """Everything needed to apply a model to text; it need not be on disk.

    :param objectives: those that it was trained on, by component name.
    """

    description: ModelDescription
    model: Model
    tokenizer: Tokenizer
    objectives: dict[str, Objective]


@dataclass(frozen=True)
class Bundle(TextModel):
    """A model that was loaded from disk, in eval mode.

    :param path: the bundle's folder.
    :param classifier: the head of the task that it was fine-tuned on, if it was.
    """

    path: Path
    classifier: Classifier | None = None

    @classmethod
    def load(cls, path: Path, plugins: Plugins, device: str | torch.device = "cpu") -> Bundle:
        """Build the model of a bundle folder and load its weights.

        :raises BundleError: the folder is not a bundle, or is damaged.
        :raises PluginError: a plugin that it was made with is missing.
        """
        description = read_description(path, plugins)
        objectives = description.build_objectives()
        classifier = description.build_classifier()
        heads = {classifier.name: classifier} if classifier else {}
        model = description.build_model({**objectives, **heads})
        load_weights(model, load_tensors(path / WEIGHTS_NAME), str(path))
        tokenizer = load_tokenizer(plugins, path / TOKENIZER_NAME)
        return cls(description, model.eval().to(device), tokenizer, objectives, path, classifier)

    def save(self, folder: Path) -> None:
        """Write the bundle, with its current weights, into a new folder."""
        folder.mkdir(parents=True)
        write_description(folder, self.description, self.path / TOKENIZER_NAME)
        save_tensors(folder / WEIGHTS_NAME, named_weights(self.model))


def write_description(folder: Path, description: ModelDescription, tokenizer: Path) -> None:
    """Write everything of a bundle except the weights.

    :param tokenizer: the folder of a saved tokenizer, which is copied.
    """
    write_json(folder / MODEL_NAME, {"format": BUNDLE_FORMAT, **description.to_json()})
    shutil.copytree(tokenizer, folder / TOKENIZER_NAME, dirs_exist_ok=True)
    used = [placed.component for placed in description.layers]
    used += [chosen.component for chosen in description.objectives]
    made_with = {f"{c.kind}/{c.name}": f"{c.distribution} {c.version}" for c in used}
    saved = SavedTokenizer.read(tokenizer)
    made_with[f"tokenizer/{saved.name}"] = f"{saved.distribution} {saved.version}"
    write_json(folder / PLUGINS_NAME, made_with)


def read_description(path: Path, plugins: Plugins) -> ModelDescription:
    """Read the description in a bundle folder.

    :raises BundleError: the folder is not a bundle, is damaged, or has another format.
    :raises PluginError: a plugin that it was made with is missing.
    """
    if not (path / MODEL_NAME).is_file():
        raise BundleError(
            f"{path} is neither a run nor a model bundle: it has no {MODEL_NAME}",
            expected="a folder that `xlm train` wrote",
        )
    tree, made_with = read_json(path / MODEL_NAME), read_json(path / PLUGINS_NAME)
    if tree.get("format") != BUNDLE_FORMAT:
        raise BundleError(
            f"{path} has bundle format {tree.get('format')}", expected=f"format {BUNDLE_FORMAT}"
        )
    try:
        return ModelDescription.from_json(tree, plugins, made_with)
    except (ValueError, KeyError, TypeError) as error:
        raise BundleError(f"{path} is a damaged bundle: {type(error).__name__}: {error}") from error
