"""Beam search for all sentences of a pool at once, without loops over sentences or beams.

The score of a hypothesis is the sum of its log-probabilities / length^penalty; its length counts
the first EOS (docs/semantics.md, 7.4).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from xlm_plugins.config.model import GenerationOptions


@dataclass
class Finished:
    """The best closed hypotheses of each sentence, best first.

    :param scores: -inf where there is none yet.  Shape: (n_sentences, beam)
    :param tokens: with the token that they begin with and without the closing EOS, padded with
        EOS.  Shape: (n_sentences, beam, longest)
    :param lengths: the number of tokens of each hypothesis.  Shape: (n_sentences, beam)
    """

    scores: Tensor
    tokens: Tensor
    lengths: Tensor

    def add(self, scores: Tensor, tokens: Tensor, length: int) -> None:
        """Add hypotheses, and keep the best of all.

        :param scores: -inf for none.  Shape: (n_sentences, n_new)
        :param tokens: shape (n_sentences, n_new, longest).
        :param length: the number of tokens of each.
        """
        lengths = torch.full_like(scores, length, dtype=torch.long)
        every = torch.cat([self.scores, scores], 1)
        self.scores, kept = every.topk(self.scores.shape[1])
        self.lengths = torch.cat([self.lengths, lengths], 1).gather(1, kept)
        self.tokens = _rows(torch.cat([self.tokens, tokens], 1), kept)

    def copy(self) -> Finished:
        return Finished(self.scores.clone(), self.tokens.clone(), self.lengths.clone())

    def put(self, sentences: Tensor, others: Finished) -> None:
        """Replace the hypotheses of some sentences.

        :param sentences: their indices.  Shape: (n_some,)
        """
        self.scores[sentences], self.tokens[sentences] = others.scores, others.tokens
        self.lengths[sentences] = others.lengths


class Beam:
    """Open hypotheses of a pool of sentences, ``options.beam`` each.

    :param begin: the token that each sentence begins with.  Shape: (n_sentences,)
    :param limits: maximum length of each sentence, that token and the closing EOS included.
        Shape: (n_sentences,)
    :param eos: closes a hypothesis.
    """

    def __init__(self, options: GenerationOptions, begin: Tensor, limits: Tensor, eos: int) -> None:
        n_sentences, width = len(limits), options.beam
        longest = int(limits.max()) if n_sentences else 1
        self._options = options
        self._limits = limits
        self._eos = eos
        self.length = 1
        self.tokens = limits.new_full((n_sentences, width, longest), eos)
        self.tokens[:, :, 0] = begin[:, None]
        # The hypotheses of a sentence are identical at first: only one of them may be extended.
        self._sums = torch.full((n_sentences, width), -torch.inf, device=limits.device)
        self._sums[:, 0] = 0.0
        self.done = torch.zeros_like(limits, dtype=torch.bool)
        scores = torch.full_like(self._sums, -torch.inf)
        self.finished = Finished(scores, self.tokens, torch.ones_like(scores, dtype=torch.long))

    @property
    def last(self) -> Tensor:
        """The last token of each hypothesis.  Shape: (n_sentences * beam,)"""
        return self.tokens[:, :, self.length - 1].flatten()

    def advance(self, log_probabilities: Tensor) -> Tensor:
        """Extend every hypothesis by a token, and close those that end.

        :param log_probabilities: of the next token, -inf for tokens that are not allowed.
            Shape: (n_sentences * beam, vocabulary_size)
        :returns: which hypothesis of its sentence each one now extends.
            Shape: (n_sentences, beam)
        """
        n_sentences, width = self._sums.shape
        sums = self._sums.view(-1, 1) + log_probabilities
        best, index = sums.view(n_sentences, -1).topk(2 * width)
        parents, words = index // sums.shape[1], index % sums.shape[1]
        is_end = words == self._eos
        self._finish(best, parents, is_end)
        # The best open ones, in order.  There are enough: each row has at most one that ends.
        ranks = torch.arange(2 * width, device=words.device) + 2 * width * is_end
        kept = ranks.topk(width, largest=False).indices
        parents, words = parents.gather(1, kept), words.gather(1, kept)
        self._sums = best.gather(1, kept)
        self.tokens = _rows(self.tokens, parents)
        if self.length < self.tokens.shape[2]:
            self.tokens[:, :, self.length] = words
        self.length += 1
        return parents

    def _finish(self, best: Tensor, parents: Tensor, is_end: Tensor) -> None:
        """Close the hypotheses that end here, in sentences that are not done.

        :param best: the best continuations' summed log-probabilities, in descending order.
            Shape: (n_sentences, 2 * beam)
        """
        options, width = self._options, self._sums.shape[1]
        worst = self.finished.scores[:, -1]
        reachable = best[:, 0] / self._limits**options.length_penalty
        enough = worst > -torch.inf
        self.done |= enough if options.early_stopping else enough & (worst >= reachable)
        at_limit = (self._limits == self.length + 1)[:, None]
        n_open_before = (~is_end).cumsum(1) - (~is_end).int()
        closes = at_limit | (is_end & (n_open_before < width))
        closes &= ~self.done[:, None]
        scores = best / self.length**options.length_penalty
        scores = scores.masked_fill(~closes, -torch.inf)
        self.finished.add(scores, _rows(self.tokens, parents), self.length)
        self.done |= at_limit[:, 0]

    def keep_sentences(self, sentences: Tensor) -> None:
        """Drop all sentences but some, given by their indices.  Shape: (n_some,)"""
        self._limits = self._limits[sentences]
        self._sums, self.tokens = self._sums[sentences], self.tokens[sentences]
        self.done = self.done[sentences]
        kept = self.finished
        self.finished = Finished(
            kept.scores[sentences], kept.tokens[sentences], kept.lengths[sentences]
        )


def _rows(of: Tensor, which: Tensor) -> Tensor:
    """Select hypotheses of each sentence.  Shapes: (n, a, longest), (n, b) -> (n, b, longest)"""
    return of.gather(1, which[:, :, None].expand(-1, -1, of.shape[2]))
