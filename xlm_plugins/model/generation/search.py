"""Generation: translate sentences or continue texts, by greedy search, sampling or beam search.

Finished sentences are dropped from the pool, so that the others decode faster.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from xlm_plugins.config.model import GenerationOptions
from xlm_plugins.contracts.batch import Batch, Vocabulary
from xlm_plugins.core.errors import OptionError
from xlm_plugins.model.generation.beam import Beam
from xlm_plugins.model.generation.incremental import Decoding
from xlm_plugins.model.model import Model
from xlm_plugins.model.nn.transformer import Source

COMPACT_BELOW = 0.7
"""The pool is compacted once less than this share of it is unfinished."""


@dataclass(frozen=True)
class Hypotheses:
    """What was generated for each sentence, best first.

    :param tokens: without the framing EOS and the prompt, padded with EOS.
        Shape: (n_sentences, n_best, longest)
    :param lengths: the number of tokens of each hypothesis.  Shape: (n_sentences, n_best)
    :param scores: sum of log-probabilities / length^penalty; -inf where there is no hypothesis.
        Shape: (n_sentences, n_best)
    """

    tokens: Tensor
    lengths: Tensor
    scores: Tensor

    def rows(self, rank: int = 0) -> list[list[int]]:
        """The token ids of each sentence's hypothesis of one rank."""
        matrix, lengths = self.tokens[:, rank].tolist(), self.lengths[:, rank].tolist()
        return [row[:length] for row, length in zip(matrix, lengths, strict=True)]


def length_limits(source: Batch, longest: int) -> Tensor:
    """The maximum length of each translation, both framing EOS included: 1.3 x source + 5.

    It follows from the sentence alone, not from the batch (docs/semantics.md, 7.4).

    :param longest: the model's number of positions.
    :returns: shape (n_sentences,).
    """
    lengths = source.offsets.diff()
    return (lengths * 13 // 10 + 5).clamp(max=longest)


@torch.no_grad()
def generate(
    model: Model,
    source: Batch,
    language: int,
    vocabulary: Vocabulary,
    options: GenerationOptions,
    limits: Tensor | None = None,
) -> Hypotheses:
    """Translate the sequences of a batch.

    The model must be in eval mode.  Sampling draws from torch's current random state.

    :param source: framed sentences, as the encoder reads them.
    :param language: id of the target language.
    :param vocabulary: defines EOS, and the ids that are never generated: all other special ones.
    :param limits: maximum length of each translation, both EOS included; `length_limits` if None.
        Shape: (n_sentences,)
    """
    if limits is None:
        limits = length_limits(source, model.options.max_positions)
    decoding = read_source(model, source, language, options.beam)
    begin = limits.new_full((len(limits),), vocabulary.roles["eos"])
    search = beam_search if options.beam > 1 else greedy_or_sample
    return search(decoding, begin, vocabulary, options, limits)


def read_source(model: Model, source: Batch, language: int, width: int = 1) -> Decoding:
    """Encode sentences, and prepare a decoder to translate them.

    :param source: framed sentences, as the encoder reads them.
    :param language: id of the target language.
    :param width: hypotheses per sentence.
    """
    states = Source(model.stack("encoder")(source), source.offsets)
    n_sentences = len(source.offsets) - 1
    return Decoding(model.stack("decoder"), n_sentences, language, states, width)


@torch.no_grad()
def continue_prompts(
    model: Model,
    prompts: Tensor,
    language: int,
    vocabulary: Vocabulary,
    options: GenerationOptions,
    max_tokens: int,
) -> Hypotheses:
    """Continue texts with the stack that predicts the next token, without a source.

    The model must be in eval mode.  Sampling draws from torch's current random state.

    :param prompts: the beginning of each text, starting with EOS, all of one length.
        Shape: (n_texts, length)
    :param language: id of the texts' language.
    :param vocabulary: as for `generate`.
    :param max_tokens: maximum number of tokens to generate; together with the prompt fewer than
        the model's positions.
    :returns: the continuations, without the prompts; scores are theirs alone.
    """
    n_texts = len(prompts)
    decoding = Decoding(model.causal_stack, n_texts, language, width=options.beam)
    for read in prompts[:, :-1].t():
        decoding.append(read.repeat_interleave(options.beam))
    begin = prompts[:, -1]
    limits = torch.full_like(begin, max_tokens + 2)  # the prompt's last token, the closing EOS
    search = beam_search if options.beam > 1 else greedy_or_sample
    return search(decoding, begin, vocabulary, options, limits)


@torch.no_grad()
def greedy_or_sample(
    decoding: Decoding,
    begin: Tensor,
    vocabulary: Vocabulary,
    options: GenerationOptions,
    limits: Tensor,
) -> Hypotheses:
    """One hypothesis per sentence; each next token is the most probable one, or sampled.

    :param decoding: of width 1; it has read everything before ``begin``.
    :param begin: the last token that is given of each sentence.  Shape: (n_sentences,)
    :param vocabulary: as for `generate`.
    :param limits: maximum length of each, ``begin`` and the closing EOS included.
        Shape: (n_sentences,)
    """
    pool = _Pool(begin, limits, vocabulary.roles["eos"])
    forbidden = _forbidden(vocabulary, limits.device)
    for length in range(1, pool.longest):
        log_probs = decoding.stack.scores(decoding.append(pool.last)).float().log_softmax(1)
        chosen = _choose(log_probs.index_fill(1, forbidden, -torch.inf), options)
        pool.append(chosen, log_probs, length)
        still = pool.is_open.nonzero()[:, 0]
        if not len(still):
            break
        if len(still) < COMPACT_BELOW * len(pool.left):
            decoding.keep_sentences(still)
            pool.keep(still)
    return pool.hypotheses(options)


class _Pool:
    """Sentences that are generated token by token, and which of them are unfinished."""

    def __init__(self, begin: Tensor, limits: Tensor, eos: int) -> None:
        n_sentences = len(limits)
        self.longest = int(limits.max()) if n_sentences else 2
        self.left = torch.arange(n_sentences, device=limits.device)
        self.last = begin
        self.is_open = torch.ones_like(limits, dtype=torch.bool)
        self._limits = limits
        self._eos = eos
        self._tokens = limits.new_full((n_sentences, self.longest), eos)
        self._lengths = torch.zeros_like(limits)
        self._sums = torch.zeros(n_sentences, device=limits.device)

    def append(self, chosen: Tensor, log_probs: Tensor, length: int) -> None:
        """Add a token to each unfinished sentence; one at its limit is closed.

        :param chosen: shape (n_left,).
        :param log_probs: log-probabilities.  Shape: (n_left, vocabulary_size)
        :param length: tokens so far, the first EOS included.
        """
        self.last = chosen.masked_fill(self._limits[self.left] == length + 1, self._eos)
        gained = log_probs.gather(1, self.last[:, None])[:, 0]
        self._sums[self.left] += gained.masked_fill(~self.is_open, 0.0)
        self.is_open &= self.last != self._eos
        self._tokens[self.left, length] = self.last.masked_fill(~self.is_open, self._eos)
        self._lengths[self.left] += self.is_open

    def keep(self, still: Tensor) -> None:
        """Drop all unfinished sentences but some."""
        self.left, self.last = self.left[still], self.last[still]
        self.is_open = self.is_open[still]

    def hypotheses(self, options: GenerationOptions) -> Hypotheses:
        """The results; lengths count the first EOS and not the closing one, as in beam search."""
        scores = self._sums / (self._lengths + 1) ** options.length_penalty
        return Hypotheses(self._tokens[:, None, 1:], self._lengths[:, None], scores[:, None])


@torch.no_grad()
def beam_search(
    decoding: Decoding,
    begin: Tensor,
    vocabulary: Vocabulary,
    options: GenerationOptions,
    limits: Tensor,
) -> Hypotheses:
    """The ``options.beam`` best hypotheses of a beam search; parameters as `greedy_or_sample`.

    A beam of 1 is not greedy search: it continues as long as a longer hypothesis may score higher.

    :param decoding: of width ``options.beam``.
    """
    forbidden = _forbidden(vocabulary, limits.device)
    beam = Beam(options, begin, limits, vocabulary.roles["eos"])
    found = beam.finished.copy()
    left = torch.arange(len(limits), device=limits.device)
    for _ in range(1, found.tokens.shape[2]):
        log_probs = decoding.stack.scores(decoding.append(beam.last)).float().log_softmax(1)
        decoding.continue_rows(beam.advance(log_probs.index_fill(1, forbidden, -torch.inf)))
        still = (~beam.done).nonzero()[:, 0]
        if len(still) < COMPACT_BELOW * len(left):
            found.put(left, beam.finished)
            if not len(still):
                break
            decoding.keep_sentences(still)
            beam.keep_sentences(still)
            left = left[still]
    found.put(left, beam.finished)
    return Hypotheses(found.tokens[:, :, 1:], found.lengths - 1, found.scores)


def check_beam(options: GenerationOptions, vocabulary: Vocabulary, name: str = "a beam of") -> None:
    """Refuse a beam that is too wide for the vocabulary.

    :param name: what the error calls the beam, before its width.
    :raises OptionError: each step needs 2 x beam candidates, and the first step has only one
        hypothesis to extend.
    """
    largest = max(1, len(vocabulary.ordinary) // 2)
    if options.beam > largest:
        raise OptionError(
            f"{name} {options.beam} is more than the model's vocabulary can fill",
            expected=f"at most {largest}",
        )


def _forbidden(vocabulary: Vocabulary, device: torch.device) -> Tensor:
    """Ids that are never generated: all special ones, including UNK, except EOS."""
    special = {*vocabulary.reserved, *vocabulary.roles.values()} - {vocabulary.roles["eos"]}
    return torch.tensor(sorted(special), dtype=torch.long, device=device)


def _choose(log_probs: Tensor, options: GenerationOptions) -> Tensor:
    """The most probable token of each row, or a sampled one (nucleus sampling, arXiv 1904.09751).

    :param log_probs: shape (n_rows, vocabulary_size).
    :returns: shape (n_rows,).
    """
    if not options.sample:
        return log_probs.argmax(1)
    scores = log_probs / options.temperature
    if options.top_k:
        least = scores.topk(min(options.top_k, scores.shape[1])).values[:, -1:]
        scores = scores.masked_fill(scores < least, -torch.inf)
    probs = scores.softmax(1)
    if options.top_p < 1:
        ordered, order = probs.sort(descending=True)
        before = ordered.cumsum(1) - ordered
        probs = probs.scatter(1, order, ordered.masked_fill(before >= options.top_p, 0.0))
    return torch.multinomial(probs, 1)[:, 0]
