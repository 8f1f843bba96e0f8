"""``xlm demo``: train on the embedded corpus, and show what the model has learned.

The demonstration echoes and runs the commands that a user would type, then compares the trained
model with the untrained one: perplexities, and how often a verse finds its translation among all
verses, by nearest neighbour or by words in common.
"""

from __future__ import annotations

import itertools
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from rich.console import Console
from rich.table import Table

from xlm_plugins.core.catalogue import default_of
from xlm_plugins.core.errors import RunError
from xlm_plugins.core.plugins import Plugins, require
from xlm_plugins.data.prepare.embedded import embedded_sentences
from xlm_plugins.inference.embed import embed
from xlm_plugins.model.bundle import Bundle
from xlm_plugins.runs.find import find_bundle
from xlm_plugins.runs.layout import CURVES_NAME, METRICS_NAME
from xlm_plugins.runs.metrics_file import read_metrics

VOCABULARY_SIZE = 2000
MIDDLE_LAYER = 1  # of two: its states align the languages better than those of the last layer
MODEL = (
    "--dim 128 --n-layers 2 --n-heads 4 --dropout 0 --layer pkm:1+ --pkm.n-keys 32 --pkm.heads 2 "
    "--pkm.knn 8 --pkm.k-dim 64 --pkm.no-query-batchnorm --pkm.value-lr 4e-3"
)
OBJECTIVES = (
    "--objective mlm --mlm.layout sentence --mlm.mask-prob 0.3 --objective tlm --tlm.mask-prob 0.3"
)
SCHEDULE = "--batch-tokens 1300 --lr 4e-3 --evaluate-every 2000 --save-every 0"
NEEDED = (
    ("objective", "mlm"),
    ("objective", "tlm"),
    ("layer", "pkm"),
    ("tokenizer", default_of("tokenizer")),
)

# Two of the corpus's three languages: in four minutes the model learns less of three, above all to
# find translations (the README has both figures).
MASKED = {
    "en": (
        "Jesus said to <mask>, Follow me.",
        "The king of <mask> went out to the city.",
        "The fear of Yahweh is the beginning of <mask>.",
    ),
    "fr": (
        "Jésus dit à <mask>: Suis-moi.",
        "Le roi d'<mask> sortit de la ville.",
        "La crainte de l'Éternel est le commencement de la <mask>.",
    ),
}

Vectors = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Demonstration:
    """A demonstration in a new folder.

    :param folder: where ``data`` and ``run`` are created; must not exist.
    :param minutes: how long to train.
    """

    folder: Path
    minutes: float
    plugins: Plugins
    console: Console

    def show(self) -> None:
        """Run the commands and show the results.

        :raises PluginError: plugins that it shows are not installed.
        :raises RunError: the folder exists, or a command failed.
        """
        if self.folder.exists():
            raise RunError(
                f"{self.folder} already exists", remedy="delete it, or choose another --out"
            )
        require(NEEDED, self.plugins)
        self.folder.mkdir(parents=True)
        data, run = self.folder / "data", self.folder / "run"
        languages = ",".join(MASKED)
        self._xlm(f"prepare embedded {data} --languages {languages} --vocab-size {VOCABULARY_SIZE}")
        self._xlm(
            f"train {OBJECTIVES} {MODEL} --data {data} --out {run} "
            f"--minutes {self.minutes:g} {SCHEDULE}"
        )
        for language, texts in MASKED.items():
            masked = " ".join(shlex.quote(text) for text in texts)
            self._xlm(f"fill-mask {run}@last --language {language} --top 3 {masked}")
        self._show_perplexities(run)
        self._show_retrieval(run)
        self._show_what_next(run)

    def _xlm(self, command: str) -> None:
        """Echo and run one xlm command."""
        self.console.print(f"\n$ xlm {command}", style="bold", markup=False, soft_wrap=True)
        done = subprocess.run([sys.executable, "-m", "xlm_plugins", *shlex.split(command)])
        if done.returncode:
            raise RunError(f"`xlm {command}` exited with status {done.returncode}")

    def _show_perplexities(self, run: Path) -> None:
        lines = [m for m in read_metrics(run / METRICS_NAME) if m["kind"] == "evaluation"]
        before, after = lines[0], lines[-1]
        table = Table(
            "", "untrained", "trained", "untrained", "trained",
            title="\nPerplexity and accuracy on the validation verses", title_justify="left",
        )  # fmt: skip
        names = [n.removesuffix("_ppl") for n in after if n.endswith("_ppl") and n.count("_") == 3]
        for name in names:
            language, objective = name.split("_")[1:]
            table.add_row(
                f"{objective} {language}",
                f"{before[f'{name}_ppl']:,.0f}",
                f"{after[f'{name}_ppl']:,.1f}",
                f"{before[f'{name}_acc']:.1f} %",
                f"{after[f'{name}_acc']:.1f} %",
            )
        self.console.print(table)

    def _show_retrieval(self, run: Path) -> None:
        trained = Bundle.load(find_bundle(f"{run}@last"), self.plugins)
        untrained = _untrained(trained)
        texts = {language: embedded_sentences("valid", language) for language in MASKED}
        n_verses = len(texts["en"])
        table = Table(
            "", "chance", "untrained", "word overlap", "trained",
            title=f"\nVerses that find their translation among {n_verses}, by nearest neighbour of "
            f"the mean state of layer {MIDDLE_LAYER}", title_justify="left",
        )  # fmt: skip
        for candidates, queries in itertools.permutations(MASKED, 2):
            shares = [
                100 / n_verses,
                _retrieval(untrained, texts, queries, candidates),
                overlap_accuracy(texts[queries], texts[candidates]),
                _retrieval(trained, texts, queries, candidates),
            ]
            table.add_row(f"{queries} to {candidates}", *(f"{share:.1f} %" for share in shares))
        self.console.print(table)

    def _show_what_next(self, run: Path) -> None:
        self.console.print(
            f"\nThe curves: {run / CURVES_NAME}\n\nTry next:\n"
            f"  xlm evaluate {run} --split test\n"
            f"  xlm fill-mask {run} --language en 'In the beginning God created the <mask>.'\n"
            f"  xlm train --objective tlm --layer pkm      # the same at its full size",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )


def _untrained(bundle: Bundle) -> Bundle:
    """The same model with new weights."""
    torch.manual_seed(1)
    return replace(bundle, model=bundle.description.build_model(bundle.objectives).eval())


def _retrieval(
    bundle: Bundle, texts: Mapping[str, Sequence[str]], queries: str, candidates: str
) -> float:
    return retrieval_accuracy(
        *(embed(bundle, texts[code], code, layer=MIDDLE_LAYER) for code in (queries, candidates))
    )


def retrieval_accuracy(queries: Vectors, candidates: Vectors) -> float:
    """Percentage of queries whose nearest candidate by cosine is their own translation.

    Each side is centred first: its mean is what its language has in common.

    :param queries: row i is the translation of candidate i. Shape: (n, dim)
    :param candidates: shape (n, dim).
    """
    nearest = (_unit(queries) @ _unit(candidates).T).argmax(axis=1)
    return 100 * float((nearest == np.arange(len(queries))).mean())


def _unit(vectors: Vectors) -> Vectors:
    centred = vectors - vectors.mean(axis=0)
    norms = np.linalg.norm(centred, axis=1, keepdims=True)
    unit: Vectors = centred / np.maximum(norms, 1e-12)
    return unit


def overlap_accuracy(queries: Sequence[str], candidates: Sequence[str]) -> float:
    """The same by the share of lower-cased words in common (Jaccard): the spelling baseline.

    It finds names and numbers, as a reader would.  Ties go to the first candidate.
    """
    candidate_words = [_words(text) for text in candidates]
    hits = 0
    for index, text in enumerate(queries):
        words = _words(text)
        scores = [len(words & other) / max(len(words | other), 1) for other in candidate_words]
        hits += int(np.argmax(scores)) == index
    return 100 * hits / len(queries)


def _words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.lower()))
