"""A stream of text in memory, for tests of how blocks become batches."""

from __future__ import annotations

import numpy as np

from xlm_plugins.contracts.ragged import Ragged, stack
from xlm_plugins.data.dataset.manifest import Block, Stream


class Text:
    """Random sentences of one language, or several line by line, and the reader of their blocks.

    No token occurs twice, so what a batch holds says where it came from.

    :param longest: tokens of the longest sentence.
    :param rows: sentences per block.
    """

    def __init__(
        self, n_blocks: int, languages: tuple[str, ...] = ("en",), longest: int = 25, rows: int = 30
    ) -> None:
        rng = np.random.default_rng(n_blocks)
        self.blocks: dict[str, tuple[Ragged, ...]] = {}
        blocks, token = [], 100
        for number in range(n_blocks):
            sides = []
            for _ in languages:
                lengths = rng.integers(1, longest + 1, size=rows)
                ends = token + np.cumsum(lengths)
                sides.append(
                    Ragged.of([np.arange(e - n, e) for n, e in zip(lengths, ends, strict=True)])
                )
                token = int(ends[-1])
            self.blocks[str(number)] = tuple(sides)
            both = np.stack([side.lengths for side in sides])
            table = [
                (int(at), int((both.max(0) == at).sum()), int(both[:, both.max(0) == at].sum()))
                for at in np.unique(both.max(0))
            ]
            blocks.append(Block(0, str(number), {}, rows, np.array(table)))
        self.stream = Stream("train", languages, blocks)
        self.sides = tuple(
            stack([self.blocks[b.key][side] for b in blocks]) for side in range(len(languages))
        )

    def read(self, block: Block) -> tuple[Ragged, ...] | None:
        """One `Ragged` per language of the stream."""
        return self.blocks[block.key]
