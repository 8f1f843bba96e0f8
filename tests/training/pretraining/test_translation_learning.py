"""Translation is learnt from raw text, with parallel text and without any.

Without it, one toy language is a cipher of the other.  How well it is found for other shares of
anchors, the words that both languages have, is printed by

    python tests/training/pretraining/test_translation_learning.py SEED SHARE ...
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from xlm_plugins.config.settings import resolve
from xlm_plugins.core.plugins import Plugins
from xlm_plugins.core.registry import NoOptions
from xlm_plugins.data.prepare.prepare import TokenizerTraining, prepare
from xlm_plugins.data.prepare.sources import Sources
from xlm_plugins.inference.loaded_model import LoadedModel
from xlm_plugins.model.bundle import Bundle
from xlm_plugins.runs.find import find_bundle
from xlm_plugins.testing import WORDS
from xlm_plugins.testing.words import WordTokenizer
from xlm_plugins.training.pretraining.evaluation import evaluate_run
from xlm_plugins.training.pretraining.job import train

Sentence = list[str]
N_WORDS = 100
SPLITS = {"train": 20_000, "valid": 100, "test": 300}
MODEL = {"dim": 64, "n_layers": 2, "n_heads": 4, "dropout": 0.0, "max_positions": 32}
TRAIN = {
    "batch_tokens": 1500,
    "max_length": 30,
    "window": 30,
    "evaluate_every": 0,
    "save_every": 0,
    "log_every": 100,
    "translate_sentences": 0,
    "threads": 1,
}


@pytest.mark.slow
@pytest.mark.parametrize(
    "translated", [list, lambda words: words[::-1]], ids=["copied", "reversed"]
)
def test_a_rule_is_learnt_from_pairs(
    translated: Callable[[Sentence], Sentence], tmp_path: Path
) -> None:
    """Sentences of 3 to 10 words out of 50, all as likely; those of the test are new."""
    rng = np.random.default_rng(1)
    text: dict[str, list[Sentence]] = {}
    for split, n_sentences in SPLITS.items():
        lengths = rng.integers(3, 11, size=n_sentences)
        sentences = [[f"w{i}" for i in rng.integers(50, size=length)] for length in lengths]
        text[f"{split}.a-b.a"] = sentences
        text[f"{split}.a-b.b"] = [translated(words) for words in sentences]
    data = prepared(tmp_path, text)
    run = trained(tmp_path / "run", data, ["mt:a-b"], steps=400, lr=4e-3)
    assert evaluate_run(str(run), None, "test", plugins())["test_a-b_mt_bleu"] >= 95


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.1])
def test_a_cipher_is_found_without_any_pair(share: float, tmp_path: Path) -> None:
    """MLM of both languages, then AE and BT from it: unsupervised translation as a whole.

    It may end in a cipher that is wrong for some words: three seeds gave 95, 100 and 54 %.  The
    bound leaves room for that, for on another machine a seed is another seed.
    """
    found = decipher(tmp_path, share, seed=1)
    assert max(found.best_guess, found.anchors) < 15  # chance
    assert min(found.forth, found.back) > 40, found


@dataclass(frozen=True)
class Deciphered:
    """Percentage of words that are where the true translation has them.

    :param forth: from the language to its cipher.
    :param back: the other way.
    :param anchors: what copying gives: only anchors are right.
    :param best_guess: what writing the most frequent word everywhere gives.
    """

    forth: float
    back: float
    anchors: float
    best_guess: float


def decipher(folder: Path, share: float, seed: int) -> Deciphered:
    """Create two languages, learn both, learn to translate, and compare with the truth.

    :param share: of the words, that are anchors: both languages have them, with one meaning.
    """
    rng = np.random.default_rng(seed)
    language = ToyLanguage.draw(rng)
    said = {split: [language.sentences(n) for _ in "ab"] for split, n in SPLITS.items()}
    frequency = np.bincount([i for s in said["train"][0] for i in s], minlength=N_WORDS)
    plain, cipher = spellings(frequency, share, rng)
    text = {}
    for split in ("train", "valid"):
        text[f"{split}.a"], text[f"{split}.b"] = (
            [[spelling[i] for i in sentence] for sentence in sentences]
            for spelling, sentences in zip((plain, cipher), said[split], strict=True)
        )
    meant = said["test"][0]
    in_a, in_b = ([[words[i] for i in s] for s in meant] for words in (plain, cipher))
    data = prepared(folder, text)
    known = trained(folder / "mlm", data, ["mlm"], steps=1200, lr=4e-3, mlm=MASKING)
    start = [f"{known}@last"]
    run = trained(folder / "bt", data, ["ae", "bt"], steps=1000, lr=3e-3, init=start, ae=NOISE)
    model = LoadedModel(Bundle.load(find_bundle(f"{run}@last"), plugins()))
    counts = np.bincount([i for s in meant for i in s])
    return Deciphered(
        accuracy(model.translate([" ".join(s) for s in in_a], "a", "b"), in_b),
        accuracy(model.translate([" ".join(s) for s in in_b], "b", "a"), in_a),
        accuracy([" ".join(s) for s in in_a], in_b),
        float(100 * counts.max() / counts.sum()),
    )


MASKING = {"layout": "sentence", "mask_prob": 0.3}
NOISE = {"word_dropout": 0.2, "word_blank": 0.2}  # twice the usual


@dataclass(frozen=True)
class ToyLanguage:
    """A Markov chain over words: a word is known by the company it keeps.

    Each word has six that may follow it; which ones, Zipf's law draws, so that few words are
    frequent and most are rare.

    :param followers: cumulative probability of the word after each word, and, in the last row,
        of the first one.  Shape: (n_words + 1, n_words)
    """

    followers: np.ndarray
    rng: np.random.Generator

    @classmethod
    def draw(cls, rng: np.random.Generator, n_words: int = N_WORDS) -> ToyLanguage:
        popularity = 1 / np.arange(1, n_words + 1)
        chances = np.zeros((n_words + 1, n_words))
        for row in chances:
            which = rng.choice(n_words, size=6, replace=False, p=popularity / popularity.sum())
            row[which] = rng.dirichlet(np.full(6, 0.7))
        return cls(chances.cumsum(axis=1), rng)

    def sentences(self, n: int) -> list[list[int]]:
        """Sentences of 4 to 10 words, each word by its number."""
        return [self._sentence(length) for length in self.rng.integers(4, 11, size=n)]

    def _sentence(self, length: int) -> list[int]:
        words = [-1]
        for draw in self.rng.random(length):
            follower = np.searchsorted(self.followers[words[-1]], draw, "right")
            words.append(min(int(follower), self.followers.shape[1] - 1))
        return words[1:]


def spellings(
    frequency: np.ndarray, share: float, rng: np.random.Generator
) -> tuple[list[str], list[str]]:
    """How each word is written in the language, and how in its cipher.

    The anchors are as frequent as other words: a tenth is the 6th most frequent word, the 16th,
    the 26th and so on.

    :param frequency: of each word.
    """
    n_words = len(frequency)
    by_rank = np.argsort(-frequency, kind="stable").tolist()
    anchors = [by_rank[int((k + 0.5) / share)] for k in range(round(share * n_words))]
    numbers = rng.permutation(n_words).tolist()
    plain = [f"x{i}" if i in anchors else f"a{i}" for i in range(n_words)]
    cipher = [f"x{i}" if i in anchors else f"b{numbers[i]}" for i in range(n_words)]
    return plain, cipher


def accuracy(translations: Iterable[str], references: Sequence[Sentence]) -> float:
    """Percentage of the references' words that the translation has in the same place."""
    n_right = sum(
        word == reference[place]
        for translation, reference in zip(translations, references, strict=True)
        for place, word in enumerate(translation.split()[: len(reference)])
    )
    return 100 * n_right / sum(map(len, references))


def plugins() -> Plugins:
    """What is installed, and a tokenizer of whole words."""
    found = Plugins.discover()
    found.registry.add(WORDS)
    return found


def prepared(folder: Path, text: Mapping[str, list[Sentence]]) -> Path:
    """A data set with a vocabulary of all words of the training text.

    :param text: sentences by the name of their file.
    """
    source, data = folder / "text", folder / "data"
    source.mkdir()
    for name, sentences in text.items():
        lines = "\n".join(map(" ".join, sentences))
        (source / f"{name}.txt").write_text(lines + "\n", encoding="utf-8")
    learnt = [s for name, sentences in text.items() if name.startswith("train") for s in sentences]
    n_words = len({word for sentence in learnt for word in sentence})
    training = TokenizerTraining(n_words + len(WordTokenizer.ROLES), NoOptions())
    prepare(Sources.open(source), data, WORDS, training, workers=1)
    return data


def trained(
    out: Path, data: Path, objectives: list[str], *, steps: int, lr: float, **options: Any
) -> Path:
    """Train a small model.

    :param options: ``init``, and sections of objectives.
    """
    init = options.pop("init", [])
    told = {"objective": objectives, "data": str(data), "out": str(out), "steps": steps}
    sections: dict[str, Any] = {
        "model": MODEL,
        "optimizer": {"lr": lr, "warmup": 100},
        "train": {**TRAIN, **told, "init": init},
        **options,
    }
    outcome = train(resolve(sections, {}, plugins()), plugins())
    assert outcome.reason == "done"  # a signal, too, ends a run in peace
    return outcome.path


if __name__ == "__main__":
    seed, *shares = sys.argv[1:]
    for share in shares:
        with tempfile.TemporaryDirectory() as folder:
            print(f"share {share}:", decipher(Path(folder), float(share), int(seed)))
