"""The objective: predict the end of a sentence from its beginning."""

from __future__ import annotations

import numpy as np
from xlm_plugins import Batch, Layout, LossOutput, Model, Objective, Ragged, Samples, Step, pack

from xlm_example import ExampleObjectiveOptions


class ExampleObjective(Objective):
    """The last ``share`` of each sentence's tokens, at least one, is shown as MASK and predicted.

    One instance lives in the trainer and one in every loader worker: keep no tensors in it.
    """

    predicts = "masked tokens"  # so models trained on it `score` and `fill-mask`
    options: ExampleObjectiveOptions

    def layout(self, step: Step) -> Layout:
        return Layout.SENTENCE

    def make_batch(self, samples: Samples, step: Step, rng: np.random.Generator) -> Batch:
        """Runs in loader workers.  All randomness must come from ``rng``; here there is none."""
        (sentences,) = samples.sides  # a pair would have two
        # Ids come from the vocabulary: a number written here would be wrong for another tokenizer.
        clean = sentences.framed(*self.vocabulary.frame)
        n_hidden = np.ceil(sentences.lengths * self.options.share)
        n_behind = np.repeat(clean.offsets[1:] - 1, clean.lengths) - np.arange(len(clean.values))
        is_hidden = (n_behind > 0) & (n_behind <= np.repeat(n_hidden, clean.lengths))
        return pack(
            Ragged(np.where(is_hidden, self.vocabulary.roles["mask"], clean.values), clean.offsets),
            clean.positions(),
            clean.filled(self.languages[step.languages[0]]),
            predicted=np.flatnonzero(is_hidden),
            targets=clean.values[is_hidden],
            sample_ids=samples.ids,
        )

    def loss(self, model: Model, batch: Batch) -> LossOutput:
        """A sum over targets, not a mean: the runtime divides by those of the global batch."""
        return model.stack("encoder").predict(batch)
