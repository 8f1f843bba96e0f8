"""What a checkpoint costs over writing its bytes.

    python benchmarks/checkpoint.py [--n-saves 10] [--folder FOLDER]

A model of some 100 MB (dim 512, 8 layers, vocabulary 7,965: 32 M parameters with their two moments,
so that a checkpoint holds three times as much) is saved as the trainer saves it: tensors copied,
written, flushed and renamed, with checksums, and the oldest checkpoint removed.  Alternating with
that, the same bytes are written plainly, in files of the same sizes, flushed, and the previous
files removed.  The table shows the medians, and the median and quartiles of the ratios of
neighbours.  Both are written to FOLDER, which should be on the disk that runs are written to.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

from xlm_plugins.config.model import ModelOptions
from xlm_plugins.config.training import OptimizerOptions, TrainOptions
from xlm_plugins.model.model import Model
from xlm_plugins.runs.folder import RunFolder
from xlm_plugins.training.distributed.process_group import World
from xlm_plugins.training.engines.create import create_engine
from xlm_plugins.training.engines.engine import Engine
from xlm_plugins.training.engines.training_state import save_training_state

VOCABULARY_SIZE, PAD = 7965, 2
CONTENT = memoryview(np.random.default_rng(1).bytes(300_000_000))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n-saves", type=int, default=10, help="pairs that are measured")
    parser.add_argument("--folder", type=Path, help="where to write; a temporary one if unset")
    arguments = parser.parse_args()
    engine = new_engine()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        run = Path(name) / "run"
        run.mkdir()
        (run / "config.toml").touch()
        folder = RunFolder.reopen(run)
        save(engine, folder, 0)  # warms up memory
        sizes = [path.stat().st_size for path in run.glob("checkpoints/*/*")]
        plainly(Path(name), sizes)
        pairs = []
        for number in range(1, arguments.n_saves + 1):
            ours = seconds(lambda number=number: save(engine, folder, number))
            pairs.append((ours, seconds(lambda: plainly(Path(name), sizes))))
        folder.close()
    report(pairs, sum(sizes))


def new_engine() -> Engine:
    """An engine, whose moments exist from the start."""
    torch.manual_seed(1)
    model = Model(ModelOptions(dim=512, n_layers=8), VOCABULARY_SIZE, 1, {"encoder"}, PAD)
    return create_engine(model, OptimizerOptions(), TrainOptions(engine="torch"), World())


def save(engine: Engine, folder: RunFolder, number: int) -> None:
    """One checkpoint, from the engine's tensors to its name in the run folder."""
    state = engine.state()
    folder.save_checkpoint(number, lambda inside: save_training_state(inside, state), keep=2)


def plainly(folder: Path, sizes: list[int]) -> None:
    """Write and flush as many bytes in as many files, and remove the previous ones."""
    written = folder / "plain"
    shutil.rmtree(written, ignore_errors=True)
    written.mkdir()
    for index, size in enumerate(sizes):
        with (written / str(index)).open("wb", buffering=0) as file:
            file.write(CONTENT[:size])
            os.fsync(file.fileno())


def seconds(do: Callable[[], None]) -> float:
    began = time.perf_counter()
    do()
    return time.perf_counter() - began


def report(pairs: list[tuple[float, float]], n_bytes: int) -> None:
    ratios = statistics.quantiles([ours / plain for ours, plain in pairs], n=4)
    ours, plain = (statistics.median(times) for times in zip(*pairs, strict=True))
    print(
        f"{platform.python_version()}, torch {version('torch')}, safetensors "
        f"{version('safetensors')}; {n_bytes / 1e6:.0f} MB, {len(pairs)} pairs\n\n"
        "| our save | plain write and flush | ratio | quartiles |\n|---|---|---|---|\n"
        f"| {ours:.2f} s | {plain:.2f} s | {ratios[1]:.2f} | {ratios[0]:.2f} to {ratios[2]:.2f} |"
    )


if __name__ == "__main__":
    main()
