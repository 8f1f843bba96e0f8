"""Addresses of data sets: which are opened, and what becomes of names and passwords."""

from __future__ import annotations

import base64
import http.server
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote, unquote

import pytest

from xlm_plugins.core.errors import DataError, OptionError, without_passwords
from xlm_plugins.data.dataset import download
from xlm_plugins.data.dataset.download import check_url, fetch_text, redacted
from xlm_plugins.data.dataset.remote_copy import open_data_set
from xlm_plugins.data.dataset.retry import PermanentError

EXPECTED = base64.b64encode(b"me:secret").decode()


@pytest.mark.parametrize("url", ["http://h/a", "https://h:80/a?b=c", "file:///a", "FILE:///a"])
def test_http_and_files_are_opened(url: str) -> None:
    check_url(url)


@pytest.mark.parametrize(
    "url",
    ["s3://b/a;touch X", "gs://b/a", "hf://b/a", "pipe:cat x", "pipe:cat data/{} # ://",
     "ftp://h/a", "nonsense://x", "wrong/place://x"],
)  # fmt: skip
def test_other_schemes_are_refused_with_a_hint(
    url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GOPEN_REWRITE", f"s3://b=pipe:cat {tmp_path}")
    with pytest.raises(PermanentError, match=r"is not opened") as caught:
        open_data_set(url)
    assert "http(s)" in caught.value.remedy


@pytest.mark.parametrize(
    "url",
    ["http://", "http:/h/a", "http://[::1/a", "http://me:secret/half@h/a", "http://me:secret#@h/",
     "http://h/a b", "http://h/a\tb", "file://host/a", "https:touch"],
)  # fmt: skip
def test_what_is_no_url_is_refused_without_a_secret(url: str) -> None:
    with pytest.raises(PermanentError, match="is not a valid URL") as caught:
        check_url(url)
    assert "secret" not in str(caught.value)


def test_a_data_set_is_opened_at_a_file_url(tiny_data: Path) -> None:
    assert open_data_set(tiny_data.as_uri())[0] == tiny_data


@pytest.mark.parametrize("name", ["me:secret", "me", ":secret", "me:se@cret"])
def test_a_password_in_a_url_is_refused_at_once_and_not_shown(name: str) -> None:
    with pytest.raises(OptionError, match=r"machine HOST login NAME password PASSWORD") as caught:
        open_data_set(f"https://{name}@h/data?signature=secret")
    assert "https://h/data was given" in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("see http://me:secret@h/a, now", "see http://h/a, now"),
        ("no file http:/me:secret@h/a", "no file http:/h/a"),  # what a path makes of a URL
        ("http://me:se/cr@et@h:1/a", "http://h:1/a"),
        ("http://h:8000/data@v2", "http://h:8000/data@v2"),
        ("runs/a@last and file:///runs/b@last", "runs/a@last and file:///runs/b@last"),
    ],
)
def test_messages_show_no_password(text: str, shown: str) -> None:
    assert without_passwords(text) == shown
    error = DataError(text, expected=text, remedy=text)
    assert str(error) == f"{shown}\nexpected: {shown}\nhint: {shown}"


def test_a_signature_is_not_shown() -> None:
    assert redacted("https://me:secret@h/a?signature=secret#secret") == "https://h/a"


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, list[tuple[str, str | None]]]]:
    """A server that wants a name and password below /private, and its requests."""
    monkeypatch.setenv("no_proxy", "127.0.0.1,localhost")
    requests: list[tuple[str, str | None]] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            given = self.headers["Authorization"]
            requests.append((self.path, given))
            if self.path.startswith("/to/"):
                self.send_response(302)
                self.send_header("Location", unquote(self.path.removeprefix("/to/")))
            else:
                is_known = given == f"Basic {EXPECTED}" or "private" not in self.path
                self.send_response(200 if is_known else 401)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            """Log nothing."""

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"127.0.0.1:{server.server_port}", requests
        server.shutdown()
        thread.join()


@pytest.fixture
def netrc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Write the file of names and passwords."""
    path = tmp_path / "netrc"
    monkeypatch.setenv("NETRC", str(path))

    def write(text: str) -> None:
        path.write_text(text)
        path.chmod(0o600)

    return write


def test_names_and_passwords_come_from_netrc(
    asked: tuple[str, list[tuple[str, str | None]]], netrc: Callable[[str], None]
) -> None:
    host, requests = asked
    with pytest.raises(PermanentError, match=r"HTTP 401[^\0]*netrc"):
        fetch_text(f"http://{host}/private")
    netrc("this is no such file")
    with pytest.raises(PermanentError, match=r"HTTP 401"):
        fetch_text(f"http://{host}/private")
    netrc("machine 127.0.0.1 login me password secret\n")
    fetch_text(f"http://{host}/private")
    fetch_text(f"http://{host}/to//private/other")
    assert [given for _, given in requests] == [None] * 2 + [f"Basic {EXPECTED}"] * 3


def test_a_redirect_takes_no_password_to_another_host(
    asked: tuple[str, list[tuple[str, str | None]]], netrc: Callable[[str], None]
) -> None:
    host, requests = asked
    netrc("machine 127.0.0.1 login me password secret\n")
    fetch_text(f"http://{host}/to/http://{host.replace('127.0.0.1', 'localhost')}/open")
    assert requests[-1] == ("/open", None)


@pytest.mark.parametrize("target", ["ftp://127.0.0.1/a", "file:///etc/passwd", "http://me:pw@h/"])
def test_a_redirect_leads_to_http_only(
    asked: tuple[str, list[tuple[str, str | None]]], target: str
) -> None:
    host, _ = asked
    with pytest.raises(DataError) as caught:
        fetch_text(f"http://{host}/to/{quote(target)}")
    assert "me:" not in str(caught.value)


def test_webdataset_opens_no_address() -> None:
    assert "gopen" not in vars(download)
