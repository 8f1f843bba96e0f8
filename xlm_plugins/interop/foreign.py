"""A model of another library, under our names, and the bundle that it becomes."""

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
from xlm_plugins.interop.naming import TOKENS
from xlm_plugins.interop.new_bundle import write_bundle
from xlm_plugins.model.description import ChosenObjective, ModelDescription


@dataclass(frozen=True)
class ForeignEncoder:
    """An encoder that was read and is not yet a bundle.

    :param weights: by our names.
    :param languages: the id of each language that the model tells apart.
    :param special: the ids that its configuration gives some roles.
    :param objective: what it was trained on; None where it has no output layer of its own.
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
        """Rows of the table of tokens."""
        return len(self.weights[TOKENS])


def write_encoder(
    model: ForeignEncoder,
    component: Component,
    tokenizer: Tokenizer,
    out: Path,
    plugins: Plugins,
    origin: str,
) -> list[str]:
    """Write an encoder and its tokenizer as a bundle.

    :param component: the tokenizer's.
    :param origin: where the encoder comes from, for errors.
    :returns: what the user should know.
    :raises BundleError: the two do not fit each other, or ``out`` exists.
    """
    _check_fit(model, tokenizer)
    notes = list(model.notes)
    objectives: tuple[ChosenObjective, ...] = ()
    if model.objective:
        try:
            chosen = plugins.get("objective", model.objective)
            objectives = (ChosenObjective(chosen, chosen.options()),)
        except PluginError:
            notes.append(f"the objective {model.objective} is not installed: trained on nothing")
    description = ModelDescription(
        model.options, tokenizer.vocabulary(), model.languages, ("encoder",), objectives=objectives
    )
    write_bundle(out, description, component, tokenizer, model.weights, origin)
    return notes


def _check_fit(model: ForeignEncoder, tokenizer: Tokenizer) -> None:
    n_tokens = len(tokenizer.tokens())
    if n_tokens != model.vocabulary_size:
        raise BundleError(
            f"the tokenizer has {n_tokens} ids, and the model {model.vocabulary_size}",
            expected="the tokenizer that the model was trained with",
        )
    for role, number in model.special.items():
        if tokenizer.special(role) != number:
            raise BundleError(
                f"the id of {role} is {tokenizer.special(role)} in the tokenizer, and {number} "
                "in the model's configuration",
                expected="the tokenizer that the model was trained with",
            )
