"""How texts become the rows that an encoder reads: ``</s> x </s>``, or ``</s> x </s> y </s>``.

The second form compares two texts.  Their positions go on across both, and the EOS between them
belongs to the first.  (SEMANTICS 8: the layout of parallel classification)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from xlm_plugins.core.ragged import IntArray, Ragged

if TYPE_CHECKING:
    from xlm_plugins.core.contracts import Tokenizer


def encode_texts(
    tokenizer: Tokenizer, columns: Sequence[Sequence[str]], longest: int
) -> tuple[tuple[Ragged, ...], int]:
    """Encode one or two columns of texts, cut so that each framed row has its place.

    Of two texts the longer one is cut first, at its end.

    :param longest: tokens of a framed row, at most.
    :returns: a side a column, unframed, and how many rows were cut.
    """
    sides = tuple(tokenizer.encode_batch(list(column)) for column in columns)
    room = longest - len(sides) - 1
    lengths = [side.lengths for side in sides]
    kept = _kept(lengths, room)
    n_cut = int(np.count_nonzero(sum(lengths) > room))
    return tuple(side.cut(n) for side, n in zip(sides, kept, strict=True)), n_cut


def frame_texts(sides: Sequence[Ragged], eos: int) -> Ragged:
    """Put a row's texts between EOS, each followed by one.

    :param sides: unframed rows, of one text or two.
    """
    first, *others = sides
    tokens = first.framed(eos, eos)
    for side in others:
        ends = Ragged(np.full(side.n_rows, eos), np.arange(side.n_rows + 1))
        tokens = tokens.joined(side.joined(ends))
    return tokens


def _kept(lengths: Sequence[IntArray], room: int) -> list[IntArray]:
    """How many tokens of each side stay."""
    if len(lengths) == 1:
        return [np.minimum(lengths[0], room)]
    first, second = lengths
    # Either side may have half of the room, and what the other leaves free.
    kept = np.minimum(first, np.maximum(room - room // 2, room - second))
    return [kept, np.minimum(second, room - kept)]
