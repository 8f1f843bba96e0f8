"""How texts become the rows that an encoder reads: ``</s> x </s>``, or ``</s> x </s> y </s>``.

The second form is for tasks on two texts.  Positions continue across both, and the EOS between
them belongs to the first (docs/semantics.md, 8.3).  If sentences begin with BOS, the layout is
RoBERTa's: ``<s> x </s>``, or ``<s> x </s> </s> y </s>``.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from xlm_plugins.contracts.ragged import IntArray, Ragged

if TYPE_CHECKING:
    from xlm_plugins.contracts.tokenizer import Tokenizer


def encode_texts(
    tokenizer: Tokenizer, columns: Sequence[Sequence[str]], longest: int
) -> tuple[Ragged, int]:
    """Encode one or two columns of texts, and add special tokens.

    If two texts are too long together, the longer one is truncated first, at its end.

    :param longest: maximum number of tokens per row, special tokens included.
    :returns: one row for each row of the columns, and how many of them were truncated.
    """
    frame = tokenizer.frame
    sides = tuple(tokenizer.encode_batch(list(column)) for column in columns)
    nothing = [Ragged.of([()]) for _ in sides]
    room = longest - len(_framed(nothing, frame).values)
    lengths = [side.lengths for side in sides]
    kept = _kept(lengths, room)
    n_cut = int(np.count_nonzero(sum(lengths) > room))
    cut = [side.cut(n) for side, n in zip(sides, kept, strict=True)]
    return _framed(cut, frame), n_cut


def frame_sides(sides: Sequence[Ragged], frame: tuple[int, int]) -> tuple[Ragged, ...]:
    """Add the special ids to each side; joined, the sides are what an encoder reads.

    :param sides: rows without special ids, of one text or of two.
    :param frame: the ids before and after a sentence (`Vocabulary.frame`).
    :returns: the sides, each with the special ids that belong to it.
    """
    begin, end = frame
    first, *others = sides
    framed = [first.framed(begin, end)]
    for side in others:
        if begin == end:  # the end of the first text is the beginning of the second
            ends = Ragged(np.full(side.n_rows, end), np.arange(side.n_rows + 1))
            framed.append(side.joined(ends))
        else:
            framed.append(side.framed(end, end))
    return tuple(framed)


def _framed(sides: Sequence[Ragged], frame: tuple[int, int]) -> Ragged:
    return functools.reduce(Ragged.joined, frame_sides(sides, frame))


def _kept(lengths: Sequence[IntArray], room: int) -> list[IntArray]:
    """How many tokens of each side are kept."""
    if len(lengths) == 1:
        return [np.minimum(lengths[0], room)]
    first, second = lengths
    # Each side may have half of the room, and what the other leaves.
    kept = np.minimum(first, np.maximum(room - room // 2, room - second))
    return [kept, np.minimum(second, room - kept)]
