"""A data set for tests: text in two languages and their pair, prepared like any other."""

from __future__ import annotations

import atexit
import functools
import itertools
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from xlm_plugins.config.model import ModelOptions
from xlm_plugins.contracts.batch import Layout, Samples, Step, Vocabulary
from xlm_plugins.core.registry import NoOptions
from xlm_plugins.data.batches.planning import BatchSizes, StreamPlan
from xlm_plugins.data.batches.pools import stream_languages
from xlm_plugins.data.dataset.manifest import COUNTS_NAME, Manifest
from xlm_plugins.data.dataset.shards import ShardReader
from xlm_plugins.data.prepare.prepare import TokenizerTraining, prepare
from xlm_plugins.data.prepare.sources import Sources
from xlm_plugins.model.model import Model
from xlm_plugins.testing import WORDS
from xlm_plugins.testing.text import LANGUAGES, in_greek, lines

VOCABULARY_SIZE = 200
WINDOW = 16
N_LINES = {"train": 300, "valid": 40, "test": 40}
TINY = ModelOptions(dim=32, n_layers=2, n_heads=4, max_positions=64, dropout=0.0)


@dataclass(frozen=True)
class TinyData:
    """A data set of the languages ``xa`` and ``xb``, alone and as a pair; see `testing.text`.

    :param path: its folder, for ``xlm train --data``; its tokenizer, `WORDS`, is known only to
        the fixture ``xlm_bare_plugins``.
    :param vocabulary: of its tokenizer, with token counts.
    :param languages: id of each language.
    """

    path: Path
    vocabulary: Vocabulary
    languages: Mapping[str, int]

    @classmethod
    def prepare(cls, folder: Path) -> TinyData:
        """Write the text, and prepare it.

        :param folder: an empty folder.
        """
        text, path = folder / "text", folder / "data"
        text.mkdir()
        streams = itertools.product(N_LINES.items(), ("", "xa-xb."))
        for seed, ((split, n_lines), stream) in enumerate(streams):
            sentences = lines(n_lines, seed)
            _write(text / f"{split}.{stream}xa.txt", sentences)
            _write(text / f"{split}.{stream}xb.txt", map(in_greek, sentences))
        training = TokenizerTraining(VOCABULARY_SIZE, NoOptions())
        manifest = prepare(Sources.open(text), path, WORDS, training, workers=1)
        counts = np.load(path / COUNTS_NAME)
        languages = {code: number for number, code in enumerate(LANGUAGES)}
        return cls(path, manifest.vocabulary(counts), languages)

    def samples(self, layout: Layout, step: Step, n_tokens: int = 120, number: int = 0) -> Samples:
        """Training samples, as an objective receives them in a loader worker.

        :param layout: the layout of the step, as `Objective.layout` returns it.
        :param n_tokens: tokens of all samples together, approximately; a window has 16.
        :param number: a different number returns different samples.
        """
        manifest = Manifest.load(self.path)
        stream = manifest.stream("train", stream_languages(layout, step))
        sizes = BatchSizes(n_tokens, lanes=1, max_length=WINDOW, window=WINDOW)
        batching = sizes.batching(layout, stream, step, self.vocabulary.roles["eos"])
        plan = StreamPlan(stream, batching, 1, ("testing", str(step)))
        return plan.samples(ShardReader(self.path, manifest), 0, number)


def tiny_model(data: TinyData) -> Model:
    """An encoder with two layers of width 32, for the data's vocabulary and languages."""
    pad = data.vocabulary.roles["pad"]
    return Model(TINY, data.vocabulary.size, len(data.languages), ["encoder"], pad)


@functools.cache
def tiny_data() -> TinyData:
    """The data set of the checks: made once per process, and deleted at its end."""
    folder = tempfile.TemporaryDirectory(prefix="xlm-testing-")
    atexit.register(folder.cleanup)
    return TinyData.prepare(Path(folder.name))


def _write(path: Path, sentences: Iterable[str]) -> None:
    path.write_text("\n".join(sentences) + "\n", encoding="utf-8")
