"""Clients that cost as little as can be: what they are asked to measure is on the other side."""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import time
from types import TracebackType
from typing import Any, Self

END = b"\r\n\r\n"


class Client:
    """One keep-alive connection, one request at a time, on a plain socket."""

    def __init__(self, port: int, token: str | None = None) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=60)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._port = port
        self._token = token

    def get(self, path: str) -> bytes:
        return self._exchange(request(self._port, "GET", path, token=self._token))

    def post(self, path: str, body: dict[str, Any]) -> Any:
        sent = request(self._port, "POST", path, json.dumps(body).encode(), token=self._token)
        return json.loads(self._exchange(sent))

    def _exchange(self, sent: bytes) -> bytes:
        self._socket.sendall(sent)
        received = b""
        while (length := answer_length(received)) is None or len(received) < length:
            chunk = self._socket.recv(65536)
            if not chunk:
                raise ConnectionError("the server hung up")
            received += chunk
        status, body = int(received[9:12]), received[received.index(END) + len(END) :]
        if status >= 400:
            raise ValueError(f"{status}: {body.decode()}")
        return body

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()


async def rate(port: int, path: str, *, connections: int, seconds: float, token: str | None = None) -> float:
    """Answers a second over that many keep-alive connections."""
    if wrk := shutil.which("wrk"):
        return await _wrk_rate(wrk, port, path, connections, seconds, token)
    end = time.perf_counter() + seconds
    began = time.perf_counter()
    asked = request(port, "GET", path, token=token)
    loop = asyncio.get_running_loop()
    pairs = [await loop.create_connection(lambda: _Asking(asked, end), "127.0.0.1", port) for _ in range(connections)]
    await asyncio.gather(*(protocol.done for _, protocol in pairs))
    return sum(protocol.answers for _, protocol in pairs) / (time.perf_counter() - began)


async def _wrk_rate(wrk: str, port: int, path: str, connections: int, seconds: float, token: str | None) -> float:
    arguments = ["-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s"]
    if token:
        arguments += ["-H", f"Authorization: Bearer {token}"]
    url = f"http://127.0.0.1:{port}{path}"
    running = await asyncio.create_subprocess_exec(wrk, *arguments, url, stdout=asyncio.subprocess.PIPE)
    printed, _ = await running.communicate()
    line = next(line for line in printed.decode().splitlines() if line.startswith("Requests/sec:"))
    return float(line.split()[1])


class _Asking(asyncio.Protocol):
    """Asks again whenever it is answered, until the time is over."""

    def __init__(self, asked: bytes, end: float) -> None:
        self._asked, self._end = asked, end
        self._received = b""
        self.answers = 0
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        self._transport = transport
        transport.write(self._asked)

    def data_received(self, data: bytes) -> None:
        self._received += data
        if (length := answer_length(self._received)) is None or len(self._received) < length:
            return
        assert self._received.startswith(b"HTTP/1.1 200"), self._received
        self._received = b""
        self.answers += 1
        if time.perf_counter() < self._end:
            self._transport.write(self._asked)
        else:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is None:
            self.done.set_result(None)
        else:
            self.done.set_exception(exc)


def request(port: int, method: str, path: str, body: bytes | None = None, *, token: str | None = None) -> bytes:
    head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
    if token is not None:
        head += f"Authorization: Bearer {token}\r\n"
    if body is not None:
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return head.encode() + b"\r\n" + (body or b"")


def answer_length(received: bytes) -> int | None:
    """Of the whole answer, once its headers are there."""
    end = received.find(END)
    if end < 0:
        return None
    head = received[:end].lower()
    at = head.index(b"content-length:") + len(b"content-length:")
    return end + len(END) + int(head[at:].split(b"\r\n", 1)[0])
