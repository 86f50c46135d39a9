"""The engine of a PostgreSQL database: can it be used, how its connections are set, its tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import psycopg
from sqlalchemy import Engine, QueuePool, create_engine
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from jamjet_kernel import PluginError
from jamjet_storage_sql import prepare

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


def open_engine(server: Server, *, connections: int, migrate: bool = True) -> Engine:
    parameters = {**CONNECTED_WITH, **server.parameters, "options": _options(server)}
    engine = create_engine(
        "postgresql+psycopg://",
        creator=lambda: _connect(parameters),
        poolclass=QueuePool,
        pool_size=connections,
        max_overflow=0,
        paramstyle="format",
        use_native_hstore=False,
    )
    try:
        with engine.connect() as connection:
            _check(server, connection.exec_driver_sql("SHOW server_encoding").scalar_one())
        prepare(engine, migrate=migrate, place=f"the database {server.name}")
    except (SQLAlchemyError, psycopg.Error) as error:
        engine.dispose()
        raise _cannot_open(server, error) from error
    except BaseException:
        engine.dispose()
        raise
    return engine


def _connect(parameters: Mapping[str, Any]) -> psycopg.Connection[Any]:
    return psycopg.connect(**parameters)


def _options(server: Server) -> str:
    settings = " ".join(f"-c {name}={value.replace(' ', chr(92) + ' ')}" for name, value in SETTINGS.items())
    return f"{settings} {server.parameters.get('options', '')}".rstrip()


def _check(server: Server, encoding: str) -> None:
    if encoding != "UTF8":
        raise PluginError(
            f"the database {server.name} is encoded in {encoding}, and texts are in UTF-8; "
            "make one with CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0"
        )


def _cannot_open(server: Server, error: Exception) -> PluginError:
    told = str(error.orig if isinstance(error, DBAPIError) else error).strip()
    return PluginError(f"cannot open the database {server.name}: {told}")
