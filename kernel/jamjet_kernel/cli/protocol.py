"""HTTP on the wire, by uvicorn: with the contract's errors also for what is no HTTP."""

from __future__ import annotations

import msgspec
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


class Protocol(HttpToolsProtocol):
    def send_400_response(self, msg: str) -> None:
        """The parser gave up, so no application is asked: an unknown method, a header with a NUL, a URL too long."""
        message = "bad request: this is no HTTP request that is understood (method, URL or a header)"
        body = msgspec.json.encode({"error": message, "code": "bad_request", "details": {}})
        head = (
            "HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()
