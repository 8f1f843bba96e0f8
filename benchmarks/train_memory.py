"""Peak memory of `xlm train` for corpora of different sizes.

    python benchmarks/train_memory.py [N ...]      (default: 1 20 100)

The corpus is the embedded English and French text, alone and paired, repeated N times; the model,
the batches and the vocabulary are always the same.  Linux only: memory is read from /proc every
50 ms.  "Own" is what the process has allocated.  "Mapped" are pages of files, such as shards, which
the system can reclaim when needed.

Own memory grows until blocks have their full 250k tokens (at about N = 60): each lane holds a pool
of 8 blocks for every language and pair.  Then only the manifest grows, by some kB per block.
Dated figures: benchmarks/results/train_memory.md.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from xlm_plugins.data.dataset.manifest import Manifest
from xlm_plugins.data.prepare.embedded import embedded_sentences

LANGUAGES = ("en", "fr")
INTERVAL = 0.05
XLM = (sys.executable, "-m", "xlm_plugins")
OPTIONS = (
    "--objective=mlm", "--objective=tlm", "--layer=pkm", "--pkm.n-keys=32", "--dim=64",
    "--n-layers=2", "--n-heads=4", "--batch-tokens=4096", "--steps=80", "--save-every=0",
    "--evaluate-every=0", "--threads=1",
)  # fmt: skip


def write_text(folder: Path, times: int) -> None:
    """Write the embedded corpus this many times."""
    folder.mkdir()
    for split in ("train", "valid"):
        for language in LANGUAGES:
            text = "".join(f"{line}\n" for line in embedded_sentences(split, language))
            for stream in (language, f"{'-'.join(LANGUAGES)}.{language}"):
                with (folder / f"{split}.{stream}.txt").open("w", encoding="utf-8") as file:
                    for _ in range(times if split == "train" else 1):
                        file.write(text)


def peaks(command: list[str]) -> tuple[int, int]:
    """Run a command; returns the peaks of its own and of its mapped memory, in bytes."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    own = mapped = 0
    while process.poll() is None:
        try:
            status = Path(f"/proc/{process.pid}/status").read_text()
        except OSError:
            continue
        sizes = {line.split()[0]: line.split()[1] for line in status.splitlines() if "kB" in line}
        own = max(own, 1024 * int(sizes.get("RssAnon:", 0)))
        mapped = max(mapped, 1024 * int(sizes.get("RssFile:", 0)))
        time.sleep(INTERVAL)
    if process.returncode:
        raise SystemExit(process.stderr.read().decode() if process.stderr else "it failed")
    return own, mapped


def main() -> None:
    sizes = [int(argument) for argument in sys.argv[1:]] or [1, 20, 100]
    print("| times | M tokens | blocks | own MB | mapped MB |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tokenizer = ["--vocab-size", "2000"]
        for times in sizes:
            source, data = folder / f"text-{times}", folder / f"data-{times}"
            write_text(source, times)
            prepare = [*XLM, "prepare", str(source), str(data), *tokenizer]
            subprocess.run(prepare, check=True, capture_output=True)
            tokenizer = ["--tokenizer-from", str(data)]
            run = folder / f"run-{times}"
            own, mapped = peaks([*XLM, "train", f"--data={data}", f"--out={run}", *OPTIONS])
            streams = [s for s in Manifest.load(data).streams if s.split == "train"]
            n_tokens = sum(stream.n_tokens for stream in streams)
            n_blocks = sum(len(stream.blocks) for stream in streams)
            print(
                f"| {times} | {n_tokens / 1e6:.1f} | {n_blocks} | {own / 1e6:.0f} "
                f"| {mapped / 1e6:.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
