"""The engine of a PostgreSQL database: can it be used, how its connections are set, its tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import psycopg
from sqlalchemy import Connection, Engine, QueuePool, create_engine
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from jamjet_kernel import PluginError
from jamjet_storage_sql import prepare, version_of

from .location import Server

CONNECTED_WITH: Mapping[str, str | int] = {
    "connect_timeout": 5,
    "client_encoding": "utf8",
    "fallback_application_name": "jamjet",
    # A server that went away without a word is noticed within some ten seconds, whether we wait for it or send.
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}
"""Unless the URL says otherwise."""

SETTINGS: Mapping[str, str] = {
    # What the statements are written for: each sees what was committed before it began.
    "default_transaction_isolation": "read committed",
    # A process that is stopped in the middle of a transaction must not hold up the others for longer.
    "idle_in_transaction_session_timeout": "5s",
    # Longer than that, so that whoever waits for a stopped process outlives it.
    "lock_timeout": "10s",
    # Compiling a statement takes longer than any of ours runs.
    "jit": "off",
}
"""Of each session. The URL's `options=-c name=value` come after them."""

BY_KEY: Mapping[str, str] = {
    # What writes finds its rows by an index. The plan of a statement that is prepared is kept; made when a table was
    # small, it would read all of it when it has grown: seen for the step that moves heads on.
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
}
"""Of sessions that write, too."""

FOR_ITS_VALUES: Mapping[str, str] = {
    # As above: a plan is made for each run, for tables as they are then. It takes a tenth of a millisecond.
    "plan_cache_mode": "force_custom_plan",
}
"""Of sessions that read, too."""


PATIENT: Mapping[str, str] = {"default_transaction_isolation": SETTINGS["default_transaction_isolation"]}
"""Of sessions without a limit: an upgrade, or to wait for another process that does it, may take its time."""


def open_engines(server: Server, *, writers: int, readers: int, migrate: bool = True) -> tuple[Engine, Engine]:
    """To write and to read with, of so many connections at most."""
    with prepared(server, migrate=migrate):
        pass
    # What is prepared there the driver prepares itself.
    writing = engine_of(server, connections=writers, settings={**SETTINGS, **BY_KEY}, prepare_threshold=None)
    reading = engine_of(server, connections=readers, settings={**SETTINGS, **FOR_ITS_VALUES})
    # A statement that only reads needs no BEGIN and no COMMIT, which would be a round trip each.
    return writing, reading.execution_options(isolation_level="AUTOCOMMIT")


@contextmanager
def prepared(server: Server, *, migrate: bool = True) -> Iterator[Engine]:
    """One patient connection to a database that has its tables."""
    place = f"the database {server.name}"
    engine = engine_of(server, connections=1, settings=PATIENT)
    try:
        with _told(place):
            with engine.connect() as connection:
                _check(connection, place)
            prepare(engine, migrate=migrate, place=place)
        yield engine
    finally:
        engine.dispose()


def stored_version(server: Server) -> int | None:
    """Of the schema; None where there is none yet. Looks without touching."""
    engine = engine_of(server, connections=1)
    try:
        with _told(f"the database {server.name}"), engine.connect() as connection:
            return version_of(connection)
    finally:
        engine.dispose()


def _check(connection: Connection, place: str) -> None:
    encoding = connection.exec_driver_sql("SHOW server_encoding").scalar_one()
    if encoding != "UTF8":
        raise PluginError(
            f"{place} is encoded in {encoding}, and texts are in UTF-8; "
            "make one with CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0"
        )


@contextmanager
def _told(place: str) -> Iterator[None]:
    try:
        yield
    except (SQLAlchemyError, psycopg.Error) as error:
        told = str(error.orig if isinstance(error, DBAPIError) else error).strip()
        raise PluginError(f"cannot open {place}: {told}") from error


def engine_of(
    server: Server,
    *,
    connections: int,
    settings: Mapping[str, str] = SETTINGS,
    prepare_threshold: int | None = 5,
) -> Engine:
    parameters = {**CONNECTED_WITH, **server.parameters, "options": _options(settings, server)}
    return create_engine(
        "postgresql+psycopg://",
        creator=lambda: _connect(parameters, prepare_threshold),
        poolclass=QueuePool,
        pool_size=connections,
        max_overflow=0,
        paramstyle="format",
        use_native_hstore=False,
    )


def _connect(parameters: Mapping[str, Any], prepare_threshold: int | None) -> psycopg.Connection[Any]:
    return psycopg.connect(**parameters, prepare_threshold=prepare_threshold)


def _options(settings: Mapping[str, str], server: Server) -> str:
    written = " ".join(f"-c {name}={value.replace(' ', chr(92) + ' ')}" for name, value in settings.items())
    return f"{written} {server.parameters.get('options', '')}".rstrip()
