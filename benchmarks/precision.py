"""Losses of one run in fp32, bf16 and fp16, with ZeRO stages 1 and 2, and plain torch in fp32.

    python benchmarks/precision.py [--steps 2000] [--processes 1] [--dim 512] ...

For a machine with a GPU; fp16 is skipped on a CPU, where DeepSpeed refuses it.  Each run is
`xlm train` with mlm, tlm and a product-key memory on the embedded corpus, with the same seed, data
and options, so that only rounding differs.  The table shows the training loss at three points
(the mean over the log lines of a tenth of the run), the maximum and mean distance of all lines from
those of fp32, the validation perplexity, the updates skipped for an overflow, and the speed.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

RUNS = [
    ("torch fp32", ("--engine=torch", "--precision=fp32")),
    *(
        (f"ZeRO {stage} {precision}", (f"--zero-stage={stage}", f"--precision={precision}"))
        for precision in ("fp32", "bf16", "fp16")
        for stage in (1, 2)
    ),
]
OBJECTIVES = ("--objective=mlm", "--objective=tlm", "--layer=pkm")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument(
        "--processes", type=int, default=1, help="ranks of the runs under DeepSpeed"
    )
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--n-layers", type=int, default=4)
    parser.add_argument("--batch-tokens", type=int, default=8192)
    parser.add_argument("--n-keys", type=int, default=128)
    arguments = parser.parse_args()
    options = [f"--{name}={getattr(arguments, name.replace('-', '_'))}" for name in
               ("steps", "dim", "n-layers", "batch-tokens")]  # fmt: skip
    options += [*OBJECTIVES, f"--pkm.n-keys={arguments.n_keys}", "--evaluate-every=0"]
    options += ["--save-every=0", "--log-every=1", "--lr=5e-4"]
    print(heading(options, arguments.processes))
    reference: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        for name, flags in RUNS:
            if "fp16" in name and not torch.cuda.is_available():
                continue
            processes = arguments.processes if "ZeRO" in name else 1
            run = Path(folder) / name.replace(" ", "-")
            train(run, [*options, *flags], processes)
            lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
            reference = reference or losses(lines)
            print(row(name, lines, reference), flush=True)


def train(run: Path, options: list[str], processes: int) -> None:
    """One run, with torch's launcher if there are several processes."""
    launcher = ["-m", "xlm_plugins"]
    if processes > 1:
        launcher = ["-m", "torch.distributed.run", f"--nproc_per_node={processes}", *launcher]
    if "--engine=torch" not in options:
        options = [*options, "--engine=deepspeed"]
    command = [sys.executable, *launcher, "train", f"--out={run}", *options]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)


def losses(lines: list[dict[str, Any]]) -> list[float]:
    return [float(line["loss"]) for line in lines if line["kind"] == "train"]


def row(name: str, lines: list[dict[str, Any]], reference: list[float]) -> str:
    """A run's row of the table."""
    found = losses(lines)
    tenth = max(len(found) // 10, 1)
    points = (tenth, len(found) // 2, len(found))
    at = [f"{statistics.mean(found[point - tenth : point]):.4f}" for point in points]
    distances = [abs(a - b) for a, b in zip(found, reference, strict=True)]
    trained = [line for line in lines if line["kind"] == "train"]
    measured = next(line for line in reversed(lines) if line["kind"] == "evaluation")
    speed = statistics.median(line["tokens_per_second"] for line in trained)
    cells = [
        name, *at, f"{max(distances):.2g}", f"{statistics.mean(distances):.2g}",
        f"{measured['valid_mlm_ppl']:.2f}", str(trained[-1]["skipped"]), f"{speed:,.0f}",
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |"


def heading(options: list[str], processes: int) -> str:
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    columns = (
        "run", "loss at 1/10", "at half", "at the end", "maximum distance", "mean distance",
        "valid_mlm_ppl", "skipped", "tokens/s",
    )  # fmt: skip
    return (
        f"{device}, {platform.python_version()}, torch {version('torch')}, deepspeed "
        f"{version('deepspeed')}; {processes} process(es) under ZeRO\n`xlm train "
        f"{' '.join(options)}`\n\n| {' | '.join(columns)} |\n|{'---|' * len(columns)}"
    )


if __name__ == "__main__":
    main()
