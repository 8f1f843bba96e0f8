"""Resources for importing a model of the size of XLM's model of 100 languages.

make test-large
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

SHAPE = {"emb_dim": 1280, "n_layers": 16, "n_heads": 16, "use_lang_emb": False}
N_WORDS = 200_000
LANGUAGES = tuple(f"l{n:02}" for n in range(100))
# Not getrusage: a process inherits the peak of its parent, which made the file.
PROGRAM = """
import pathlib, re, sys, time
from xlm_plugins.cli.main import main
status = main(["import", "xlm", *sys.argv[1:]])
peak = re.search(r"VmHWM:\\s+(\\d+)", pathlib.Path("/proc/self/status").read_text())[1]
print(status, peak, round(time.process_time()))
"""
GIB = 1 << 30


@pytest.mark.large
@pytest.mark.parametrize("new", [True, False], ids=["zip", "old"])
def test_memory_stays_under_twice_the_file(
    xlm_checkpoint: Callable[..., dict[str, Any]], tmp_path: Path, new: bool
) -> None:
    """Needs about 7 GB of disk for a moment."""
    path, out = tmp_path / "large.pth", tmp_path / "out"
    content = xlm_checkpoint(languages=LANGUAGES, n_words=N_WORDS, **SHAPE)
    torch.save(content, path, _use_new_zipfile_serialization=new)
    try:
        began = time.perf_counter()
        arguments = [sys.executable, "-c", PROGRAM, str(path), str(out)]
        done = subprocess.run(arguments, capture_output=True, text=True, timeout=900, check=True)
        seconds = time.perf_counter() - began
        status, kilobytes, computing = map(int, done.stdout.split())
        size, peak = path.stat().st_size, 1024 * kilobytes
        print(
            f"\nfile {size / GIB:.2f} GiB, peak {peak / GIB:.2f} GiB ({peak / size:.2f} x), "
            f"{seconds:.0f} s, {computing} s of them computing"
        )
        assert status == 0, done.stderr
        assert peak < 2 * size
        with safe_open(out / "model.safetensors", "pt") as weights:
            theirs = content["model"]
            tokens = weights.get_slice("encoder.embeddings.tokens.weight")
            assert torch.equal(tokens[-5:], theirs["embeddings.weight"][-5:])
            last = weights.get_slice("encoder.layers.15.attention.qkv.weight")
            assert torch.equal(last[-1280:], theirs["attentions.15.v_lin.weight"])
    finally:
        shutil.rmtree(tmp_path)
