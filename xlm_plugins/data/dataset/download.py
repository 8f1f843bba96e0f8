"""Files from URLs: verified, and whole or absent.

HTTP is read by Python itself, as webdataset's opener (curl) waits for ever on a server that
stalls.  All other schemes are webdataset's: ``gs://``, ``hf://``, ``sftp://``, and what the
variable ``GOPEN_REWRITE`` makes a command of, ``s3://=pipe:s5cmd cat s3://`` for one.
"""

from __future__ import annotations

import hashlib
import http.client
import os
from collections.abc import Iterator
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import quote, urlsplit
from urllib.request import Request, urlopen

from webdataset.gopen import gopen

from xlm_plugins import __version__
from xlm_plugins.core.errors import DataError
from xlm_plugins.data.dataset.manifest import StoredFile
from xlm_plugins.data.dataset.retry import PermanentError

STALL_SECONDS = 30.0
"""How long a server may send nothing."""

_CHUNK_BYTES = 2**20
_TRANSIENT_STATUS = {408, 425, 429}  # of the client's errors; those of a server may always pass


def is_url(place: str) -> bool:
    """Whether a place is a URL, not a path."""
    return "://" in place


def join_url(base: str, path: str) -> str:
    """The URL of a file below another one; a query, such as a signature, stays behind it."""
    parts = urlsplit(base)
    return parts._replace(path=f"{parts.path.rstrip('/')}/{quote(path)}").geturl()


def redacted(url: str) -> str:
    """A URL for people: without a password or a signature."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()


def fetch_text(url: str) -> str:
    """A text file.

    :raises DataError: it cannot be had.
    """
    try:
        return b"".join(_chunks(url)).decode()
    except UnicodeDecodeError as error:
        raise DataError(f"{redacted(url)} is not text: {error}") from error


def fetch(url: str, file: StoredFile, path: Path) -> None:
    """Get a file; many processes may do so at once.

    :param file: its size and its checksum.
    :param path: where it is whole, or absent.
    :raises DataError: it cannot be had, or is not what it should be.
    :raises OSError: it cannot be written.
    """
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    digest, n_bytes = hashlib.sha256(), 0
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with part.open("wb") as target:
            for chunk in _chunks(url):
                digest.update(chunk)
                n_bytes += target.write(chunk)
        if (n_bytes, digest.hexdigest()) != (file.n_bytes, file.sha256):
            raise _mismatch(url, file, n_bytes)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _mismatch(url: str, file: StoredFile, n_bytes: int) -> DataError:
    if n_bytes != file.n_bytes:
        return DataError(
            f"{redacted(url)} gave {n_bytes:,} bytes",
            expected=f"{file.n_bytes:,} bytes, as the manifest records",
        )
    return DataError(
        f"{redacted(url)} does not have the checksum that the manifest records",
        remedy="the file was damaged or replaced: put it there again",
    )


def _chunks(url: str) -> Iterator[bytes]:
    """A file's content.

    :raises PermanentError: it will not be had: the server has no such file, or nothing opens it.
    :raises DataError: it cannot be had now.
    """
    scheme = urlsplit(url).scheme
    if scheme == "pipe":  # a data set is not to run commands, wherever its address comes from
        raise PermanentError(
            f"{url} is a command, not a URL",
            remedy="give the URL, and say how it is opened: GOPEN_REWRITE='s3://=pipe:COMMAND s3://'",
        )
    try:
        with _open_http(url) if scheme in ("http", "https") else gopen(url) as stream:
            while chunk := stream.read(_CHUNK_BYTES):
                yield chunk
            if missing := getattr(stream, "length", None):  # of HTTP; Python itself is silent
                raise http.client.IncompleteRead(b"", missing)
    except HTTPError as error:
        error.close()
        permanent = error.code < 500 and error.code not in _TRANSIENT_STATUS
        kind = PermanentError if permanent else DataError
        raise kind(f"{redacted(url)} cannot be had: HTTP {error.code} {error.reason}") from error
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise DataError(
            f"{redacted(url)} cannot be had: {type(error).__name__}: {reason}"
        ) from error
    except ValueError as error:
        raise PermanentError(f"{redacted(url)} cannot be had: {error}") from error


def _open_http(url: str) -> http.client.HTTPResponse:
    request = Request(url, headers={"User-Agent": f"xlm-plugins/{__version__}"})
    answer: http.client.HTTPResponse = urlopen(request, timeout=STALL_SECONDS)
    return answer
