"""Machine translation: write the second side of a pair, given the first."""

from __future__ import annotations

import numpy as np

from xlm_plugins import Batch, Layout, LossOutput, Model, Objective, Samples, Step, pack_translation


class MachineTranslation(Objective):
    """Supervised MT: the sum over i of -log p(y_i | y_1 .. y_i-1, x), the closing EOS included.

    ``en-fr`` reads English and writes French.  The encoder reads ``</s> x </s>``; the decoder
    starts with EOS as well.  ("Attention Is All You Need", arXiv 1706.03762)
    """

    name = "mt"
    stacks = frozenset({"encoder", "decoder"})
    n_languages = (2,)

    def layout(self, step: Step) -> Layout:
        return Layout.PAIR

    def make_batch(self, samples: Samples, step: Step, rng: np.random.Generator) -> Batch:
        source, target = samples.sides
        languages = tuple(self.languages[code] for code in step.languages)
        return pack_translation(source, target, languages, self.vocabulary, samples.ids)

    def loss(self, model: Model, batch: Batch) -> LossOutput:
        return model.predict_from_source(batch)

    def translations(self, step: Step) -> tuple[Step, ...]:
        return (step,)
