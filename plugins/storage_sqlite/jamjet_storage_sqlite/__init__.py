"""The storage driver for SQLite: one file, one runtime process, nothing to set up.

It answers to a path (`.jamjet/runtime.db`) and to a URL (`sqlite:///relative.db`, or with four slashes an
absolute path).
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Engine

from jamjet_kernel import hookimpl
from jamjet_storage_sql import SqlDatabase, SqlStorage

from .engine import open_engine, stored_version
from .location import path_of
from .lock import lock

if TYPE_CHECKING:
    from jamjet_kernel import Settings

READERS = 4


@hookimpl
def open_storage(url: str, settings: Settings) -> SqlStorage | None:
    path = path_of(url)
    if path is None:
        return None
    return open_file(path, settings.sqlite_synchronous, migrate=settings.migrate == "on")


@hookimpl
def open_database(url: str) -> SqlDatabase | None:
    path = path_of(url)
    if path is None:
        return None
    return SqlDatabase(str(path), look=lambda: stored_version(path), hold=lambda: _held(path))


@contextmanager
def _held(path: Path) -> Iterator[Engine]:
    with ExitStack() as stack:
        stack.callback(lock(path))
        engine = open_engine(path, synchronous="FULL", connections=1)
        stack.callback(engine.dispose)
        yield engine


def open_file(path: Path, synchronous: str = "FULL", *, migrate: bool = True) -> SqlStorage:
    """Raises `PluginError` when the file cannot be used; then it is as it was."""
    release = lock(path)
    try:
        engine = open_engine(path, synchronous=synchronous, connections=READERS + 1, migrate=migrate)
    except BaseException:
        release()
        raise
    return SqlStorage(
        engine,
        writer=ThreadPoolExecutor(1, thread_name_prefix="sqlite-writer"),
        readers=ThreadPoolExecutor(READERS, thread_name_prefix="sqlite-reader"),
        exclusive=True,
        released=release,
    )
