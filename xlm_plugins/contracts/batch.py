"""From data to model: samples in, a packed batch out.

In loader workers, an objective's ``make_batch`` turns `Samples` (numpy, from the shards) into a
`Batch` (torch, packed without padding).  Most objectives share the steps `pack` and
`choose_masked`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from xlm_plugins.contracts.masking_options import MaskingOptions
from xlm_plugins.contracts.ragged import IntArray, Ragged, offsets_of

EVALUATION_SHARE = 0.15
"""Share of positions that masked objectives predict in evaluation."""


class Layout(Enum):
    """How the samples of a step are cut from the text.

    STREAM: sentences, each ended by EOS, concatenated and cut into windows; one side.
    SENTENCE: single sentences without special tokens; one side.
    PAIR: a sentence and its translation, without special tokens; two sides in the step's order.
    """

    STREAM = "stream"
    SENTENCE = "sentence"
    PAIR = "pair"


@dataclass(frozen=True)
class Step:
    """What one update trains on: ``en``, the pair ``en-fr``, or the loop ``en-fr-en``."""

    languages: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> Step:
        return cls(tuple(text.split("-")))

    def __str__(self) -> str:
        return "-".join(self.languages)


@dataclass(frozen=True)
class Vocabulary:
    """What objectives and models need to know about a tokenizer, without the tokenizer.

    :param size: number of ids.
    :param roles: the id of each special role: bos, eos, pad, unk, mask, sep; and begin, if
        sentences begin with another id than EOS.
    :param reserved: every id that text never encodes to, in increasing order.
    :param counts: how often each id occurs in the training text, or None. Shape: (size,)
    """

    size: int
    roles: Mapping[str, int]
    reserved: tuple[int, ...]
    counts: npt.NDArray[np.int64] | None = None

    @cached_property
    def ordinary(self) -> IntArray:
        """The ids that text can encode to. Shape: (n_ordinary,)"""
        return np.setdiff1d(np.arange(self.size), np.asarray(self.reserved, np.int64))

    @property
    def frame(self) -> tuple[int, int]:
        """The ids before and after a sentence: two EOS in XLM, BOS and EOS in RoBERTa."""
        eos = self.roles["eos"]
        return self.roles.get("begin", eos), eos


@dataclass(frozen=True)
class Samples:
    """One lane's share of a global batch, as read from the shards.

    :param ids: a number that identifies each sample within its stream. Shape: (n_samples,)
    :param sides: one `Ragged` of token ids per side, each with n_samples rows.
    """

    ids: IntArray
    sides: tuple[Ragged, ...]


@dataclass(frozen=True)
class Batch:
    """Packed sequences, and what is to be predicted from them.

    :param tokens: token ids. Shape: (n_tokens,)
    :param positions: position of each token, for the position embedding. Shape: (n_tokens,)
    :param languages: language id of each token. Shape: (n_tokens,)
    :param offsets: where each sequence begins, and the end. Shape: (n_sequences + 1,)
    :param predicted: indices into the packed tokens. Shape: (n_predicted,)
    :param targets: what to predict there: ids, classes or numbers. Shape: (n_predicted,)
    :param sample_ids: the sample that each sequence comes from. Shape: (n_sequences,)
    :param source: for a decoder: the batch that cross-attention reads, sequence by sequence.
    """

    tokens: Tensor
    positions: Tensor
    languages: Tensor
    offsets: Tensor
    predicted: Tensor
    targets: Tensor
    sample_ids: Tensor
    source: Batch | None = None

    @property
    def n_tokens(self) -> int:
        """Packed tokens, those of the source included."""
        return len(self.tokens) + (self.source.n_tokens if self.source else 0)

    @property
    def n_targets(self) -> int:
        """What the loss of a step is divided by, after summing over the global batch."""
        return len(self.targets)

    def to(self, device: torch.device) -> Batch:
        moved = {
            field.name: getattr(self, field.name).to(device, non_blocking=True)
            for field in dataclasses.fields(self)
            if field.name != "source"
        }
        return Batch(**moved, source=self.source.to(device) if self.source else None)

    @classmethod
    def cat(cls, parts: Sequence[Batch]) -> Batch:
        """Concatenate batches: sequences in order, indices shifted."""
        if len(parts) == 1:
            return parts[0]
        starts = np.cumsum([0] + [len(part.tokens) for part in parts]).tolist()
        sources = [part.source for part in parts if part.source is not None]
        return cls(
            tokens=torch.cat([part.tokens for part in parts]),
            positions=torch.cat([part.positions for part in parts]),
            languages=torch.cat([part.languages for part in parts]),
            offsets=torch.cat(
                [part.offsets[:-1] + start for part, start in zip(parts, starts, strict=False)]
                + [torch.tensor(starts[-1:])]
            ),
            predicted=torch.cat(
                [part.predicted + start for part, start in zip(parts, starts, strict=False)]
            ),
            targets=torch.cat([part.targets for part in parts]),
            sample_ids=torch.cat([part.sample_ids for part in parts]),
            source=cls.cat(sources) if sources else None,
        )


class LossOutput(NamedTuple):
    """What an objective returns: sums over targets, never means (the trainer divides).

    :param loss: summed loss, with gradient. Shape: ()
    :param n_targets: number of targets. Shape: ()
    :param n_correct: number of targets that the model ranks first. Shape: ()
    """

    loss: Tensor
    n_targets: Tensor
    n_correct: Tensor


def pack(
    tokens: Ragged,
    positions: Ragged,
    languages: Ragged,
    predicted: IntArray,
    targets: npt.NDArray[np.generic],
    sample_ids: IntArray,
) -> Batch:
    """Make a `Batch` from numpy arrays; all `Ragged` arguments have the same offsets.

    :param targets: ids or classes, which become int64, or numbers, which become float32.
    """

    def long(values: npt.NDArray[np.generic]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values, np.int64))

    are_numbers = np.issubdtype(targets.dtype, np.floating)  # for a regression
    return Batch(
        tokens=long(tokens.values),
        positions=long(positions.values),
        languages=long(languages.values),
        offsets=long(tokens.offsets),
        predicted=long(predicted),
        targets=torch.from_numpy(targets.astype(np.float32)) if are_numbers else long(targets),
        sample_ids=long(sample_ids),
    )


def pack_translation(
    source: Ragged,
    target: Ragged,
    languages: tuple[int, ...],
    vocabulary: Vocabulary,
    sample_ids: IntArray,
) -> Batch:
    """A batch for a decoder, ``</s> y``, whose source is what the encoder reads, ``</s> x </s>``.

    Each token of the decoder predicts the next one, and the last token the final EOS.

    :param source, target: the rows of each side, without special tokens.
    :param languages: the language id of each side.
    """
    nothing = np.empty(0, np.int64)
    read = source.framed(*vocabulary.frame)
    ends = Ragged(np.full(target.n_rows, vocabulary.roles["eos"]), np.arange(target.n_rows + 1))
    written, targets = ends.joined(target), target.joined(ends).values
    batch = pack(
        written, written.positions(), written.filled(languages[1]),
        np.arange(len(targets)), targets, sample_ids,
    )  # fmt: skip
    given = pack(read, read.positions(), read.filled(languages[0]), nothing, nothing, sample_ids)
    return dataclasses.replace(batch, source=given)


def join_pair(
    sides: tuple[Ragged, ...], languages: tuple[int, ...], vocabulary: Vocabulary
) -> tuple[Ragged, ...]:
    """TLM's layout, ``</s> x </s> </s> y </s>``, with positions restarted for the second side.

    (XLM, arXiv 1901.07291, section 3.4)

    :param sides: the two sides, in this order and without special tokens.
    :param languages: the language id of each side.
    :returns: tokens, positions and languages, one row per pair.
    """
    first, second = (side.framed(*vocabulary.frame) for side in sides)
    return (
        first.joined(second),
        first.positions().joined(second.positions()),
        first.filled(languages[0]).joined(second.filled(languages[1])),
    )


def choose_masked(
    tokens: Ragged, options: MaskingOptions, vocabulary: Vocabulary, rng: np.random.Generator
) -> tuple[Ragged, IntArray]:
    """Draw the positions to predict, and mask them; never the first of a row, never padding.

    :param options: the shares to predict, to keep and to replace at random; the rest is MASK.
    :returns: the rows as the model sees them, and the chosen indices into the packed values.
    """
    candidates = np.ones(len(tokens.values), bool)
    candidates[tokens.offsets[:-1]] = False
    candidates &= tokens.values != vocabulary.roles["pad"]
    if options.sample_alpha > 0:
        predicted = _weighted_choice(tokens.values, candidates, options, vocabulary, rng)
    else:
        predicted = np.flatnonzero(candidates & (rng.random(len(candidates)) < options.mask_prob))
    shown = tokens.values.astype(np.int64)
    fate = rng.random(len(predicted))
    ordinary = vocabulary.ordinary
    replacement = ordinary[rng.integers(len(ordinary), size=len(predicted))]
    replaced = fate < options.random_share
    hidden = fate >= options.random_share + options.keep_share
    shown[predicted[hidden]] = vocabulary.roles["mask"]
    shown[predicted[replaced]] = replacement[replaced]
    return Ragged(shown, tokens.offsets), predicted


def choose_for_evaluation(
    tokens: Ragged, vocabulary: Vocabulary, rng: np.random.Generator
) -> tuple[Ragged, IntArray]:
    """Draw the positions that evaluation predicts: all of them MASK, at least one per row.

    The share is the same in every run, whatever its options, so that perplexities can be compared.
    Never the first or last position of a row; in a row of fewer than three tokens, none.

    :returns: the rows as the model sees them, and the chosen indices into the packed values.
    """
    draws = rng.random(len(tokens.values))
    draws[tokens.offsets[:-1]] = draws[tokens.offsets[1:] - 1] = np.inf
    long_rows = np.flatnonzero(tokens.lengths >= 3)
    chosen = draws < EVALUATION_SHARE
    for row in long_rows[~_any_in_row(chosen, tokens)[long_rows]]:
        begin, end = tokens.offsets[row], tokens.offsets[row + 1]
        chosen[begin + int(np.argmin(draws[begin:end]))] = True
    predicted = np.flatnonzero(chosen)
    shown = tokens.values.astype(np.int64)
    shown[predicted] = vocabulary.roles["mask"]
    return Ragged(shown, tokens.offsets), predicted


def _any_in_row(flags: npt.NDArray[np.bool_], layout: Ragged) -> npt.NDArray[np.bool_]:
    counts = offsets_of(flags.astype(np.int64))
    return np.diff(counts[layout.offsets]) > 0


def _weighted_choice(
    values: IntArray,
    candidates: npt.NDArray[np.bool_],
    options: MaskingOptions,
    vocabulary: Vocabulary,
    rng: np.random.Generator,
) -> IntArray:
    """Draw ``mask_prob`` of all positions without replacement, weighted by count^-alpha."""
    if vocabulary.counts is None:
        raise ValueError("sample_alpha needs the token counts of the training text")
    weights = np.maximum(vocabulary.counts, 1.0) ** -options.sample_alpha
    weights[list(vocabulary.reserved)] = 0.0
    weight = np.where(candidates, weights[values], 0.0)
    n_chosen = min(round(options.mask_prob * len(values)), int(np.count_nonzero(weight)))
    # Efraimidis and Spirakis: the largest log(u) / w are a weighted draw without replacement.
    with np.errstate(divide="ignore"):
        keys = np.log(rng.random(len(values))) / weight
    return np.sort(np.argpartition(-keys, n_chosen)[:n_chosen]) if n_chosen else np.empty(0, int)
