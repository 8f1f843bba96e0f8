"""Peak memory of `xlm prepare`, all its processes together, for inputs of different sizes.

    python benchmarks/prepare_memory.py [MB ...]      (default: 100 500)

The text consists of the embedded corpus's words in random order.  Linux only: memory is read from
/proc every 50 ms.  PSS counts a page that several processes share once; the sum of RSS counts it
for each of them.  If `prepare` is bounded, the peak is about the same for every size.
Dated figures: benchmarks/results/prepare_memory.md.
"""

from __future__ import annotations

import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from xlm_plugins.data.prepare.embedded import embedded_sentences

LANGUAGES = ("en", "fr")
INTERVAL = 0.05


def write_text(folder: Path, megabytes: int) -> None:
    """Write this many MB of monolingual text, one half in each language."""
    rng = random.Random(1)
    for language in LANGUAGES:
        words = " ".join(embedded_sentences("train", language)).split()
        with (folder / f"train.{language}.txt").open("w", encoding="utf-8") as file:
            while file.tell() < megabytes * 1e6 / len(LANGUAGES):
                text = rng.choices(words, k=20_000)
                file.write("\n".join(" ".join(text[i : i + 20]) for i in range(0, 20_000, 20)))
                file.write("\n")


def process_tree(root: int) -> list[int]:
    """A process and all of its descendants."""
    found = [root]
    for process in found:
        for path in Path(f"/proc/{process}/task").glob("*/children"):
            found += map(int, path.read_text().split())
    return found


def memory(process: int) -> tuple[int, int]:
    """RSS and PSS of a process, in bytes; 0 once it is gone."""
    try:
        text = Path(f"/proc/{process}/smaps_rollup").read_text()
    except (OSError, ProcessLookupError):
        return 0, 0
    sizes = {line.split()[0]: int(line.split()[1]) for line in text.splitlines()[1:]}
    return sizes.get("Rss:", 0) * 1024, sizes.get("Pss:", 0) * 1024


def measure(source: Path, out: Path) -> tuple[int, int, float]:
    """Run `xlm prepare`; returns peak RSS and PSS over all processes, and seconds."""
    began = time.monotonic()
    command = [sys.executable, "-m", "xlm_plugins", "prepare", str(source), str(out)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    peak_rss = peak_pss = 0
    while process.poll() is None:
        try:
            sizes = [memory(one) for one in process_tree(process.pid)]
        except (OSError, ProcessLookupError):
            continue
        peak_rss = max(peak_rss, sum(rss for rss, _ in sizes))
        peak_pss = max(peak_pss, sum(pss for _, pss in sizes))
        time.sleep(INTERVAL)
    if process.returncode:
        raise SystemExit(f"xlm prepare failed with status {process.returncode}")
    return peak_rss, peak_pss, time.monotonic() - began


def main() -> None:
    sizes = [int(argument) for argument in sys.argv[1:]] or [100, 500]
    print(f"{'input MB':>9} {'peak PSS MB':>12} {'sum of RSS MB':>14} {'seconds':>8}")
    for megabytes in sizes:
        with tempfile.TemporaryDirectory() as name:
            source = Path(name) / "text"
            source.mkdir()
            write_text(source, megabytes)
            rss, pss, seconds = measure(source, Path(name) / "out")
        print(f"{megabytes:>9} {pss / 1e6:>12.0f} {rss / 1e6:>14.0f} {seconds:>8.0f}", flush=True)


if __name__ == "__main__":
    main()
