"""The engine of a SQLite file: is it ours, how its connections are set, its tables."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, QueuePool, create_engine, event
from sqlalchemy.exc import SQLAlchemyError

from jamjet_kernel import PluginError
from jamjet_storage_sql import must_change, prepare

APPLICATION_ID = 0x4A616D4A
"""`JamJ`, in the file's header: tells our databases from anybody else's."""

_MAGIC = b"SQLite format 3\0"


def open_engine(path: Path, *, synchronous: str, connections: int, migrate: bool = True) -> Engine:
    must_change(stored_version(path), migrate=migrate, place=str(path))
    engine = create_engine(
        URL.create("sqlite", database=str(path)),
        poolclass=QueuePool,
        pool_size=connections,
        max_overflow=0,
        # A connection serves one thread at a time, not always the same one.
        connect_args={"check_same_thread": False, "timeout": 30},
    )
    event.listen(engine, "connect", lambda connection, _: _configure(connection, synchronous))
    event.listen(engine, "begin", _begin)
    try:
        _claim(engine)
        prepare(engine, migrate=migrate, place=str(path))
    except BaseException as error:
        engine.dispose()
        if isinstance(error, SQLAlchemyError | sqlite3.Error):
            raise PluginError(f"cannot open {path}: {getattr(error, 'orig', error)}") from error
        raise
    return engine


def stored_version(path: Path) -> int | None:
    """Of the schema; None where there is none yet. Looks without touching. Raises `PluginError`."""
    try:
        if not path.exists() or path.stat().st_size == 0:
            return None
        if not path.is_file():
            raise PluginError(f"{path} is no file; name the database file itself, such as {path / 'runtime.db'}")
        with path.open("rb") as file:
            magic = file.read(len(_MAGIC))
    except OSError as error:
        raise PluginError(f"cannot read {path}: {error.strerror}") from error
    if magic != _MAGIC:
        raise PluginError(f"{path} is no SQLite database; name another file")
    if not os.access(path, os.W_OK):
        raise PluginError(f"{path} is read-only; the runtime must be able to write it")
    return _version_in(path)


def _version_in(path: Path) -> int | None:
    try:
        # A read-only connection does not move the write-ahead log into the file when it closes.
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as connection:
            version, application_id, tables = (
                connection.execute(query).fetchone()[0]
                for query in ("PRAGMA user_version", "PRAGMA application_id", "SELECT count(*) FROM sqlite_master")
            )
    except sqlite3.Error as error:
        raise PluginError(f"cannot read {path}: {error}") from error
    if tables and application_id != APPLICATION_ID:
        raise PluginError(f"{path} is a database of another application; name another file")
    return version or None


def _configure(connection: Any, synchronous: str) -> None:
    # Python's sqlite3 begins transactions by itself, at the first INSERT; with None, `_begin` is the only one to.
    connection.isolation_level = None
    for pragma in (
        "journal_mode = WAL",
        f"synchronous = {synchronous}",
        "foreign_keys = OFF",
        "busy_timeout = 30000",
        "cache_size = -16000",
        "temp_store = MEMORY",
        # 8 MB: the writer stops for a checkpoint half as often, and still for a few milliseconds only.
        "wal_autocheckpoint = 2000",
    ):
        connection.execute(f"PRAGMA {pragma}")


def _begin(connection: Connection) -> None:
    # A writer takes the lock at once: to upgrade a read transaction may fail with SQLITE_BUSY without waiting.
    writes = connection.get_execution_options().get("writes", False)
    connection.connection.cursor().execute("BEGIN IMMEDIATE" if writes else "BEGIN")


def _claim(engine: Engine) -> None:
    """The file is ours before there is a table in it, so that none is ever taken for another application's."""
    with engine.execution_options(writes=True).begin() as tx:
        if tx.exec_driver_sql("PRAGMA application_id").scalar_one() != APPLICATION_ID:
            tx.exec_driver_sql(f"PRAGMA application_id = {APPLICATION_ID}")
