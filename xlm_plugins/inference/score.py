"""Sentence scores: causal log-probabilities and pseudo-log-likelihoods."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from xlm_plugins.contracts.ragged import IntArray, Ragged
from xlm_plugins.core.errors import OptionError
from xlm_plugins.inference.common import (
    Advance,
    TextReader,
    batches_by_length,
    cut,
    no_progress,
    predicts,
    trained_on,
)
from xlm_plugins.model.bundle import Bundle
from xlm_plugins.model.nn.output import rows_per_chunk
from xlm_plugins.model.nn.transformer import Stack

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class SentenceScore:
    """The log-probability of a sentence, in natural logarithms.

    :param score: the sum over its tokens.
    :param tokens: the written form of each predicted token.
    :param log_probabilities: of each predicted token.
    """

    score: float
    tokens: tuple[str, ...]
    log_probabilities: tuple[float, ...]


def kinds_of_score(bundle: Bundle) -> tuple[str, ...]:
    """The kinds of score that a model was trained for, the default one first."""
    causal = ("causal",) if predicts(bundle, "next token") else ()
    pseudo = ("pseudo",) if predicts(bundle, "masked tokens") else ()
    return causal + pseudo


class Scorer(TextReader):
    """A bundle that scores sentences of one language by their log-probability.

    ``causal``: the log-probability of the sentence and its closing EOS, each token given those
    before it; the negative of the summed next-token loss.

    ``pseudo``: the pseudo-log-likelihood (Salazar et al., arXiv 1910.14659, equation 2): the sum
    of each token's log-probability given all others, itself masked; without the EOS.

    :param language: of the sentences; required if the model knows several.
    :param kind: if None, the one that the model was trained for, ``causal`` if both.
    :param batch_tokens: tokens per forward pass, counting each masked copy of a sentence;
        `BATCH_TOKENS` if None.
    :raises OptionError: an unknown language, or a model that was not trained for it.
    """

    def __init__(
        self,
        bundle: Bundle,
        language: str | None = None,
        *,
        kind: str | None = None,
        batch_tokens: int | None = None,
    ) -> None:
        self._kind = _checked_kind(bundle, kind)
        super().__init__(bundle, language, batch_tokens)

    @torch.inference_mode()
    def score(self, sentences: Ragged, advance: Advance = no_progress) -> list[SentenceScore]:
        """Score sentences, each independently of the others."""
        rows = cut(sentences, self.longest)
        if self._kind == "pseudo":
            log_probs = self._pseudo(rows, advance)
        else:
            eos = self._bundle.description.vocabulary.roles["eos"]
            ends = Ragged(np.full(rows.n_rows, eos), np.arange(rows.n_rows + 1))
            rows, sentences = rows.joined(ends), rows
            log_probs = self._causal(sentences, rows, advance)
        names = self._tokenizer.tokens()
        written = [names[token] for token in rows.values.tolist()]
        return [
            SentenceScore(
                float(log_probs[begin:end].sum()),
                tuple(written[begin:end]),
                tuple(log_probs[begin:end].tolist()),
            )
            for begin, end in itertools.pairwise(rows.offsets.tolist())
        ]

    def _causal(self, sentences: Ragged, targets: Ragged, advance: Advance) -> Array:
        """The log-probability of each token given those before it.

        :param targets: the sentences, each ended by EOS.
        :returns: shape (len(targets.values),).
        """
        log_probs = np.empty(len(targets.values))
        places = Ragged(np.arange(len(targets.values)), targets.offsets)
        stack = self._bundle.model.causal_stack
        for which in batches_by_length(1 + targets.lengths, self._batch_tokens):
            batch = self._batch(sentences.take(which))
            ends = batch.offsets[1 : len(which) + 1] - 1
            predicts = torch.ones(int(ends[-1]), dtype=torch.bool, device=ends.device)
            predicts[ends[:-1]] = False
            states = stack(batch, causal=True)[: len(predicts)][predicts]
            predicted = places.take(which).values
            log_probs[predicted] = _log_probabilities(stack, states, targets.values[predicted])
            advance(len(which))
        return log_probs

    def _pseudo(self, rows: Ragged, advance: Advance) -> Array:
        """The log-probability of each token when it alone is masked, in its own copy of the row.

        :returns: shape (len(rows.values),).
        """
        log_probs = np.empty(len(rows.values))
        encoder = self._bundle.model.stack("encoder")
        mask = self._bundle.description.vocabulary.roles["mask"]
        row_of = np.repeat(np.arange(rows.n_rows), rows.lengths)
        is_last = np.zeros(len(rows.values), bool)
        is_last[rows.offsets[1:][rows.lengths > 0] - 1] = True
        advance(int((rows.lengths == 0).sum()))
        for which in batches_by_length(2 + rows.lengths[row_of], self._batch_tokens):
            batch = self._batch(rows.take(row_of[which]))
            inside = torch.from_numpy(which - rows.offsets[row_of[which]])
            masked = batch.offsets[: len(which)] + 1 + inside.to(batch.offsets.device)
            batch.tokens[masked] = mask
            states = encoder(batch, at=masked)
            log_probs[which] = _log_probabilities(encoder, states, rows.values[which])
            advance(int(is_last[which].sum()))
        return log_probs


def _log_probabilities(stack: Stack, states: Tensor, targets: IntArray) -> Array:
    """The log-probability of one token id after each state, computed chunk by chunk.

    :param states: shape (n, dim).
    :param targets: shape (n,).
    """
    wanted = torch.from_numpy(targets.astype(np.int64)).to(states.device)
    step = rows_per_chunk(stack.embeddings.tokens.num_embeddings, states.device.type)
    parts = [
        stack.scores(rows).float().log_softmax(1).gather(1, of_rows[:, None])[:, 0]
        for rows, of_rows in zip(torch.split(states, step), torch.split(wanted, step), strict=True)
    ]
    return torch.cat(parts).double().cpu().numpy()


def _checked_kind(bundle: Bundle, kind: str | None) -> str:
    kinds = kinds_of_score(bundle)
    if not kinds:
        raise OptionError(
            f"the model cannot score sentences: it was trained on {trained_on(bundle)}",
            expected="a model trained to predict the next token, such as by clm, or masked tokens, "
            "such as by mlm",
            remedy=f"train it: xlm train --init {bundle.path} --objective mlm --data DATA",
        )
    if kind is not None and kind not in kinds:
        raise OptionError(
            f"the model has no {kind} score: it was trained on {trained_on(bundle)}",
            expected=f"--kind {kinds[0]}",
        )
    return kind or kinds[0]
