"""Denoising auto-encoding: restore a sentence from a noisy copy of it."""

from __future__ import annotations

import numpy as np

from xlm_ae.noise import blank, drop, shuffle
from xlm_plugins import (
    Batch,
    Layout,
    LossOutput,
    Model,
    Objective,
    Ragged,
    Samples,
    Step,
    pack_translation,
)


class DenoisingAutoEncoding(Objective):
    """AE (arXiv 1711.00043, section 2.3; in XLM, arXiv 1901.07291, section 4.2).

    The encoder reads a sentence after shuffling, dropping and blanking, in this order; the decoder
    writes the original.  Together with back-translation this teaches a model to translate from
    monolingual text: the decoder learns what sentences of a language look like.

    The noise of a batch is a function of its random generator, so it is the same in each
    evaluation.
    """

    name = "ae"
    stacks = frozenset({"encoder", "decoder"})
    n_languages = (1,)

    def layout(self, step: Step) -> Layout:
        return Layout.SENTENCE

    def make_batch(self, samples: Samples, step: Step, rng: np.random.Generator) -> Batch:
        (clean,) = samples.sides
        language = self.languages[step.languages[0]]
        noisy = self._noisy(clean, rng)
        return pack_translation(noisy, clean, (language, language), self.vocabulary, samples.ids)

    def loss(self, model: Model, batch: Batch) -> LossOutput:
        return model.predict_from_source(batch)

    def _noisy(self, rows: Ragged, rng: np.random.Generator) -> Ragged:
        rows = shuffle(rows, self.options.word_shuffle, rng)
        rows = drop(rows, self.options.word_dropout, rng)
        return blank(rows, self.options.word_blank, self.vocabulary.roles["mask"], rng)
