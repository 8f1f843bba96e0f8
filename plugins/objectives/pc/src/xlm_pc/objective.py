"""Parallel classification: tell whether two sentences are translations of each other."""

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
    pack,
)


class ParallelClassification(Objective):
    """PC: a pair is laid out ``</s> x </s> y </s>``, and a logit on the first state judges it.

    One half of a batch's pairs, or the lower half, keep their first side and get the second side
    of another pair of the batch, drawn evenly; a batch of one pair has no false one.  The EOS
    between the sides belongs to the first one and has its language; positions go on across it.

    The logit has a linear layer of its own.  Accuracy is the share of pairs judged rightly, and
    perplexity is 2 where a model cannot tell.
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
        """Tokens and languages, a pair a row."""
        one, other = (self.languages[code] for code in step.languages)
        eos = self.vocabulary.roles["eos"]
        ends = Ragged(np.full(second.n_rows, eos), np.arange(second.n_rows + 1))
        begin, end = first.framed(eos, eos), second.joined(ends)
        return begin.joined(end), begin.filled(one).joined(end.filled(other))


def _partners(n_pairs: int, rng: np.random.Generator) -> np.ndarray:
    """Whose second side each pair gets: its own, or for half of them that of another pair.

    :returns: shape (n_pairs,).
    """
    partners = np.arange(n_pairs)
    false = rng.permutation(n_pairs)[: n_pairs // 2]
    others = rng.integers(max(n_pairs - 1, 1), size=len(false))
    partners[false] = others + (others >= false)
    return partners
