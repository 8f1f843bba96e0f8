"""Translating held-out text in an evaluation, and measuring the result.

``valid_en-fr_mt_bleu`` compares translations with the held-out French side.  For a round trip,
``valid_en-fr-en_bt_bleu`` compares the result with the English text itself, and signs of a collapse
are measured on the French in between.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from xlm_plugins.config.model import GenerationOptions
from xlm_plugins.contracts.batch import Step
from xlm_plugins.core.files import write_json, write_text
from xlm_plugins.data.dataset.held_out import held_out_text
from xlm_plugins.data.dataset.manifest import Manifest
from xlm_plugins.inference.translate import Translator
from xlm_plugins.model.bundle import TextModel
from xlm_plugins.model.generation.search import check_beam
from xlm_plugins.runs.whole_folders import storing
from xlm_plugins.training.engines.engine import Engine
from xlm_plugins.training.pretraining.text_metrics import (
    MEASURES,
    LanguageGuesser,
    Scores,
    collapse_measures,
    score,
)
from xlm_plugins.training.progress import OnProgress

GUESSER_SENTENCES = 1000
"""Sentences per language from which languages are identified."""


@dataclass(frozen=True)
class Translated:
    """One translation of held-out text.

    :param step: its languages.
    :param outputs: after each hop: French, or French and then English again.
    """

    step: Step
    sources: list[str]
    references: list[str]
    outputs: list[list[str]]


@dataclass(frozen=True)
class TranslationEvaluation:
    """Evaluates a model by translating held-out text.

    :param folder: of the data set.
    :param steps: what each objective is trained on, by its name.
    :param n_sentences: maximum per translation, evenly spread over the text; 0 for none.
    :raises OptionError: the beam is too wide for the vocabulary.
    """

    model: TextModel
    folder: Path
    manifest: Manifest
    steps: Mapping[str, Sequence[Step]]
    options: GenerationOptions
    n_sentences: int

    def __post_init__(self) -> None:
        if self.n_sentences:
            check_beam(self.options, self.model.description.vocabulary)

    def names(self, split: str) -> list[str]:
        """The metrics that `evaluate` will return."""
        return [f"{label}_{name}" for label in self.labels(split) for name in MEASURES]

    def evaluate(
        self, engine: Engine, split: str, keep: Path | None, parts: Iterator[OnProgress]
    ) -> dict[str, float]:
        """Translate, compare, and look for signs of a collapse; equal on all ranks.

        :param keep: a folder for the texts and the scores' signatures; rank 0 writes.
        :param parts: of these, each translation tells one.
        """
        metrics: dict[str, float] = {}
        guesser = self._guesser(split)
        for label, step in self.labels(split).items():
            next(parts)(f"translating {step}", 0.0)
            found = self._translate(engine, split, step)
            scores = score(found.outputs[-1], found.references, step.languages[-1])
            signs = collapse_measures(found.sources, found.outputs[0], step.languages[1], guesser)
            measured = {"bleu": scores.bleu, "chrf": scores.chrf, **signs}
            metrics |= {f"{label}_{name}": value for name, value in measured.items()}
            if keep is not None and engine.rank == 0:
                _write(keep / label, found, scores)
        return metrics

    def labels(self, split: str) -> dict[str, Step]:
        """Each translation that the split has text for, by what its metrics' names begin with.

        A translation that two objectives train is measured once.
        """
        labels: dict[str, Step] = {}
        for name, steps in self.steps.items():
            objective = self.model.objectives[name]
            for step in [found for each in steps for found in objective.translations(each)]:
                if step not in labels.values() and self._texts(split, step):
                    labels[f"{split}_{step}_{name}"] = step
        return labels

    def _translate(self, engine: Engine, split: str, step: Step) -> Translated:
        """Translate this rank's share of the sentences, and gather all of them."""
        sources, references = self._texts(split, step)
        texts = sources[engine.rank :: engine.world_size]
        outputs = []
        for pair in itertools.pairwise(step.languages):
            engine.stop_if_asked()
            translator = Translator(self.model, *pair, self.options)
            with engine.inference():
                found = translator.translate(translator.encode(texts))
            texts = [translations[0].text for translations in found]
            shares = engine.gather(texts)
            outputs.append(_in_order(shares))
        return Translated(step, sources, references, outputs)

    def _texts(self, split: str, step: Step) -> tuple[list[str], ...]:
        """Sources and references; empty if the split has none."""
        first, last = step.languages[0], step.languages[-1]
        languages = (first,) if first == last else (first, last)
        if not self.n_sentences:
            return ()
        sides = held_out_text(self.folder, self.manifest, split, languages, self.n_sentences)
        return sides * 2 if first == last else sides

    def _guesser(self, split: str) -> LanguageGuesser:
        samples: dict[str, list[str]] = {}
        for stream in self.manifest.streams:
            if stream.split == split:
                sides = held_out_text(
                    self.folder, self.manifest, split, stream.languages, GUESSER_SENTENCES
                )
                for language, side in zip(stream.languages, sides, strict=False):
                    samples.setdefault(language, side)
        return LanguageGuesser.of(samples)


def _in_order(shares: Sequence[Sequence[str]]) -> list[str]:
    """Interleave: rank r has every world-size-th sentence from r on."""
    turns = itertools.zip_longest(*shares)
    return [text for turn in turns for text in turn if text is not None]


def _write(folder: Path, found: Translated, scores: Scores) -> None:
    """Write the texts of an evaluation, one file for each column, one sentence per line."""
    columns = {
        "source": found.sources,
        **{f"output-{i}": texts for i, texts in enumerate(found.outputs, 1)},
        "reference": found.references,
    }
    with storing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for name, texts in columns.items():
            write_text(folder / f"{name}.txt", "".join(f"{text}\n" for text in texts))
        write_json(folder / "scores.json", asdict(scores))
