"""Causal language modelling: predict each token from those before it."""

from __future__ import annotations

import numpy as np

from xlm_plugins import Batch, Layout, LossOutput, Model, Objective, Samples, Step, join_pair, pack


class CausalLanguageModelling(Objective):
    """CLM (XLM, arXiv 1901.07291, section 3.2): the sum over i of -log p(w_i | w_1 .. w_i-1).

    On one language it reads windows of running text; a pair is read as one text, the second
    sentence after the first, in TLM's layout.  It trains the decoder if there is one, else the
    encoder with causal attention.
    """

    name = "clm"
    n_languages = (1, 2)
    predicts = "next token"

    def layout(self, step: Step) -> Layout:
        return Layout.STREAM if len(step.languages) == 1 else Layout.PAIR

    def make_batch(self, samples: Samples, step: Step, rng: np.random.Generator) -> Batch:
        """Each token predicts the one after it, except the first ``context_size`` of a window."""
        languages = tuple(self.languages[code] for code in step.languages)
        if self.layout(step) is Layout.STREAM:
            (rows,) = samples.sides
            positions, language_ids = rows.positions(), rows.filled(languages[0])
        else:
            rows, positions, language_ids = join_pair(samples.sides, languages, self.vocabulary)
        predicts = rows.positions().values >= self.options.context_size
        predicts[rows.offsets[1:] - 1] = False
        predicted = np.flatnonzero(predicts)
        targets = rows.values[predicted + 1]
        return pack(rows, positions, language_ids, predicted, targets, samples.ids)

    def loss(self, model: Model, batch: Batch) -> LossOutput:
        return model.causal_stack.predict(batch, causal=True)
