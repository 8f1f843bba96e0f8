"""Fixtures of the golden values, which lie in ``tests/golden``."""

from __future__ import annotations

import io
import lzma
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.fixture(scope="session")
def golden_values() -> Callable[[str], Any]:
    """Read what the reference implementation computed: ``golden_values("encoder")``.

    Every call reads the file again, so a test may change what it gets.
    """
    import torch

    def golden_values(name: str) -> Any:
        with lzma.open(GOLDEN / f"{name}.pt.xz") as file:
            return torch.load(io.BytesIO(file.read()), weights_only=True)

    return golden_values


@pytest.fixture(scope="session")
def golden_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Unpack a checkpoint that the reference implementation wrote: ``golden_checkpoint("encdec")``.

    The file is a pickle, as the published ones are.  For reading only.
    """
    folder = tmp_path_factory.mktemp("golden")

    @cache
    def golden_checkpoint(name: str) -> Path:
        path = folder / f"{name}.pth"
        path.write_bytes(lzma.decompress((GOLDEN / f"ckpt_{name}.pth.xz").read_bytes()))
        return path

    return golden_checkpoint
