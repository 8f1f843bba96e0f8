"""Back-translation: learn to translate into a language from translations of its own sentences."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from xlm_plugins import (
    Batch,
    DataError,
    GenerationOptions,
    Hypotheses,
    Layout,
    LossOutput,
    Model,
    Objective,
    OptionError,
    Samples,
    Step,
    Vocabulary,
    check_beam,
    generate,
    pack_translation,
)


class BackTranslation(Objective):
    """Online back-translation (Sennrich et al., arXiv 1511.06709; Lample et al., 1804.07755).

    The loop ``en-fr-en`` translates English sentences into French with the current model, and
    trains it to translate that back into the original.  So it learns ``fr-en``, from a synthetic
    source to a true target.  No gradient flows through the generation.

    The options are those of generation; greedy by default.
    """

    name = "bt"
    stacks = frozenset({"encoder", "decoder"})
    n_languages = (3,)

    def __init__(
        self, options: GenerationOptions, vocabulary: Vocabulary, languages: Mapping[str, int]
    ) -> None:
        super().__init__(options, vocabulary, languages)
        check_beam(options, vocabulary, f"--{self.name}.beam")

    def layout(self, step: Step) -> Layout:
        return Layout.SENTENCE

    def steps(self, languages: Sequence[str], pairs: Sequence[tuple[str, str]]) -> list[Step]:
        """Both loops of every two languages that have monolingual text.

        :raises DataError: there are fewer than two.
        """
        if len(languages) < 2:
            raise DataError(
                f"{self.name} translates from one language to another and back, and the data has "
                f"monolingual text in {' and '.join(languages) or 'no language'}"
                f"{' alone' if languages else ''}",
                expected="monolingual training text in two languages or more",
                remedy="add it to the source and prepare again; `xlm data DIR` shows what a data "
                "set holds",
            )
        return [Step((true, other, true)) for true, other in itertools.permutations(languages, 2)]

    def parse_step(self, text: str) -> Step:
        step = super().parse_step(text)
        first, between, last = step.languages
        if first != last or first == between:
            raise OptionError(
                f"{self.name}:{text} does not go from one language to another and back",
                expected="the same language first and last and another in between, as in en-fr-en",
            )
        if between not in self.languages:
            others = ", ".join(sorted({*self.languages} - {first}))
            raise OptionError(
                f"{self.name}:{text} goes by way of {between}, which the data does not have",
                expected=f"one of {others}" if others else "data of two languages or more",
                remedy=f"add text in {between} to the source and prepare again",
            )
        return step

    def make_batch(self, samples: Samples, step: Step, rng: np.random.Generator) -> Batch:
        """The true sentences on both sides; `prepare` replaces the source by translations."""
        (true,) = samples.sides
        language = self.languages[step.languages[0]]
        return pack_translation(true, true, (language, language), self.vocabulary, samples.ids)

    def prepare(self, model: Model, batch: Batch, step: Step) -> Batch:
        if batch.source is None:
            raise ValueError("the batch has no source to translate")
        language = self.languages[step.languages[1]]
        found = generate(model, batch.source, language, self.vocabulary, self.options)
        source = _as_source(found, batch.source, language, self.vocabulary.frame)
        return dataclasses.replace(batch, source=source)

    def loss(self, model: Model, batch: Batch) -> LossOutput:
        return model.predict_from_source(batch)

    def translations(self, step: Step) -> tuple[Step, ...]:
        """The direction that the loop trains, ``fr-en``, and the round trip."""
        return Step(step.languages[1:]), step


def _as_source(
    found: Hypotheses, translated: Batch, language: int, frame: tuple[int, int]
) -> Batch:
    """The best hypotheses, framed for the encoder: ``</s> x </s>``; an empty one is ``</s> </s>``.

    :param translated: the batch of which they are translations.
    :param language: id of their language.
    """
    best, n_words = found.tokens[:, 0], found.lengths[:, 0]
    column = torch.arange(best.shape[1] + 2, device=best.device)
    framed = torch.nn.functional.pad(best, (1, 1), value=frame[0])
    framed = framed.masked_fill(column > n_words[:, None], frame[1])
    is_read = column < n_words[:, None] + 2
    tokens = framed[is_read]
    return dataclasses.replace(
        translated,
        tokens=tokens,
        positions=column.expand_as(framed)[is_read],
        languages=torch.full_like(tokens, language),
        offsets=torch.nn.functional.pad((n_words + 2).cumsum(0), (1, 0)),
    )
