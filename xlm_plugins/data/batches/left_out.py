"""Which text training leaves out for its length, counted from the manifest alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from xlm_plugins.contracts.batch import Layout, Step
from xlm_plugins.contracts.objective import Objective
from xlm_plugins.data.batches.planning import BatchSizes
from xlm_plugins.data.batches.pools import stream_languages
from xlm_plugins.data.dataset.manifest import TRAIN, Manifest, Stream

WARNED_SHARE = 0.05
KEPT_SHARE = 0.99


@dataclass(frozen=True)
class LeftOut:
    """What training leaves out of one stream because it is longer than ``max_length``.

    :param objectives: those that read the stream by sentences or pairs.
    :param sentences, tokens: in the stream; for pairs, tokens of both sides.
    :param sentences_left_out, tokens_left_out: of these.
    :param max_length: the limit in force, in tokens without the frame.
    :param sufficient_max_length: the least limit that keeps 99 % of the tokens.
    """

    stream: str
    objectives: str
    sentences: int
    tokens: int
    sentences_left_out: int
    tokens_left_out: int
    max_length: int
    sufficient_max_length: int

    @classmethod
    def of(cls, stream: Stream, objectives: str, max_length: int) -> LeftOut:
        """Count what is left out of a stream."""
        longest, n_sentences, n_tokens = np.concatenate([b.lengths for b in stream.blocks]).T
        tokens_up_to = np.bincount(longest, n_tokens).cumsum()
        sufficient = int(np.searchsorted(tokens_up_to, KEPT_SHARE * tokens_up_to[-1]))
        too_long = longest > max_length
        return cls(
            stream.name,
            objectives,
            int(n_sentences.sum()),
            int(n_tokens.sum(dtype=np.int64)),
            int(n_sentences[too_long].sum()),
            int(n_tokens[too_long].sum(dtype=np.int64)),
            max_length,
            sufficient,
        )

    @property
    def share(self) -> float:
        """Share of the stream's tokens that is left out."""
        return self.tokens_left_out / max(self.tokens, 1)

    def record(self) -> dict[str, Any]:
        """The values of a line of metrics.jsonl."""
        return asdict(self)

    def line(self) -> str:
        """A line for people; a warning where more than 5 % of the tokens are left out."""
        counts = (
            f"{self.stream}: {self.sentences_left_out:,} of {self.sentences:,} sentences "
            f"({self.share:.1%} of the tokens) exceed --max-length {self.max_length} and are left "
            f"out ({self.objectives})"
        )
        if self.share <= WARNED_SHARE:
            return counts
        return f"warning: {counts}; --max-length {self.sufficient_max_length} would keep 99 %"


def text_left_out(
    objectives: Mapping[str, Objective],
    steps: Mapping[str, Sequence[Step]],
    manifest: Manifest,
    sizes: BatchSizes,
) -> list[LeftOut]:
    """What is left out of each stream that is read by sentences or pairs.

    Streams that are read as running text lose nothing to ``max_length``.
    """
    readers: dict[str, list[str]] = {}
    for name, objective in objectives.items():
        for step in steps[name]:
            layout = objective.layout(step)
            if layout is not Layout.STREAM:
                stream = manifest.stream(TRAIN, stream_languages(layout, step))
                readers.setdefault(stream.name, []).append(name)
    return [
        LeftOut.of(stream, ", ".join(dict.fromkeys(readers[stream.name])), sizes.max_length)
        for stream in manifest.streams
        if stream.name in readers
    ]
