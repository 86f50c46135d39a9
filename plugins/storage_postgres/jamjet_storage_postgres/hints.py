"""Hints by NOTIFY: each process tells the others, and hears them.

On connections of their own, outside any transaction that commits something: a NOTIFY takes a lock that all commits of
the database would wait for. Through a pooler that shares connections nothing is heard; then JAMJET_HINTS=off, and
the poll does it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any

import psycopg

log = logging.getLogger("jamjet.storage.postgres")

CHANNEL = "jamjet"
WAITING = 100
"""Messages that wait to be sent; what is more is dropped, as hints may be."""

PAUSE = 1.0


class PostgresHints:
    def __init__(self, parameters: Mapping[str, Any]) -> None:
        self._parameters = parameters
        self._messages: asyncio.Queue[str] = asyncio.Queue(WAITING)

    def send(self, message: str) -> None:
        if not self._messages.full():
            self._messages.put_nowait(message)

    async def listen(self, hear: Callable[[str], None]) -> None:
        """Until it is cancelled. What `send` is given goes out meanwhile."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._again_and_again(lambda connection: _hear(connection, hear)))
            tasks.create_task(self._again_and_again(self._speak))

    async def _again_and_again(self, use: Callable[[psycopg.AsyncConnection], Any]) -> None:
        while True:
            try:
                # uvloop aborts when a connection is closed that somebody still waits on: it is closed
                # after the waiting was cancelled, on the way out of here.
                async with await psycopg.AsyncConnection.connect(**self._parameters, autocommit=True) as connection:
                    await use(connection)
            except psycopg.Error as error:
                log.info("no hints for a moment: %s", str(error).strip())
                await asyncio.sleep(PAUSE)

    async def _speak(self, connection: psycopg.AsyncConnection) -> None:
        while True:
            message = await self._messages.get()
            await connection.execute("SELECT pg_notify(%s, %s)", (CHANNEL, message))


async def _hear(connection: psycopg.AsyncConnection, hear: Callable[[str], None]) -> None:
    await connection.execute(f"LISTEN {CHANNEL}")
    async for notification in connection.notifies():
        hear(notification.payload)
