"""Where statements run: on the storage's own threads, one transaction each, awaited from asyncio."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Executor
from functools import partial
from typing import Any, Concatenate, ParamSpec, TypeVar

from sqlalchemy import Connection, Dialect, Engine
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from jamjet_kernel import StorageError

P = ParamSpec("P")
T = TypeVar("T")


class Transactions:
    """Writes go to connections of `engine` with the execution option `writes`, for drivers that care."""

    def __init__(self, engine: Engine, *, writer: Executor, readers: Executor) -> None:
        self._engine = engine
        self._writer, self._readers = writer, readers
        self.signer = Signer()
        self._to_write = _Connections(engine.execution_options(writes=True, signer=self.signer))
        self._to_read = _Connections(engine)

    async def read(self, function: Callable[Concatenate[Connection, P], T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await _submit(self._readers, self._to_read, partial(_apply, function, args, kwargs))

    async def write(self, function: Callable[Concatenate[Connection, P], T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await _submit(self._writer, self._to_write, partial(_apply, function, args, kwargs))

    def close(self) -> None:
        """Waits for what was begun."""
        self._writer.shutdown()
        self._readers.shutdown()
        self._to_write.close()
        self._to_read.close()
        self._engine.dispose()


class Signer:
    """What signs the audit chains. A transaction carries it, so that a statement needs nothing but its `tx`."""

    def __init__(self) -> None:
        self.sign: Callable[[bytes], bytes] = _cannot_sign


def _cannot_sign(message: bytes) -> bytes:
    raise StorageError("nothing is there to sign the audit log with; call `audit.sign_with` first")


def signer(tx: Connection) -> Signer:
    found: Signer = tx.get_execution_options()["signer"]
    return found


def database_errors(dialect: Dialect) -> tuple[type[Exception], ...]:
    """The last two are what a driver says of values it cannot store: integers beyond 64 bits, lone surrogates."""
    return (SQLAlchemyError, dialect.loaded_dbapi.Error, OverflowError, ValueError)


def storage_error(error: Exception) -> StorageError:
    """In the driver's words, without the statement and its parameters: they may hold secrets."""
    return StorageError(f"the database refused: {error.orig if isinstance(error, DBAPIError) else error}")


class _Connections:
    """One a thread, kept open. Checking one out of the pool costs four times as much as BEGIN and COMMIT."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._mine = threading.local()
        self._open: set[Connection] = set()

    def run(self, function: Callable[[Connection], T]) -> T:
        """In one transaction. A database error becomes a `StorageError`."""
        try:
            connection = self._of_this_thread()
            with connection.begin():
                return function(connection)
        except database_errors(self._engine.dialect) as error:
            self._drop()
            raise storage_error(error) from error

    def _of_this_thread(self) -> Connection:
        connection: Connection | None = getattr(self._mine, "connection", None)
        if connection is None:
            connection = self._mine.connection = self._engine.connect()
            self._open.add(connection)
        return connection

    def _drop(self) -> None:
        """The next transaction gets a new connection: whatever is wrong with this one, it is not kept."""
        connection: Connection | None = getattr(self._mine, "connection", None)
        if connection is not None:
            self._mine.connection = None
            self._open.discard(connection)
            connection.invalidate()
            connection.close()

    def close(self) -> None:
        while self._open:
            self._open.pop().close()


async def _submit(executor: Executor, connections: _Connections, function: Callable[[Connection], T]) -> T:
    try:
        running = asyncio.get_running_loop().run_in_executor(executor, connections.run, function)
    except RuntimeError as error:
        raise StorageError("the storage is closed") from error
    return await running


def _apply(function: Callable[..., T], args: tuple[Any, ...], kwargs: dict[str, Any], tx: Connection) -> T:
    return function(tx, *args, **kwargs)
