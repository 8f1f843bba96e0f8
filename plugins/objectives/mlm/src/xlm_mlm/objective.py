"""Masked language modelling: hide some tokens of a text and predict them from the others."""

from __future__ import annotations

import numpy as np

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
    pack,
)


class MaskedLanguageModelling(Objective):
    """MLM as XLM has it (arXiv 1901.07291, section 3.2): windows of running text, not sentences.

    Training draws the positions anew at every update, and shows some of them unchanged or as a
    random token; evaluation shows MASK at every position that it predicts.
    """

    name = "mlm"
    n_languages = (1,)

    def layout(self, step: Step) -> Layout:
        return Layout.STREAM

    def make_batch(self, samples: Samples, step: Step, rng: np.random.Generator) -> Batch:
        shown, predicted = choose_masked(samples.sides[0], self.options, self.vocabulary, rng)
        return self._packed(samples, step, shown, predicted)

    def evaluation_batches(
        self, samples: Samples, step: Step, rng: np.random.Generator
    ) -> dict[str, Batch]:
        shown, predicted = choose_for_evaluation(
            samples.sides[0], self.options.mask_prob, self.vocabulary, rng
        )
        return {"": self._packed(samples, step, shown, predicted)}

    def loss(self, model: Model, batch: Batch) -> LossOutput:
        return model.stack("encoder").predict(batch)

    def _packed(self, samples: Samples, step: Step, shown: Ragged, predicted: np.ndarray) -> Batch:
        (clean,) = samples.sides
        language = self.languages[step.languages[0]]
        targets = clean.values[predicted]
        return pack(
            shown, clean.positions(), clean.filled(language), predicted, targets, samples.ids
        )
