"""From settings and a data set to what is trained: the model's description and the schedule."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from xlm_plugins.config.settings import Settings, trained_stacks
from xlm_plugins.contracts.batch import Layout, Step, Vocabulary
from xlm_plugins.contracts.objective import Objective
from xlm_plugins.contracts.tokenizer import Tokenizer
from xlm_plugins.core.errors import DataError, OptionError
from xlm_plugins.core.plugins import Plugins
from xlm_plugins.core.saved_tokenizers import load_tokenizer
from xlm_plugins.core.selection import (
    LayerSelection,
    ObjectiveSelection,
    StackName,
    check_positions,
    parse_positions,
)
from xlm_plugins.data.batches.planning import BatchSizes
from xlm_plugins.data.batches.pools import stream_languages
from xlm_plugins.data.batches.schedule import Schedule, ScheduledObjective
from xlm_plugins.data.dataset.manifest import COUNTS_NAME, TOKENIZER_NAME, Manifest
from xlm_plugins.data.dataset.remote_copy import open_data_set
from xlm_plugins.data.dataset.shards import check_shards
from xlm_plugins.data.prepare.embedded import embedded_data_set
from xlm_plugins.model.description import (
    ChosenObjective,
    ModelDescription,
    PlacedLayer,
    build_objective,
)


@dataclass(frozen=True)
class PretrainingPlan:
    """What a run trains on: data, model, and objectives with their steps and schedule."""

    folder: Path
    manifest: Manifest
    tokenizer: Tokenizer
    description: ModelDescription
    objectives: dict[str, Objective]
    steps: dict[str, list[Step]]
    schedule: Schedule
    sizes: BatchSizes


def make_plan(settings: Settings, plugins: Plugins) -> PretrainingPlan:
    """Open the data, and decide everything that can be decided before a model is built.

    :raises XLMError: something does not fit; nothing has been written then.
    """
    selections = _selected_objectives(settings)
    stacks = trained_stacks(settings.train.objective, plugins)
    layers = _placed_layers(settings, plugins, stacks)
    options = settings.train
    folder, manifest = open_data(options.data, plugins, options.data_cache, options.data_cache_gb)
    check_shards(folder, manifest, include_training=not options.skip_bad_shards)
    tokenizer = _own_tokenizer(folder, manifest, plugins)
    vocabulary = manifest.vocabulary(_token_counts(folder))
    languages = {code: index for index, code in enumerate(manifest.languages)}
    choices = {
        name: _choose(selection, settings, plugins, manifest, vocabulary, languages)
        for name, selection in selections.items()
    }
    objectives = {name: choice.objective for name, choice in choices.items()}
    _check_lengths(settings, choices.values())
    return PretrainingPlan(
        folder,
        manifest,
        tokenizer,
        ModelDescription(
            settings.model,
            vocabulary,
            languages,
            stacks,
            layers,
            tuple(choice.recorded for choice in choices.values()),
        ),
        objectives,
        {name: list(choice.plan.steps) for name, choice in choices.items()},
        Schedule([choice.plan for choice in choices.values()], options.seed),
        BatchSizes(
            options.batch_tokens,
            options.lanes,
            options.max_length,
            options.window,
            options.group_by_length,
        ),
    )


def open_data(
    data: str | None, plugins: Plugins, cache: str | None = None, cache_gb: float | None = None
) -> tuple[Path, Manifest]:
    """Open a data set; the embedded corpus if none is named.

    :param data: a folder or its URL.
    :param cache, cache_gb: where and how much of a URL is cached, as in `open_data_set`.
    :raises DataError: there is no data set, or it cannot be fetched.
    """
    return open_data_set(data or str(embedded_data_set(plugins)), cache, cache_gb)


def check_tokenizer(manifest: Manifest, folder: Path, fingerprint: str, model: str) -> None:
    """Refuse a data set that was not encoded with the model's tokenizer.

    :raises DataError: the fingerprints differ.
    """
    if manifest.tokenizer.fingerprint != fingerprint:
        raise DataError(
            f"{folder} was encoded with the tokenizer {manifest.tokenizer.fingerprint}, and "
            f"{model} was trained with {fingerprint}",
            remedy=f"encode the text again: xlm prepare SOURCE OUT --tokenizer-from {model}",
        )


@dataclass(frozen=True)
class _Choice:
    """One selected objective: built, as bundles record it, and as the schedule draws it."""

    objective: Objective
    recorded: ChosenObjective
    plan: ScheduledObjective


def _choose(
    selection: ObjectiveSelection,
    settings: Settings,
    plugins: Plugins,
    manifest: Manifest,
    vocabulary: Vocabulary,
    languages: Mapping[str, int],
) -> _Choice:
    component = plugins.get("objective", selection.name)
    options = settings.components[selection.name]
    objective = build_objective(component, options, vocabulary, languages)
    steps = tuple(_steps_of(selection, objective, manifest))
    sizes = tuple(
        manifest.stream("train", stream_languages(objective.layout(step), step)).n_sentences
        for step in steps
    )
    return _Choice(
        objective,
        ChosenObjective(component, options, tuple(map(str, steps))),
        ScheduledObjective(
            component.name, steps, sizes, selection.weight, settings.train.sampling_alpha
        ),
    )


def _check_lengths(settings: Settings, choices: Iterable[_Choice]) -> None:
    """Refuse samples that are longer than the model has positions."""
    layouts = {choice.objective.layout(step) for choice in choices for step in choice.plan.steps}
    longest, options = settings.model.max_positions, settings.train
    if options.max_length + 2 > longest and layouts != {Layout.STREAM}:
        raise OptionError(
            f"--max-length {options.max_length} and two framing tokens do not fit into "
            f"--max-positions {longest}",
            expected=f"--max-length of at most {longest - 2}",
        )
    if options.window > longest and Layout.STREAM in layouts:
        raise OptionError(
            f"--window {options.window} does not fit into --max-positions {longest}",
            expected=f"--window of at most {longest}",
        )


def _own_tokenizer(folder: Path, manifest: Manifest, plugins: Plugins) -> Tokenizer:
    """The tokenizer in a data set's folder, which must be the one that encoded its text."""
    tokenizer = load_tokenizer(plugins, folder / TOKENIZER_NAME)
    if tokenizer.fingerprint != manifest.tokenizer.fingerprint:
        raise DataError(
            f"{folder} was encoded with the tokenizer {manifest.tokenizer.fingerprint}, and "
            f"{folder / TOKENIZER_NAME} holds {tokenizer.fingerprint}",
            remedy="restore that folder, or prepare the data again: xlm prepare SOURCE OUT",
        )
    return tokenizer


def _token_counts(folder: Path) -> np.ndarray | None:
    path = folder / COUNTS_NAME
    try:
        return np.load(path, allow_pickle=False) if path.is_file() else None
    except (ValueError, EOFError) as error:
        raise DataError(
            f"{path} is damaged: {error}",
            remedy="restore that file, or prepare the data again: xlm prepare SOURCE OUT",
        ) from error


def _selected_objectives(settings: Settings) -> dict[str, ObjectiveSelection]:
    """Selections by the component's own name: ``tlm`` for ``xlm-tlm/tlm``."""
    selections: dict[str, ObjectiveSelection] = {}
    for text in settings.train.objective:
        selection = ObjectiveSelection.parse(text)
        name = selection.name.rpartition("/")[2]
        if name in selections:
            raise OptionError(
                f"the objective {name} was selected twice",
                remedy=f"name its steps together: --objective {name}:STEP,STEP",
            )
        selections[name] = selection
    return selections


def _steps_of(
    selection: ObjectiveSelection, objective: Objective, manifest: Manifest
) -> list[Step]:
    """The steps that the user wrote, or all that the training data offers; each has text."""
    if selection.steps:
        steps = [objective.parse_step(text) for text in selection.steps]
    else:
        steps = objective.steps(manifest.monolingual("train"), manifest.pairs("train"))
    if not steps:
        raise DataError(
            f"--objective {selection.text}: the data has nothing to train it on",
            expected="parallel text" if 2 in objective.n_languages else "monolingual text",
            remedy="`xlm data DIR` shows what a data set contains",
        )
    for step in steps:
        try:
            manifest.stream("train", stream_languages(objective.layout(step), step))
        except DataError as error:
            raise DataError(
                f"--objective {selection.text}: {error.problem}",
                expected=error.expected,
                remedy=error.remedy,
            ) from error
    return steps


def _placed_layers(
    settings: Settings, plugins: Plugins, stacks: Collection[StackName]
) -> tuple[PlacedLayer, ...]:
    """Each selected layer at each of its positions.

    :raises OptionError: the model has no such position.
    """
    placed = []
    for text in settings.train.layer:
        selection = LayerSelection.parse(text)
        component = plugins.get("layer", selection.name)
        positions = selection.positions or parse_positions(
            component.load().default_position(settings.model.n_layers)
        )
        options = settings.components[selection.name]
        placed += [PlacedLayer(position, component, options) for position in positions]
    check_positions([layer.position for layer in placed], stacks, settings.model.n_layers)
    return tuple(placed)
