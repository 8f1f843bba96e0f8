"""The description of a model: everything needed to build it again, without its weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

from xlm_plugins.config.model import ModelOptions
from xlm_plugins.contracts.batch import Vocabulary
from xlm_plugins.contracts.layer import Layer
from xlm_plugins.contracts.objective import Objective, Trainable
from xlm_plugins.core.options import build, to_mapping
from xlm_plugins.core.plugins import Plugins
from xlm_plugins.core.recorded_components import resolve_options, resolve_recorded
from xlm_plugins.core.registry import Component
from xlm_plugins.core.selection import Position, StackName, parse_positions
from xlm_plugins.model.classifier import Classifier, ClassifierDescription
from xlm_plugins.model.model import Model


@dataclass(frozen=True)
class PlacedLayer:
    """A layer component and its position."""

    position: Position
    component: Component
    options: Any


@dataclass(frozen=True)
class ChosenObjective:
    """An objective component and the steps (languages, pairs or loops) that it is trained on."""

    component: Component
    options: Any
    steps: tuple[str, ...] = ()


def build_objective(
    component: Component, options: Any, vocabulary: Vocabulary, languages: Mapping[str, int]
) -> Objective:
    """Build an objective; its name is that of the component."""
    objective: Objective = component.load()(options, vocabulary, languages)
    objective.name = component.name
    return objective


@dataclass(frozen=True)
class ModelDescription:
    """Everything that defines a model except its weights.

    :param vocabulary: size and special ids of the tokenizer.
    :param languages: the id of each language; stored by name, so that no order is assumed.
    :param stacks: the stacks that the objectives need.
    :param classifier: the head of the task that the model was fine-tuned on, if it was.
    """

    options: ModelOptions
    vocabulary: Vocabulary
    languages: Mapping[str, int]
    stacks: tuple[StackName, ...]
    layers: tuple[PlacedLayer, ...] = ()
    objectives: tuple[ChosenObjective, ...] = ()
    classifier: ClassifierDescription | None = None

    @property
    def known_languages(self) -> Mapping[str, int] | None:
        """The languages that have embeddings; None if the model has no language embeddings."""
        return self.languages if self.options.language_embeddings else None

    def build_objectives(self) -> dict[str, Objective]:
        """The objectives by component name."""
        built = (
            build_objective(chosen.component, chosen.options, self.vocabulary, self.languages)
            for chosen in self.objectives
        )
        return {objective.name: objective for objective in built}

    def build_classifier(self) -> Classifier | None:
        """The classifier, if the model was fine-tuned."""
        return None if self.classifier is None else Classifier(self.classifier)

    def build_model(self, trainables: Mapping[str, Trainable]) -> Model:
        """Build the model with new weights, drawn from torch's current random state.

        :param trainables: the objectives and the classifier, by name; their modules become heads.
        """
        return Model(
            self.options,
            self.vocabulary.size,
            len(self.languages),
            self.stacks,
            self.vocabulary.roles["pad"],
            self._build_layers(),
            {
                name: modules
                for name, t in trainables.items()
                if (modules := t.modules(self.options))
            },
        )

    def _build_layers(self) -> dict[Position, Layer]:
        """Build layers; those of one component with the same options at once, so they can share."""
        positions: dict[tuple[Component, Any], list[Position]] = {}
        for placed in self.layers:
            positions.setdefault((placed.component, placed.options), []).append(placed.position)
        layers: dict[Position, Layer] = {}
        for (component, options), places in positions.items():
            built = component.load().build(options, self.options.dim, len(places))
            for place, layer in zip(places, built, strict=True):
                layer.name = component.name
                layers[place] = layer
        return layers

    def to_json(self) -> dict[str, Any]:
        """The contents of model.json."""
        return {
            "model": to_mapping(self.options),
            "vocabulary": {
                "size": self.vocabulary.size,
                "roles": dict(self.vocabulary.roles),
                "reserved": list(self.vocabulary.reserved),
            },
            "languages": dict(self.languages),
            "stacks": list(self.stacks),
            "layers": [
                {
                    "position": str(placed.position),
                    "component": placed.component.full_name,
                    "options": to_mapping(placed.options),
                }
                for placed in self.layers
            ],
            "objectives": [
                {
                    "component": chosen.component.full_name,
                    "steps": list(chosen.steps),
                    "options": to_mapping(chosen.options),
                }
                for chosen in self.objectives
            ],
            "classifier": self.classifier.to_json() if self.classifier else None,
        }

    @classmethod
    def from_json(
        cls, tree: dict[str, Any], plugins: Plugins, made_with: Mapping[str, str]
    ) -> ModelDescription:
        """Read what `to_json` wrote.

        :param made_with: ``distribution version`` by ``kind/name``, for error messages.
        :raises PluginError: a plugin that the model was made with is missing.
        :raises KeyError: the tree is not a description.
        """

        def component(kind: str, item: dict[str, Any]) -> tuple[Component, Any]:
            distribution, _, name = item["component"].rpartition("/")
            origin = made_with.get(f"{kind}/{name}", distribution)
            found = resolve_recorded(plugins, kind, item["component"], origin, "the model")
            return found, resolve_options(found, item["options"], origin, "the model")

        vocabulary = tree["vocabulary"]
        return cls(
            build(ModelOptions, tree["model"], "model"),
            Vocabulary(vocabulary["size"], vocabulary["roles"], tuple(vocabulary["reserved"])),
            tree["languages"],
            tuple(name for name in get_args(StackName) if name in tree["stacks"]),
            tuple(
                PlacedLayer(parse_positions(item["position"])[0], *component("layer", item))
                for item in tree["layers"]
            ),
            tuple(
                ChosenObjective(*component("objective", item), tuple(item["steps"]))
                for item in tree["objectives"]
            ),
            ClassifierDescription.from_json(c) if (c := tree.get("classifier")) else None,
        )
