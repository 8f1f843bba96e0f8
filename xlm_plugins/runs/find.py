"""Finding a model in a run: ``RUN``, ``RUN@last``, ``RUN@step-N`` or ``RUN@METRIC``."""

from __future__ import annotations

import json
from pathlib import Path

from xlm_plugins.core.errors import BundleError
from xlm_plugins.runs.layout import (
    BEST_NAME,
    CHECKPOINTS_NAME,
    MODEL_NAME,
    ORDER_NAME,
    split_reference,
)
from xlm_plugins.runs.whole_folders import latest_good, locate, verify


def find_bundle(reference: str) -> Path:
    """The bundle that RUN refers to: the best by the first validation metric, or else the last.

    :param reference: a run folder, ``RUN@last``, ``RUN@step-N``, ``RUN@METRIC``, or a bundle
        folder itself.
    :raises BundleError: there is no such run or bundle (lists what there is), or it is damaged.
    """
    path, which = split_reference(reference)
    if not path.is_dir():
        raise BundleError(f"there is no run or bundle at {path}")
    if not which and (path / MODEL_NAME).is_file():
        return path
    best = _best_bundles(path)
    if which:
        found = {**best, **{p.name: p for p in (path / CHECKPOINTS_NAME).glob("step-*")}}
        if which == "last":
            return _last(path)
        if which not in found:
            raise BundleError(
                f"{path} has no {which!r}", expected=f"last, {', '.join(sorted(found))}"
            )
        return _verified(found[which])
    return _verified(next(iter(best.values()))) if best else _last(path)


def _verified(bundle: Path) -> Path:
    try:
        verify(bundle)
    except BundleError:
        verify(bundle)  # a running process may have replaced it meanwhile
    return bundle


def _best_bundles(run: Path) -> dict[str, Path]:
    """The best bundles by metric, the run's first validation metric first."""
    best = run / BEST_NAME
    if not (best / ORDER_NAME).is_file():
        return {}
    names = json.loads((best / ORDER_NAME).read_text(encoding="utf-8"))
    return {name: path for name in names if (path := locate(best / name)).is_dir()}


def _last(run: Path) -> Path:
    found, _ = latest_good(run / CHECKPOINTS_NAME)
    if found is None:
        seeds = sorted(str(path) for path in run.glob("seed-*"))
        raise BundleError(
            f"{run} has no checkpoint yet",
            expected="the folder of a run",
            remedy=f"name one of its runs, such as {seeds[0]}" if seeds else "",
        )
    return found
