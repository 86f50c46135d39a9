"""The storage driver for PostgreSQL: one database, any number of runtime processes.

It answers to `postgresql://user@host/database`, also written `postgres://` or `postgresql+psycopg://`. What the URL
says beyond that is libpq's: `?sslmode=verify-full`, `?host=/run/postgresql`, several hosts.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from jamjet_kernel import PluginError, hookimpl
from jamjet_storage_sql import SqlStorage

if TYPE_CHECKING:
    from jamjet_kernel import Hints, Settings

COMMITTERS = 1
"""More would not be quicker: they would wait for each other at the end of the audit chain."""

WRITERS = 2
READERS = 4


@hookimpl
def open_storage(url: str, settings: Settings) -> SqlStorage | None:
    if url.partition(":")[0].partition("+")[0].lower() not in ("postgresql", "postgres"):
        return None
    storage = open_server(url, migrate=settings.migrate == "on")
    if settings.hints == "on":
        storage.hints = _hints(url)
    return storage


def open_server(url: str, *, migrate: bool = True) -> SqlStorage:
    """Raises `PluginError` when the database cannot be used."""
    try:
        from .engine import open_engines
        from .location import server_of
        from .pipeline import Pipeline
    except ImportError as error:
        raise PluginError(
            f"PostgreSQL needs a driver, which cannot be imported ({error}): pip install 'jamjet-runtime[postgres]'"
        ) from error
    writing, reading = open_engines(server_of(url), writers=COMMITTERS + WRITERS, readers=READERS, migrate=migrate)
    return SqlStorage(
        writing,
        reading=reading,
        wire=Pipeline(),
        committer=ThreadPoolExecutor(COMMITTERS, thread_name_prefix="postgres-committer"),
        writer=ThreadPoolExecutor(WRITERS, thread_name_prefix="postgres-writer"),
        readers=ThreadPoolExecutor(READERS, thread_name_prefix="postgres-reader"),
        exclusive=False,
    )


def _hints(url: str) -> Hints:
    from .engine import CONNECTED_WITH
    from .hints import PostgresHints
    from .location import server_of

    return PostgresHints({**CONNECTED_WITH, **server_of(url).parameters})
