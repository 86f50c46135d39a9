"""A load balancer, as small as one can be: it watches /ready and tries nothing twice.

It speaks HTTP/1.1 on both sides and keeps connections open, as real ones do. A request goes to the next server that
was ready when it was last asked; what goes wrong with it is a 502, and counted.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

Address = tuple[str, int]

EVERY = 0.1
"""Seconds between two looks at a server."""


@dataclass(eq=False)
class Upstream:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter


@dataclass(eq=False)
class Backend:
    port: int
    is_ready: bool = False
    idle: list[Upstream] = field(default_factory=list)

    async def connection(self) -> Upstream:
        while self.idle:
            upstream = self.idle.pop()
            if not upstream.reader.at_eof() and not upstream.writer.is_closing():
                return upstream
            upstream.writer.close()
        return Upstream(*await asyncio.open_connection("127.0.0.1", self.port))


@dataclass(frozen=True)
class Message:
    """`head` with its empty line."""

    head: bytes
    body: bytes

    @property
    def status(self) -> int:
        return int(self.head.split(b" ", 2)[1])

    @property
    def is_last(self) -> bool:
        return b"\r\nconnection: close\r\n" in self.head.lower()


class Balancer:
    def __init__(self, ports: Sequence[int]) -> None:
        self.backends = [Backend(port) for port in ports]
        self.failures: list[str] = []
        self._turn = itertools.count()
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def ready(self) -> list[Backend]:
        return [backend for backend in self.backends if backend.is_ready]

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Balancer]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        watchers = [asyncio.create_task(self._watch(backend)) for backend in self.backends]
        try:
            yield self
        finally:
            for watcher in watchers:
                watcher.cancel()
            await asyncio.gather(*watchers, return_exceptions=True)
            server.close()
            for backend in self.backends:
                for upstream in backend.idle:
                    upstream.writer.close()

    async def until_ready(self, count: int) -> None:
        async with asyncio.timeout(30):
            while len(self.ready) != count:
                await asyncio.sleep(0.02)

    async def _watch(self, backend: Backend) -> None:
        while True:
            backend.is_ready = await _is_ready(backend.port)
            await asyncio.sleep(EVERY)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):  # the client has gone
            while True:
                request = await _read(reader)
                answer = await self._forward(request)
                writer.write(answer.head + answer.body)
                await writer.drain()
        writer.close()

    async def _forward(self, request: Message) -> Message:
        ready = self.ready
        if not ready:
            return self._failed(request, "no server is ready")
        backend = ready[next(self._turn) % len(ready)]
        try:
            upstream = await backend.connection()
            upstream.writer.write(request.head + request.body)
            answer = await _read(upstream.reader)
        except (OSError, asyncio.IncompleteReadError) as error:
            return self._failed(request, f"{backend.port}: {error!r}")
        if answer.is_last:
            upstream.writer.close()
            return Message(_kept_open(answer.head), answer.body)
        backend.idle.append(upstream)
        return answer

    def _failed(self, request: Message, why: str) -> Message:
        self.failures.append(f"{request.head.splitlines()[0].decode()}: {why}")
        return Message(b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n", b"")


async def _is_ready(port: int) -> bool:
    try:
        async with asyncio.timeout(1):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write(b"GET /ready HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
                return (await _read(reader)).status == 200
            finally:
                writer.close()
    except (OSError, TimeoutError, asyncio.IncompleteReadError):
        return False


async def _read(reader: asyncio.StreamReader) -> Message:
    head = await reader.readuntil(b"\r\n\r\n")
    lines = (line.partition(b":") for line in head.lower().splitlines())
    length = next((int(value) for name, _, value in lines if name == b"content-length"), 0)
    return Message(head, await reader.readexactly(length))


def _kept_open(head: bytes) -> bytes:
    """What one server says of its connection is not the client's matter."""
    lines = head.split(b"\r\n")
    return b"\r\n".join(line for line in lines if not line.lower().startswith(b"connection:"))
