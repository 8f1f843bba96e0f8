"""Held-out sentences as text, for metrics that compare generated text with references."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from xlm_plugins.data.dataset.manifest import Manifest
from xlm_plugins.data.dataset.shards import ShardReader


def held_out_text(
    folder: Path, manifest: Manifest, split: str, languages: tuple[str, ...], most: int
) -> tuple[list[str], ...]:
    """Sentences of a split, evenly spread over its text.

    :param languages: one, or a pair in either order.
    :param most: maximum number of sentences.
    :returns: the sentences of each language, in the order given; empty if the split has no such
        text.
    """
    have = {frozenset(s.languages) for s in manifest.streams if s.split == split}
    if frozenset(languages) not in have:
        return ()
    stream = manifest.stream(split, languages)
    reader = ShardReader(folder, manifest, retry=True)
    blocks = [reader.read_text(block) for block in stream.blocks]
    if not all(blocks):
        return ()  # training text is stored as ids only
    sides = [[text for block in blocks for text in block[side]] for side in range(len(languages))]
    chosen = np.linspace(0, len(sides[0]) - 1, min(most, len(sides[0]))).round().astype(int)
    order = [stream.languages.index(language) for language in languages]
    return tuple([sides[side][number] for number in chosen] for side in order)
