r"""How fast the plugin ``fastbpe`` splits words into pieces, compared with subword-nmt.

    python benchmarks/fastbpe.py CORPUS [--lines 20000] [--rounds 7] [--size 8000]

CORPUS is a folder with train.en.txt, train.fr.txt and train.de.txt (or .xz).  Their lines are first
split into words by Moses' rules, and both sides get these words.  Codes are learned from them
twice, by subword-nmt and by the plugin.  With each, both sides split all lines, each line's output
is compared, and both are timed alternately in this process: from the lines to subword-nmt's lines
of pieces, or to the plugin's ids.  Every round starts with empty caches ("cold") and then splits
the same lines again ("warm").  Processor time is measured, so that other work on the machine
disturbs it less; both sides use one thread.

subword-nmt is not a dependency: ``pip install subword-nmt``.

Prints a Markdown table: median of the rounds, with quartiles in parentheses.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import importlib.metadata
import io
import lzma
import statistics
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from subword_nmt import apply_bpe, learn_bpe
from xlm_fastbpe.codes import Pair, read_codes
from xlm_fastbpe.learning import learn
from xlm_fastbpe.pretokenization import Pretokenizer
from xlm_fastbpe.tokenizer import FastBPE
from xlm_fastbpe.vocabulary import SPECIALS

LANGUAGES = ("en", "fr", "de")
FREQUENT = 10  # minimum count of pieces in the small vocabulary


class _AlreadyWords(Pretokenizer):
    """For text that is already split into words."""

    def words(self, text: str, language: str | None = None) -> str:
        return text


ALREADY_WORDS = _AlreadyWords(("en",))


def main() -> None:
    arguments = _arguments()
    began = time.process_time()
    lines = _words(arguments.corpus, arguments.lines)
    seconds = time.process_time() - began
    counts = Counter(word for line in lines for word in line.split())
    print(
        f"`{_command(arguments)}`, {datetime.date.today()}, tokenizers {_version('tokenizers')}, "
        f"subword-nmt {_version('subword-nmt')}, one thread; {len(lines):,} lines (en, fr, de), "
        f"{counts.total():,} words, {len(counts):,} of them different; median of "
        f"{arguments.rounds} interleaved rounds (quartiles).  Making the words took "
        f"{seconds:.0f} s, {len(lines) / seconds:,.0f} lines/s.\n\n"
        "| codes | vocabulary | lines that differ | ours cold, ms | theirs | theirs / ours "
        "| ours warm, ms | theirs | theirs / ours |\n"
        "|---|---|---|---|---|---|---|---|---|"
    )
    for learner, merges in {
        "subword-nmt's": _learned_by_subword_nmt(counts, arguments.size),
        "ours": learn(counts, arguments.size)[0],
    }.items():
        pieces = Counter(" ".join(map(_theirs(merges, None), lines)).split())
        frequent = {piece for piece, count in pieces.items() if count >= FREQUENT}
        for name, vocabulary in {"all pieces": set(pieces), "frequent pieces": frequent}.items():
            cells = _compared(merges, vocabulary, lines, arguments.rounds)
            print(f"| {learner}, {len(merges):,} | {name}, {len(vocabulary):,} | {cells} |")


def _compared(
    merges: dict[Pair, int], vocabulary: set[str], lines: Sequence[str], n_rounds: int
) -> str:
    words = [*SPECIALS, *sorted(vocabulary)]
    times: dict[str, list[list[float]]] = {"ours": [], "theirs": []}
    for _ in range(n_rounds):
        tokenizer = FastBPE(words, [0] * len(words), merges, ALREADY_WORDS)
        rows, *taken = _timed(tokenizer.encode_batch, lines)
        times["ours"].append(taken)
        written, *taken = _timed(_each(_theirs(merges, vocabulary)), lines)
        times["theirs"].append(taken)
    found = [" ".join([words[number] for number in row]) for row in rows.rows]
    wanted = [_with_unknown(line, vocabulary) for line in written]
    n_different = sum(ours != theirs for ours, theirs in zip(found, wanted, strict=True))
    cells = [f"{n_different} of {len(lines):,}"]
    for place in (0, 1):
        ours, theirs = ([taken[place] for taken in side] for side in times.values())
        ratios = [b / a for a, b in zip(ours, theirs, strict=True)]
        cells += [f"{1000 * statistics.median(side):,.0f}" for side in (ours, theirs)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        cells.append(f"{middle:.1f} ({low:.1f} to {high:.1f})")
    return " | ".join(cells)


def _each(process_line: Callable[[str], str]) -> Callable[[Sequence[str]], list[str]]:
    return lambda lines: [process_line(line) for line in lines]


def _timed(work: Callable[[Any], Any], lines: Sequence[str]) -> tuple[Any, float, float]:
    """The result of some work on lines, and its seconds the first and the second time."""
    times = [time.process_time()]
    for _ in range(2):
        found = work(lines)
        times.append(time.process_time())
    return found, times[1] - times[0], times[2] - times[1]


def _theirs(merges: dict[Pair, int], vocabulary: set[str] | None) -> Callable[[str], str]:
    codes = "".join(f"{left} {right}\n" for left, right in merges)
    bpe = apply_bpe.BPE(io.StringIO("#version: 0.2\n" + codes), vocab=vocabulary)
    process_line: Callable[[str], str] = bpe.process_line
    return process_line


def _with_unknown(line: str, vocabulary: set[str]) -> str:
    return " ".join([piece if piece in vocabulary else "<unk>" for piece in line.split(" ")])


def _version(distribution: str) -> str:
    return importlib.metadata.version(distribution)


def _command(arguments: argparse.Namespace) -> str:
    options = f"--lines {arguments.lines} --rounds {arguments.rounds} --size {arguments.size}"
    return f"python benchmarks/fastbpe.py CORPUS {options}"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--lines", type=int, default=20_000, help="of all three languages together")
    parser.add_argument("--rounds", type=int, default=7, help="measurements of each")
    parser.add_argument("--size", type=int, default=8_000, help="merges, or tokens, to learn")
    return parser.parse_args()


def _words(corpus: Path, n_lines: int) -> list[str]:
    """Lines from all over each language's text, split into words."""
    found: list[str] = []
    for place, language in enumerate(LANGUAGES, start=1):
        path = corpus / f"train.{language}.txt"
        packed = path.with_name(f"{path.name}.xz")
        raw = path.read_bytes() if path.exists() else lzma.decompress(packed.read_bytes())
        lines = raw.decode().splitlines()
        n_wanted = n_lines * place // len(LANGUAGES) - len(found)
        pretokenizer = Pretokenizer((language,))
        chosen = lines[:: len(lines) // n_wanted][:n_wanted]
        found += [pretokenizer.words(line) for line in chosen]
    return found


def _learned_by_subword_nmt(counts: Counter[str], n_merges: int) -> dict[Pair, int]:
    written = io.StringIO()
    words = io.StringIO("".join(f"{word} {count}\n" for word, count in counts.items()))
    with contextlib.redirect_stderr(io.StringIO()):
        learn_bpe.learn_bpe(words, written, n_merges, is_dict=True)
    return read_codes(written.getvalue(), "subword-nmt's codes")


if __name__ == "__main__":
    main()
