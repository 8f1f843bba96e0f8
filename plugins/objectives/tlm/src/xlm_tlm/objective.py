"""Translation language modelling: masked language modelling over a sentence and its translation."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch

from xlm_plugins import (
    Batch,
    Layout,
    LossOutput,
    Model,
    Objective,
    Ragged,
    Samples,
    Step,
    choose_for_evaluation,
    choose_masked,
    join_pair,
    pack,
)


class TranslationLanguageModelling(Objective):
    """TLM (XLM, arXiv 1901.07291, section 3.4): the pair layout followed by the masking.

    To predict a masked word the model can use its context or the translation, and so learns to
    align words of two languages.  Evaluation also measures the same masked words with each side
    alone (``valid_en-fr_tlm_alone_ppl``): the difference is the contribution of the translation.
    """

    name = "tlm"
    n_languages = (2,)
    predicts = "masked tokens"

    def layout(self, step: Step) -> Layout:
        return Layout.PAIR

    def make_batch(self, samples: Samples, step: Step, rng: np.random.Generator) -> Batch:
        rows, positions, languages = self._joined(samples, step)
        shown, predicted = choose_masked(rows, self.options, self.vocabulary, rng)
        targets = rows.values[predicted]
        return pack(shown, positions, languages, predicted, targets, samples.ids)

    def evaluation_batches(
        self, samples: Samples, step: Step, rng: np.random.Generator
    ) -> dict[str, Batch]:
        rows, positions, languages = self._joined(samples, step)
        shown, predicted = choose_for_evaluation(rows, self.vocabulary, rng)
        targets = rows.values[predicted]
        joint = pack(shown, positions, languages, predicted, targets, samples.ids)
        return {"": joint, "alone": _sides_apart(joint, samples.sides[0])}

    def loss(self, model: Model, batch: Batch) -> LossOutput:
        return model.stack("encoder").predict(batch)

    def _joined(self, samples: Samples, step: Step) -> tuple[Ragged, ...]:
        languages = tuple(self.languages[code] for code in step.languages)
        return join_pair(samples.sides, languages, self.vocabulary)


def _sides_apart(joint: Batch, first_side: Ragged) -> Batch:
    """The same tokens, masked at the same positions, with each side as a separate sequence.

    Positions restart at the second side already, so only the boundaries differ.
    """
    begins = joint.offsets[:-1]
    middles = begins + torch.from_numpy(first_side.lengths.astype(np.int64)) + 2
    offsets = torch.cat([torch.stack([begins, middles], dim=1).flatten(), joint.offsets[-1:]])
    return dataclasses.replace(
        joint, offsets=offsets, sample_ids=joint.sample_ids.repeat_interleave(2)
    )
