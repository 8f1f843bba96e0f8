"""Downloads: a file is verified, and written whole or not at all.

HTTP is read by Python itself, because webdataset's opener (curl) waits forever for a server that
stalls.  All other schemes are webdataset's: ``gs://``, ``hf://``, ``sftp://``, and those that the
variable ``GOPEN_REWRITE`` maps to a command, such as ``s3://=pipe:s5cmd cat s3://``.
"""

from __future__ import annotations

import hashlib
import http.client
from collections.abc import Iterator
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import quote, urlsplit
from urllib.request import Request, urlopen

from webdataset.gopen import gopen

from xlm_plugins import __version__
from xlm_plugins.core.errors import DataError
from xlm_plugins.core.files import whole_file
from xlm_plugins.data.dataset.manifest import StoredFile
from xlm_plugins.data.dataset.retry import PermanentError

STALL_SECONDS = 30.0
"""How long a server may send nothing."""

_CHUNK_BYTES = 2**20
_TRANSIENT_STATUS = {408, 425, 429}  # among client errors; server errors may always be transient


def is_url(place: str) -> bool:
    """Whether a place is a URL rather than a path."""
    return "://" in place


def join_url(base: str, path: str) -> str:
    """The URL of a file below another; a query, such as a signature, stays at the end."""
    parts = urlsplit(base)
    return parts._replace(path=f"{parts.path.rstrip('/')}/{quote(path)}").geturl()


def redacted(url: str) -> str:
    """A URL for messages: without password and signature."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()


def fetch_text(url: str) -> str:
    """Download a text file.

    :raises DataError: it cannot be fetched, or is not text.
    """
    try:
        return b"".join(_chunks(url)).decode()
    except UnicodeDecodeError as error:
        raise DataError(f"{redacted(url)} is not text: {error}") from error


def fetch(url: str, file: StoredFile, path: Path) -> None:
    """Download a file; several processes may fetch the same one at once.

    :param file: its size and checksum.
    :param path: where to write it.
    :raises DataError: it cannot be fetched, or is not what it should be.
    :raises OSError: it cannot be written.
    """
    digest, n_bytes = hashlib.sha256(), 0
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path, shared=True) as partial:
        with partial.open("wb") as target:
            for chunk in _chunks(url):
                digest.update(chunk)
                n_bytes += target.write(chunk)
        if n_bytes != file.n_bytes:
            raise DataError(
                f"{redacted(url)} sent {n_bytes:,} bytes",
                expected=f"{file.n_bytes:,} bytes, as the manifest records",
            )
        if digest.hexdigest() != file.sha256:
            raise DataError(
                f"{redacted(url)} does not have the checksum that the manifest records",
                remedy="the file was damaged or replaced: upload it again",
            )


def _chunks(url: str) -> Iterator[bytes]:
    """The content of a file.

    :raises PermanentError: it will never be fetched: no such file, or nothing opens the URL.
    :raises DataError: it cannot be fetched now.
    """
    scheme = urlsplit(url).scheme
    if scheme == "pipe":  # a data set must not run commands, wherever its address comes from
        raise PermanentError(
            f"{url} is a command, not a URL",
            remedy="give the URL, and the command in GOPEN_REWRITE='s3://=pipe:COMMAND s3://'",
        )
    try:
        with _open_http(url) if scheme in ("http", "https") else gopen(url) as stream:
            while chunk := stream.read(_CHUNK_BYTES):
                yield chunk
            if missing := getattr(stream, "length", None):  # of HTTP; Python itself says nothing
                raise http.client.IncompleteRead(b"", missing)
    except HTTPError as error:
        error.close()
        permanent = error.code < 500 and error.code not in _TRANSIENT_STATUS
        kind = PermanentError if permanent else DataError
        raise kind(
            f"{redacted(url)} cannot be fetched: HTTP {error.code} {error.reason}"
        ) from error
    except (OSError, http.client.HTTPException) as error:
        reason = f"{type(error).__name__}: {getattr(error, 'reason', None) or error}"
        raise DataError(f"{redacted(url)} cannot be fetched: {reason}") from error
    except ValueError as error:
        raise PermanentError(f"{redacted(url)} cannot be fetched: {error}") from error


def _open_http(url: str) -> http.client.HTTPResponse:
    request = Request(url, headers={"User-Agent": f"xlm-plugins/{__version__}"})
    answer: http.client.HTTPResponse = urlopen(request, timeout=STALL_SECONDS)
    return answer
