"""A local HTTP server of a folder that fails on request."""

from __future__ import annotations

import http.server
import socket
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path


class Server(http.server.ThreadingHTTPServer):
    """Serves a folder, except for the actions that are set for a file's next requests.

    ``actions["0.tar"] = ["503", "drop"]``: what happens to the first two requests; all others
    are served.  After ``shards_left`` more shards, every request for one fails.
    """

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
        self.actions: dict[str, list[str]] = {}
        self.requests: Counter[str] = Counter()
        self.shards_left = sys.maxsize
        self.url = f"http://127.0.0.1:{self.server_port}"

    def action(self, name: str) -> str:
        """What to do with a request for a file."""
        self.requests[name] += 1
        self.shards_left -= name.endswith(".tar")
        if self.shards_left < 0:
            return "503"
        actions = self.actions.get(name, [])
        return actions.pop(0) if actions else "serve"

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that give up are expected."""


class Handler(http.server.SimpleHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        name = self.path.partition("?")[0].rpartition("/")[2]
        action = self.server.action(name)
        if action.isdigit():
            self.send_error(int(action))
        elif action == "serve":
            super().do_GET()
        else:
            self.half(Path(self.directory) / name, action)

    def half(self, path: Path, action: str) -> None:
        content = path.read_bytes()
        if action == "garble":
            content = content[:600] + bytes([content[600] ^ 1]) + content[601:]
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content if action == "garble" else content[: len(content) // 2])
        self.wfile.flush()
        if action == "stall":
            self.connection.recv(1)  # until the client gives up
        if action == "drop":
            self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, *arguments: object) -> None:
        """Log nothing."""


@contextmanager
def serving(folder: Path) -> Iterator[Server]:
    """Serve a folder while the context is entered."""
    with Server(folder) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
