"""Fixtures that any test may ask for, the core's and the plugins'."""

from __future__ import annotations

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[1] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of golden values and real text beside the checkout, where there is one."""
    if not SHARED.is_dir():
        pytest.skip("needs the folder `shared` beside the checkout: golden values and real text")
    return SHARED
