"""Parallel classification: are two sentences translations of each other?"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from xlm_plugins import (
    Batch,
    Layout,
    LossOutput,
    Model,
    ModelOptions,
    Objective,
    Ragged,
    Samples,
    Step,
    frame_sides,
    pack,
)


class ParallelClassification(Objective):
    """PC: a logit on the first state of ``</s> x </s> y </s>`` says whether y translates x.

    Half of a batch's pairs, rounded down, keep their first side and get the second side of another
    pair of the batch, drawn uniformly; a batch of one pair has no false one.  The EOS between the
    sides belongs to the first one and has its language; positions continue across it.  If the
    tokenizer begins sentences with BOS, the layout is ``<s> x </s> </s> y </s>`` (`frame_sides`).

    The logit has its own linear layer.  Accuracy is the share of pairs classified correctly, and
    perplexity is 2 for a model that cannot tell.
    """

    name = "pc"
    n_languages = (2,)

    def layout(self, step: Step) -> Layout:
        return Layout.PAIR

    def make_batch(self, samples: Samples, step: Step, rng: np.random.Generator) -> Batch:
        first, second = samples.sides
        partner = _partners(first.n_rows, rng)
        true = partner == np.arange(first.n_rows)
        tokens, languages = self._joined(first, second.take(partner), step)
        return pack(tokens, tokens.positions(), languages, tokens.offsets[:-1], true, samples.ids)

    def loss(self, model: Model, batch: Batch) -> LossOutput:
        states = model.stack("encoder")(batch, at=batch.predicted)
        logits = model.head(self.name, "pair")(states)[:, 0].float()
        targets = batch.targets.to(logits.dtype)
        loss = functional.binary_cross_entropy_with_logits(logits, targets, reduction="sum")
        n_correct = ((logits > 0) == (targets > 0)).sum()
        return LossOutput(loss, torch.tensor(len(targets), device=loss.device), n_correct)

    def modules(self, options: ModelOptions) -> dict[str, nn.Module]:
        return {"pair": nn.Linear(options.dim, 1)}

    def _joined(self, first: Ragged, second: Ragged, step: Step) -> tuple[Ragged, Ragged]:
        """Tokens and languages, one row per pair."""
        one, other = (self.languages[code] for code in step.languages)
        first, second = frame_sides((first, second), self.vocabulary.frame)
        return first.joined(second), first.filled(one).joined(second.filled(other))


def _partners(n_pairs: int, rng: np.random.Generator) -> np.ndarray:
    """The pair whose second side each pair gets: itself or, for half of them, another one.

    :returns: shape (n_pairs,).
    """
    partners = np.arange(n_pairs)
    false = rng.permutation(n_pairs)[: n_pairs // 2]
    others = rng.integers(max(n_pairs - 1, 1), size=len(false))
    partners[false] = others + (others >= false)
    return partners
