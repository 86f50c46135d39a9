"""The storage driver for PostgreSQL: one database, any number of runtime processes.

It answers to `postgresql://user@host/database`, also written `postgres://` or `postgresql+psycopg://`. What the URL
says beyond that is libpq's: `?sslmode=verify-full`, `?host=/run/postgresql`, several hosts.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING

from jamjet_kernel import PluginError, hookimpl
from jamjet_storage_sql import SqlDatabase, SqlStorage

if TYPE_CHECKING:
    from jamjet_kernel import Hints, Settings

COMMITTERS = 1
"""More would not be quicker: they would wait for each other at the end of the audit chain."""

WRITERS = 2
READERS = 4


@hookimpl
def open_storage(url: str, settings: Settings) -> SqlStorage | None:
    if not _is_postgres(url):
        return None
    storage = open_server(url, migrate=settings.migrate == "on")
    if settings.hints == "on":
        storage.hints = _hints(url)
    return storage


@hookimpl
def open_database(url: str) -> SqlDatabase | None:
    if not _is_postgres(url):
        return None
    with _naming_the_extra():
        from .engine import prepared, stored_version
        from .location import server_of
    server = server_of(url)
    return SqlDatabase(server.name, look=lambda: stored_version(server), hold=lambda: prepared(server))


def _is_postgres(url: str) -> bool:
    return url.partition(":")[0].partition("+")[0].lower() in ("postgresql", "postgres")


def open_server(url: str, *, migrate: bool = True) -> SqlStorage:
    """Raises `PluginError` when the database cannot be used."""
    with _naming_the_extra():
        from .engine import open_engines
        from .location import server_of
        from .pipeline import Pipeline
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


@contextmanager
def _naming_the_extra() -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise PluginError(
            f"PostgreSQL needs a driver, which cannot be imported ({error}): pip install 'jamjet-runtime[postgres]'"
        ) from error


def _hints(url: str) -> Hints:
    from .engine import CONNECTED_WITH
    from .hints import PostgresHints
    from .location import server_of

    return PostgresHints({**CONNECTED_WITH, **server_of(url).parameters})
