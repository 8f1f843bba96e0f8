"""Process settings, tested in a separate process because they persist."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import warnings
import numpy as np
import torch
from xlm_plugins.model.nn.cpu_tuning import tune_host
tune_host(1)
assert torch.get_num_threads() == 1
assert torch.tensor([1e-39]).mul(1.0).item() == 0.0, "denormals are kept"
warnings.simplefilter("error")
for dtype in (np.float32, np.float64):
    np.finfo(dtype)  # matplotlib asks, and numpy before 2.4 would warn
"""


def test_threads_and_denormals_are_set() -> None:
    result = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == 0, result.stderr
