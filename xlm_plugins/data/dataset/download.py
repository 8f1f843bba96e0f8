"""Downloads: a file is verified, and written whole or not at all.

Only HTTP is spoken, by Python itself.  webdataset's opener is not used: it hands addresses to a
shell, which runs what they say, and its curl waits forever for a server that stalls.  Names and
passwords are those of ``~/.netrc``, so that none lands in a run's folder, a log or the cache.
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import netrc
import os
import re
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from typing import IO, Any
from urllib.error import HTTPError
from urllib.parse import quote, urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from xlm_plugins import __version__
from xlm_plugins.core.errors import (
    NETRC_HINT,
    DataError,
    XLMError,
    refuse_password,
    without_passwords,
)
from xlm_plugins.core.files import whole_file
from xlm_plugins.data.dataset.manifest import StoredFile
from xlm_plugins.data.dataset.retry import PermanentError

STALL_SECONDS = 30.0
"""How long a server may send nothing."""

_CHUNK_BYTES = 2**20
_TRANSIENT_STATUS = {408, 425, 429}  # among client errors; server errors may always be transient


def is_url(place: str) -> bool:
    """Whether a place is a URL rather than a path; webdataset's ``pipe:`` counts as one."""
    return "://" in place or place.startswith("pipe:")


def check_url(url: str) -> None:
    """Refuse what is not fetched, before anything is done with it or written down.

    :raises PermanentError: another scheme than http(s) and file, or no valid URL.
    :raises OptionError: it has a name or password.
    """
    scheme = url.partition(":")[0].lower()
    if scheme not in ("http", "https", "file"):
        raise PermanentError(
            f"the address {redacted(url)} begins with {scheme}:, which is not opened",
            expected="a path, or a URL that begins with http://, https:// or file://",
            remedy="copy the folder to this machine with the store's own program, or serve it by "
            "http(s): a signed URL will do",
        )
    try:
        parts = urlsplit(url)
        _ = parts.port
        is_valid = bool(parts.hostname) if scheme != "file" else parts.netloc in ("", "localhost")
    except ValueError:
        is_valid = False
    # What went wrong is not shown: the port that is no number may be half a password.
    if not is_valid or any(character <= " " or character == "\x7f" for character in url):
        raise PermanentError(
            f"an address that begins with {scheme}: is not a valid URL",
            expected="http(s)://HOST/FOLDER or file:///FOLDER, with special characters as %XX",
        )
    refuse_password(url)


def join_url(base: str, path: str) -> str:
    """The URL of a file below another; a query, such as a signature, stays at the end."""
    parts = urlsplit(base)
    return parts._replace(path=f"{parts.path.rstrip('/')}/{quote(path)}").geturl()


def redacted(url: str) -> str:
    """A URL for messages: without password and signature."""
    return without_passwords(re.split(r"[?#]", url, maxsplit=1)[0])


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
    try:
        with _open(url) as stream:
            while chunk := stream.read(_CHUNK_BYTES):
                yield chunk
            if missing := stream.length:  # Python itself says nothing
                raise http.client.IncompleteRead(b"", missing)
    except HTTPError as error:
        error.close()
        permanent = error.code < 500 and error.code not in _TRANSIENT_STATUS
        kind = PermanentError if permanent else DataError
        wants_name = error.code == HTTPStatus.UNAUTHORIZED
        raise kind(
            f"{redacted(url)} cannot be fetched: HTTP {error.code} {error.reason}",
            remedy=NETRC_HINT if wants_name else "",
        ) from error
    except (OSError, http.client.HTTPException) as error:
        reason = f"{type(error).__name__}: {getattr(error, 'reason', None) or error}"
        raise DataError(f"{redacted(url)} cannot be fetched: {reason}") from error
    except ValueError as error:
        raise PermanentError(f"{redacted(url)} cannot be fetched: {error}") from error


def _open(url: str) -> http.client.HTTPResponse:
    request = _authorised(Request(url, headers={"User-Agent": f"xlm-plugins/{__version__}"}))
    answer: http.client.HTTPResponse = build_opener(_Redirects).open(request, timeout=STALL_SECONDS)
    return answer


class _Redirects(HTTPRedirectHandler):
    """Follows a server to another address if that could have been given in the first place."""

    def redirect_request(self, req: Request, fp: IO[bytes], *arguments: Any) -> Request | None:
        request = super().redirect_request(req, fp, *arguments)
        try:
            return None if request is None else _authorised(request)
        except XLMError as error:
            fp.close()
            raise PermanentError(f"the server leads elsewhere: {error.problem}") from error


def _authorised(request: Request) -> Request:
    """A checked request, with the name and password that ``~/.netrc`` has for its host."""
    check_url(request.full_url)
    try:
        found = netrc.netrc(os.environ.get("NETRC")).hosts
    except (OSError, netrc.NetrcParseError):  # a server that wants a name will say so
        found = {}
    if known := found.get(urlsplit(request.full_url).hostname or ""):
        name_and_password = base64.b64encode(f"{known[0]}:{known[2]}".encode()).decode()
        # Unredirected: the next host gets its own, or none.
        request.add_unredirected_header("Authorization", f"Basic {name_and_password}")
    return request
