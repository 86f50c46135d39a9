"""Other agents' servers: real ones, on this machine."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit


class Peer(ThreadingHTTPServer):
    """Answers what `pages` says: bytes, JSON, or a URL to redirect to; else 404."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.pages: dict[str, Any] = {}
        self.asked: list[str] = []

    @property
    def place(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"

    @property
    def url(self) -> str:
        return f"http://{self.place}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients hang up on purpose here."""


@contextmanager
def peer() -> Iterator[Peer]:
    with Peer() as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield server
        server.shutdown()


class _Handler(BaseHTTPRequestHandler):
    server: Peer

    def log_message(self, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        page = self.server.pages.get(urlsplit(self.path).path)
        if isinstance(page, str):
            self._reply(302, b"", Location=page)
        elif page is None:
            self._reply(404, b"")
        else:
            self._reply(200, page if isinstance(page, bytes) else json.dumps(page).encode())

    def _reply(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
