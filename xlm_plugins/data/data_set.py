"""Opening a data set, wherever it lies."""

from __future__ import annotations

from pathlib import Path

from xlm_plugins.data.copies import local_copy
from xlm_plugins.data.fetching import is_url
from xlm_plugins.data.manifest import Manifest


def open_data_set(
    place: str, cache: str | None = None, cache_gb: float | None = None
) -> tuple[Path, Manifest]:
    """A data set's folder and manifest; of a URL, the folder is a copy here that fills up.

    :param place: a folder's path or its URL.
    :param cache, cache_gb: as `local_copy`; for a URL alone.
    :raises DataError: it is no data set, or cannot be had.
    """
    if is_url(place):
        folder = local_copy(place, Path(cache) if cache else None, cache_gb)
    else:
        folder = Path(place)
    return folder, Manifest.load(folder)
