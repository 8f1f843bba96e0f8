"""A block's rows as the manifest knows them: by their lengths alone."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from xlm_plugins.core.ragged import Ragged, offsets_of
from xlm_plugins.data.manifest import Block


def length_table(sides: tuple[Ragged, ...]) -> npt.NDArray[np.int32]:
    """`Block.lengths`: (longest side, sentences of that length, their tokens), rising."""
    lengths = np.stack([side.lengths for side in sides])
    longest, row = np.unique(lengths.max(axis=0), return_inverse=True)
    n_sentences = np.bincount(row, minlength=len(longest))
    n_tokens = np.zeros(len(longest), np.int64)
    np.add.at(n_tokens, row, lengths.sum(axis=0))
    return np.stack([longest, n_sentences, n_tokens], axis=1).astype(np.int32)


def stand_in(block: Block, n_sides: int) -> tuple[Ragged, ...]:
    """Rows of zeros in the place of a block: as many, with as many tokens, as the manifest says.

    They are in another order than the block's own, and the first side of a pair is the longer.
    """
    longest, n_rows, n_tokens = block.lengths.astype(np.int64).T
    lengths = [np.repeat(longest, n_rows)]
    if n_sides == 2:
        least, spare = np.divmod(n_tokens - longest * n_rows, n_rows)
        row = np.arange(len(lengths[0])) - np.repeat(offsets_of(n_rows)[:-1], n_rows)
        lengths.append(np.repeat(least, n_rows) + (row < np.repeat(spare, n_rows)))
    return tuple(Ragged(np.zeros(n.sum(), np.uint16), offsets_of(n)) for n in lengths)
