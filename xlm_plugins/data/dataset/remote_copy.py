"""Data sets at a URL: a local copy that fills up with shards as they are read.

A copy is a data set's folder like any other, with one more file: ``origin.json`` says where the
missing shards come from.  All copies in a cache folder together stay below a number of bytes: the
least recently read shards make room.  (webdataset's own cache neither verifies checksums nor knows
which of its files are anything but a copy of a shard.)
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from xlm_plugins.core.errors import DataError, OptionError
from xlm_plugins.core.files import write_json, write_text
from xlm_plugins.core.messages import warn
from xlm_plugins.data.dataset.cache import cache_folder, exclusive_lock, single_flight
from xlm_plugins.data.dataset.download import (
    check_url,
    fetch,
    fetch_text,
    is_url,
    join_url,
    redacted,
)
from xlm_plugins.data.dataset.manifest import MANIFEST_NAME, Manifest, StoredFile
from xlm_plugins.data.dataset.retry import with_retries

ORIGIN_NAME = "origin.json"
DEFAULT_GB = 50.0


def open_data_set(
    place: str, cache: str | None = None, cache_gb: float | None = None
) -> tuple[Path, Manifest]:
    """Open a data set, and return its folder and manifest; for a URL, the folder is a copy.

    :param place: the path or URL (http, https or file) of a folder that `xlm prepare` made.
    :param cache, cache_gb: see `local_copy`; used for URLs only.
    :raises DataError: it is not a data set, or cannot be fetched.
    """
    folder = Path(place)
    if is_url(place):
        check_url(place)
        parts = urlsplit(place)
        if parts.scheme == "file":
            folder = Path(unquote(parts.path))
        else:
            folder = local_copy(place, Path(cache) if cache else None, cache_gb)
    return folder, Manifest.load(folder)


def local_copy(url: str, cache: Path | None = None, gigabytes: float | None = None) -> Path:
    """The folder of a copy: it has the manifest, tokenizer and token counts; shards may follow.

    :param url: of the data set's folder.
    :param cache: folder of copies; if None, $WDS_CACHE or else the user's cache folder.
    :param gigabytes: limit for all shards there; if None, $WDS_CACHE_SIZE (in bytes) or else
        `DEFAULT_GB`.
    :raises DataError: it cannot be fetched, or is not a data set.
    :raises OptionError: $WDS_CACHE_SIZE is no number.
    """
    root = cache or Path(os.environ.get("WDS_CACHE") or cache_folder() / "data")
    most_bytes = _default_bytes() if gigabytes is None else int(1e9 * gigabytes)
    try:
        text = with_retries(lambda: fetch_text(join_url(url, MANIFEST_NAME)))
    except DataError as error:
        expected = "the URL of a folder that `xlm prepare` made"
        raise DataError(error.problem, expected=expected, remedy=error.remedy) from error
    manifest = Manifest.loads(text, f"{redacted(url)}/{MANIFEST_NAME}")
    if not manifest.files:
        raise DataError(
            f"the manifest of {redacted(url)} is of an older version and does not list all files",
            remedy="prepare the text again, or copy the folder to this machine and give its path",
        )
    _warn_if_cache_too_small(manifest, url, most_bytes)
    folder = root.resolve() / _folder_name(url, text)
    with _writing(folder), exclusive_lock(folder.with_name(f"{folder.name}.lock")):
        _fetch_metadata(RemoteCopy(folder, url, most_bytes), manifest, text)
    return folder


@dataclass(frozen=True)
class RemoteCopy:
    """The local copy of a data set at a URL.

    :param most_bytes: limit for all shards in the cache folder.
    """

    folder: Path
    url: str
    most_bytes: int

    @classmethod
    def of(cls, folder: Path) -> RemoteCopy | None:
        """The copy in a folder; None if the folder is a complete data set."""
        path = folder / ORIGIN_NAME
        return cls(folder, **json.loads(path.read_text("utf-8"))) if path.is_file() else None

    def ensure(self, shard: StoredFile) -> None:
        """Fetch a shard unless it is there.

        :raises DataError: it cannot be fetched or written.
        """
        path = self.folder / shard.path
        if not path.is_file():
            with _writing(self.folder), single_flight(self.folder / ".locks" / shard.path):
                if not path.is_file():
                    self._make_room(shard.n_bytes)
                    fetch(join_url(self.url, shard.path), shard, path)
        with contextlib.suppress(OSError):  # it only decides what makes room first
            os.utime(path)  # mark as read now: access times are often switched off

    def discard(self, shard: StoredFile) -> None:
        """Delete a damaged shard; the next read fetches it again."""
        (self.folder / shard.path).unlink(missing_ok=True)

    def _make_room(self, n_bytes: int) -> None:
        """Delete the least recently read shards until so many bytes fit."""
        found = []
        for origin in self.folder.parent.glob(f"*/{ORIGIN_NAME}"):
            for path in origin.parent.rglob("*.tar*"):
                try:
                    status = path.stat()
                except FileNotFoundError:  # another process makes room too
                    continue
                found.append((status.st_mtime, status.st_size, path))
        total = n_bytes + sum(size for _, size, _ in found)
        for _, size, path in sorted(found):
            if total <= self.most_bytes:
                return
            if size:  # lock files are empty
                path.unlink(missing_ok=True)
                total -= size


def _default_bytes() -> int:
    """$WDS_CACHE_SIZE, or `DEFAULT_GB`.

    :raises OptionError: the variable holds no number.
    """
    given = os.environ.get("WDS_CACHE_SIZE")
    try:
        return int(float(given or 1e9 * DEFAULT_GB))
    except (ValueError, OverflowError) as error:
        raise OptionError(
            f"the variable WDS_CACHE_SIZE is {given!r}", expected="a number of bytes, such as 5e10"
        ) from error


@contextlib.contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Report errors of writing into a copy.

    :raises DataError: the system refuses to write.
    """
    try:
        yield
    except OSError as error:
        raise DataError(
            f"{folder} cannot be written: {error.strerror}",
            remedy="make room there, or choose another folder: WDS_CACHE=DIR, or xlm train "
            "--data-cache DIR",
        ) from error


def _fetch_metadata(copy: RemoteCopy, manifest: Manifest, text: str) -> None:
    """Fetch all files but the shards; another process may have fetched some of them."""
    folder = copy.folder
    folder.mkdir(parents=True, exist_ok=True)
    for file in manifest.files:
        path = folder / file.path
        if not path.is_file():
            with_retries(functools.partial(fetch, join_url(copy.url, file.path), file, path))
    origin = {name: value for name, value in asdict(copy).items() if name != "folder"}
    write_json(folder / ORIGIN_NAME, origin)
    write_text(folder / MANIFEST_NAME, text)


def _folder_name(url: str, manifest: str) -> str:
    """The name of a copy's folder; it differs by address and by content."""
    address = redacted(url).rstrip("/")
    key = hashlib.sha256(f"{address}\n{manifest}".encode()).hexdigest()[:12]
    return f"{re.sub(r'[^A-Za-z0-9_-]', '-', address.rpartition('/')[2])}-{key}"


def _warn_if_cache_too_small(manifest: Manifest, url: str, most_bytes: int) -> None:
    n_bytes = sum(shard.n_bytes for shard in manifest.shards)
    if n_bytes > most_bytes:
        warn(
            f"{redacted(url)} has {n_bytes / 1e9:.3g} GB of shards, but the cache holds "
            f"{most_bytes / 1e9:.3g} GB: shards will be fetched again and again; raise "
            "--data-cache-gb"
        )
