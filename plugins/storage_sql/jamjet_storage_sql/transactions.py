"""Where statements run: on the storage's own threads, one transaction each, awaited from asyncio."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Executor
from functools import partial
from typing import Any, Concatenate, ParamSpec, TypeVar

from sqlalchemy import Connection, Dialect, Engine
from sqlalchemy.exc import SQLAlchemyError
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_random_exponential

from jamjet_kernel import StorageError, StorageUnsure

from .wire import CommitLost, Passing, Unavailable, Wire

P = ParamSpec("P")
T = TypeVar("T")

PATIENCE = 5.0
"""Seconds in which a transaction is begun again, where what stopped it passes: a deadlock, a restart of the server."""

ANSWER = 10.0
"""Seconds after which who reads waits no longer. Whoever writes waits until it is known what became of it."""


class Transactions:
    """Writes go to connections of `engine` with the execution option `writes`, for drivers that care."""

    def __init__(
        self,
        engine: Engine,
        *,
        reading: Engine,
        wire: Wire,
        committer: Executor,
        writer: Executor,
        readers: Executor,
    ) -> None:
        self._engines = {engine, reading}
        self._executors = {committer, writer, readers}
        self._committer, self._writer, self._readers = committer, writer, readers
        self.signer = Signer()
        self._to_write = _Connections(engine.execution_options(writes=True, signer=self.signer, wire=wire), wire)
        self._to_read = _Connections(reading.execution_options(wire=wire), wire)

    async def read(self, function: Callable[Concatenate[Connection, P], T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            async with asyncio.timeout(ANSWER):
                return await _submit(self._readers, self._to_read, partial(_apply, function, args, kwargs))
        except TimeoutError as error:
            raise Unavailable(f"the database did not answer within {ANSWER:g} s") from error

    async def write(self, function: Callable[Concatenate[Connection, P], T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await _submit(self._writer, self._to_write, partial(_apply, function, args, kwargs))

    async def commit(self, function: Callable[..., T], *args: Any, is_repeatable: bool = False) -> T:
        """As `write`, where nothing that is not of the hot path stands in the way. `is_repeatable`: run again, the
        function finds out by itself whether it was committed before."""
        run = partial(_apply, function, args, {})
        return await _submit(self._committer, self._to_write, run, is_repeatable=is_repeatable)

    def close(self) -> None:
        """Waits for what was begun."""
        for executor in self._executors:
            executor.shutdown()
        self._to_write.close()
        self._to_read.close()
        for engine in self._engines:
            engine.dispose()


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


class _Connections:
    """One a thread, kept open. Checking one out of the pool costs four times as much as BEGIN and COMMIT."""

    def __init__(self, engine: Engine, wire: Wire) -> None:
        self._engine = engine
        self._wire = wire
        self._errors = database_errors(engine.dialect)
        self._again = Retrying(
            retry=retry_if_exception_type(Passing),
            wait=wait_random_exponential(multiplier=0.02, max=0.5),
            stop=stop_after_delay(PATIENCE),
            reraise=True,
        )
        self._mine = threading.local()
        self._open: set[Connection] = set()

    def run(self, function: Callable[[Connection], T], *, is_repeatable: bool = False) -> T:
        """In one transaction, begun again where what stopped it passes. Database errors become `JamJetError`s."""
        try:
            return self._once(function, is_repeatable)
        except Passing:
            answer: T = self._again(self._once, function, is_repeatable)
            return answer

    def _once(self, function: Callable[[Connection], T], is_repeatable: bool) -> T:
        try:
            connection = self._of_this_thread()
            with self._wire.transaction(connection):
                return function(connection)
        except CommitLost as error:
            self._drop()
            unknown = f"whether it was stored is not known: {error}"
            raise (Passing(unknown) if is_repeatable else StorageUnsure(unknown)) from error
        except self._errors as error:
            self._drop()
            refusal = self._wire.refusal(error)
            raise (Passing(str(refusal)) if self._wire.is_passing(error) else refusal) from error

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


async def _submit(
    executor: Executor, connections: _Connections, function: Callable[[Connection], T], *, is_repeatable: bool = False
) -> T:
    run = partial(connections.run, function, is_repeatable=is_repeatable)
    try:
        running = asyncio.get_running_loop().run_in_executor(executor, run)
    except RuntimeError as error:
        raise StorageError("the storage is closed") from error
    return await running


def _apply(function: Callable[..., T], args: tuple[Any, ...], kwargs: dict[str, Any], tx: Connection) -> T:
    return function(tx, *args, **kwargs)
