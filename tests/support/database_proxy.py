"""A TCP proxy between runtimes and their PostgreSQL, which cuts connections, above all those that commit."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from urllib.parse import quote

from psycopg.conninfo import conninfo_to_dict

COMMIT = b"COMMIT"
CHUNK = 65_536


class DatabaseProxy:
    """`commit_chance` is that of a commit's connection to be cut, `chance` that of whatever else comes by.

    A commit is cut before it arrives, right after it was sent on, or when it is done and the answer is on its way.
    """

    def __init__(self, url: str, dice: random.Random, *, commit_chance: float = 0.0, chance: float = 0.0) -> None:
        self._upstream = {name: str(value) for name, value in conninfo_to_dict(url).items() if value is not None}
        self._dice = dice
        self.commit_chance = commit_chance
        self.chance = chance
        self.cuts: Counter[str] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        assert self._server is not None
        port = self._server.sockets[0].getsockname()[1]
        user, password = self._upstream.get("user", "postgres"), self._upstream.get("password")
        who = f"{quote(user)}:{quote(password)}" if password else quote(user)
        return f"postgresql://{who}@127.0.0.1:{port}/{self._upstream['dbname']}?sslmode=disable"

    async def __aenter__(self) -> DatabaseProxy:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    async def _serve(self, from_client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            from_server, to_server = await self._connect()
        except OSError:
            to_client.transport.abort()
            return
        answered = _Answered()
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._forward_requests(from_client, to_server, answered))
                tasks.create_task(self._forward_answers(from_server, to_client, answered))
        except* (_Cut, OSError):
            pass
        finally:
            for writer in (to_client, to_server):
                writer.transport.abort()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        host, port = self._upstream.get("host", "localhost"), self._upstream.get("port", "5432")
        if host.startswith("/"):
            return await asyncio.open_unix_connection(f"{host}/.s.PGSQL.{port}")
        return await asyncio.open_connection(host, int(port))

    async def _forward_requests(
        self, source: asyncio.StreamReader, target: asyncio.StreamWriter, answered: _Answered
    ) -> None:
        while data := await source.read(CHUNK):
            if COMMIT in data and self._dice.random() < self.commit_chance:
                await self._cut_commit(data, target, answered)
            await self._send(data, target)
        raise _Cut

    async def _cut_commit(self, data: bytes, target: asyncio.StreamWriter, answered: _Answered) -> None:
        where = self._dice.choice(("before", "on the way", "answered"))
        self.cuts[where] += 1
        if where == "before":
            raise _Cut
        if where == "answered":
            answered.is_awaited = True
        target.write(data)
        await target.drain()
        if where == "answered":
            await answered.event.wait()
        raise _Cut

    async def _forward_answers(
        self, source: asyncio.StreamReader, target: asyncio.StreamWriter, answered: _Answered
    ) -> None:
        while data := await source.read(CHUNK):
            if answered.is_awaited:
                answered.event.set()
            else:
                await self._send(data, target)
        raise _Cut

    async def _send(self, data: bytes, target: asyncio.StreamWriter) -> None:
        if self._dice.random() < self.chance:
            self.cuts["anywhere"] += 1
            target.write(data[: self._dice.randrange(len(data))])
            raise _Cut
        target.write(data)
        await target.drain()


class _Answered:
    """Whether the answer to a commit is awaited, to be lost."""

    def __init__(self) -> None:
        self.is_awaited = False
        self.event = asyncio.Event()


class _Cut(Exception):
    """One of the two sides has gone, or goes now."""
