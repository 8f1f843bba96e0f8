"""What a run has written, in a form that tests can compare."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def metrics_of(run: Path, kind: str = "") -> list[dict[str, Any]]:
    """The lines of metrics.jsonl, without what depends on time.

    :param kind: ``train`` or ``evaluation``; both if empty.
    """
    lines = map(json.loads, (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
    clock = ("time", "tokens_per_second")
    return [
        {name: value for name, value in line.items() if name not in clock}
        for line in lines
        if line["kind"] == kind or not kind
    ]
