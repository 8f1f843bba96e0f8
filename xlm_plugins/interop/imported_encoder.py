"""An encoder of another library under our names, and the bundle that it becomes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from xlm_plugins.config.model import ModelOptions
from xlm_plugins.contracts.tokenizer import Tokenizer
from xlm_plugins.core.errors import BundleError, PluginError
from xlm_plugins.core.plugins import Plugins
from xlm_plugins.core.registry import Component
from xlm_plugins.interop.new_bundle import write_bundle
from xlm_plugins.interop.weight_names import TOKENS
from xlm_plugins.model.description import ChosenObjective, ModelDescription


@dataclass(frozen=True)
class ImportedEncoder:
    """An encoder that was read, but is not a bundle yet.

    :param weights: by our names.
    :param languages: the id of each language that the model distinguishes.
    :param special: ids of special tokens that its configuration names, by role.
    :param objective: what it was trained on; None if it has no output layer of its own.
    :param notes: what the user should know.
    """

    options: ModelOptions
    weights: Mapping[str, Tensor]
    languages: Mapping[str, int]
    special: Mapping[str, int]
    objective: str | None
    notes: tuple[str, ...] = ()

    @property
    def vocabulary_size(self) -> int:
        """Rows of the token embedding."""
        return len(self.weights[TOKENS])


def write_encoder(
    model: ImportedEncoder,
    component: Component,
    tokenizer: Tokenizer,
    out: Path,
    plugins: Plugins,
    origin: str,
) -> list[str]:
    """Write an encoder and its tokenizer as a bundle.

    :param component: the tokenizer's.
    :param origin: where the encoder comes from, for error messages.
    :returns: what the user should know.
    :raises BundleError: the two do not match, or ``out`` exists.
    """
    _check_fit(model, tokenizer)
    notes = list(model.notes)
    objectives: tuple[ChosenObjective, ...] = ()
    if model.objective:
        try:
            chosen = plugins.get("objective", model.objective)
            objectives = (ChosenObjective(chosen, chosen.options()),)
        except PluginError:
            notes.append(
                f"the objective {model.objective} is not installed: the bundle has no objective"
            )
    description = ModelDescription(
        model.options, tokenizer.vocabulary(), model.languages, ("encoder",), objectives=objectives
    )
    write_bundle(out, description, component, tokenizer, model.weights, origin)
    return notes


def _check_fit(model: ImportedEncoder, tokenizer: Tokenizer) -> None:
    n_tokens = len(tokenizer.tokens())
    if n_tokens != model.vocabulary_size:
        raise BundleError(
            f"the tokenizer has {n_tokens} ids, but the model {model.vocabulary_size}",
            expected="the tokenizer that the model was trained with",
        )
    for role, number in model.special.items():
        if tokenizer.special(role) != number:
            raise BundleError(
                f"the id of {role} is {tokenizer.special(role)} in the tokenizer, but {number} "
                "in the model's configuration",
                expected="the tokenizer that the model was trained with",
            )
