"""Adaptive softmax: rare tokens are scored from a narrower projection of the state.

"Efficient softmax approximation for GPUs" (arXiv 1609.04309); XLM offers it for large vocabularies
(docs/semantics.md, 4).  Token ids must be sorted by decreasing frequency.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from xlm_plugins.config.model import ModelOptions
from xlm_plugins.contracts.batch import LossOutput
from xlm_plugins.core.errors import OptionError


class AdaptiveOutput(nn.Module):
    """An output layer by clusters of tokens, not tied to the token embedding.

    :raises OptionError: a cutoff beyond the vocabulary.
    """

    def __init__(self, options: ModelOptions, vocabulary_size: int) -> None:
        super().__init__()
        if options.adaptive_cutoffs[-1] >= vocabulary_size:
            raise OptionError(
                f"adaptive-cutoffs {', '.join(map(str, options.adaptive_cutoffs))} go beyond the "
                f"vocabulary of {vocabulary_size}",
                expected="cutoffs below the vocabulary's size",
            )
        self.adaptive = nn.AdaptiveLogSoftmaxWithLoss(
            options.dim,
            vocabulary_size,
            list(options.adaptive_cutoffs),
            div_value=options.adaptive_div_value,
            head_bias=True,
        )

    def forward(self, states: Tensor, targets: Tensor | None = None) -> Tensor | LossOutput:
        """Log-probabilities, or the loss against targets.

        :param states: shape (n, dim).
        :param targets: token ids.  Shape: (n,)
        :returns: log-probabilities, shape (n, vocabulary_size), or the summed cross-entropy, in
            fp32.
        """
        with torch.autocast(states.device.type, enabled=False):
            states = states.to(self.adaptive.head.weight.dtype)  # half in DeepSpeed's fp16
            if targets is None:
                log_probs: Tensor = self.adaptive.log_prob(states).float()
                return log_probs
            with torch.no_grad():
                n_correct = (self.adaptive.predict(states) == targets).sum()
            n_targets = torch.tensor(len(targets), device=states.device)
            return LossOutput(self._loss(states, targets), n_targets, n_correct)

    def _loss(self, states: Tensor, targets: Tensor) -> Tensor:
        """The summed loss; every cluster takes part, with rows or without.

        torch's own loss skips clusters without targets.  Gradients would then arrive in an order
        that depends on the batch, and ZeRO 2 and 3 sum them over ranks in order of arrival.
        """
        cutoffs = self.adaptive.cutoffs
        cluster = torch.bucketize(targets, targets.new_tensor(cutoffs[:-1]), right=True)
        column = torch.where(cluster == 0, targets, cutoffs[0] + cluster - 1)
        loss = _summed(self.adaptive.head(states), column)
        for number, tail in enumerate(self.adaptive.tail):
            rows = (cluster == number + 1).nonzero()[:, 0]
            within = targets[rows] - cutoffs[number]
            loss = loss + _summed(tail(states[rows]), within)
        return loss


def _summed(scores: Tensor, targets: Tensor) -> Tensor:
    return nn.functional.cross_entropy(scores.float(), targets, reduction="sum")
