"""Transactions in few round trips: their statements are sent together.

A batch of commits takes two: BEGIN and all statements up to reading the ends of the audit chains; then the records, and
COMMIT. Where a statement fails, the server skips what was sent after it, COMMIT too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, cast

import psycopg
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from jamjet_kernel import Invalid, JamJetError, StorageError
from jamjet_storage_sql import Answer, Bulk, CommitLost, Request, total

from .line import Line, Statement
from .spread import Spread

DEADLOCKS = ("40001", "40P01")

IDLE_TOO_LONG = "25P03"
LOST = (IDLE_TOO_LONG, "08", "53300", "57P01", "57P02", "57P03")
"""Connections that are gone: ended for being idle in a transaction; broken; too many; ended by an administrator or with
the server; not yet taken by a server that starts."""

NUL = "22021"


class Pipeline:
    """The wire of a `SqlStorage`."""

    def __init__(self) -> None:
        self._spreads: dict[Bulk, Spread] = {}

    @contextmanager
    def transaction(self, connection: Connection) -> Iterator[object]:
        posted = connection.info.setdefault("posted", [])
        posted.clear()
        transaction = connection.begin()
        try:
            yield connection
            self._commit(connection, posted)
        except BaseException:
            # What went wrong first is told, whatever that does to the connection.
            with suppress(SQLAlchemyError, psycopg.Error):
                transaction.rollback()
            raise
        # What SQLAlchemy and psycopg have to do about it; nothing is sent any more.
        transaction.commit()

    def exchange(self, tx: Connection, requests: Sequence[Request]) -> Iterator[Answer]:
        line = _line(tx)
        replies = line.talk(self._statements(tx, requests), first=b"BEGIN" if line.begins else None)
        for number in range(len(requests)):
            if replies.failure is not None and replies.failed == number:
                raise replies.failure
            yield total(replies.answers.get(number, ()))

    def post(self, tx: Connection, requests: Sequence[Request]) -> None:
        tx.info["posted"].extend(requests)

    def is_passing(self, error: BaseException) -> bool:
        found = _of_the_driver(error)
        if not isinstance(found, psycopg.Error):
            return False
        if found.sqlstate is None:
            # libpq's own words: it cannot connect, or the connection is gone.
            return isinstance(found, psycopg.OperationalError)
        return found.sqlstate.startswith((*DEADLOCKS, *LOST))

    def refusal(self, error: Exception) -> JamJetError:
        found = _of_the_driver(error)
        if isinstance(found, psycopg.DataError) and (found.sqlstate == NUL or "NUL" in str(found)):
            return Invalid("PostgreSQL stores no NUL (\\u0000) in names and other short texts")
        return StorageError(f"the database refused: {_told(found)}")

    def _commit(self, tx: Connection, posted: Sequence[Request]) -> None:
        line = _line(tx)
        if line.is_idle:
            # Nothing was asked for, or each statement stood for itself.
            return
        try:
            replies = line.talk(self._statements(tx, posted), last=b"COMMIT")
        except psycopg.Error as error:
            if error.sqlstate == IDLE_TOO_LONG:
                raise
            raise CommitLost(_told(error)) from error
        if replies.failure is not None:
            raise replies.failure

    def _statements(self, tx: Connection, requests: Sequence[Request]) -> Iterator[Statement]:
        for number, (bulk, rows) in enumerate(requests):
            spread = self._spreads.get(bulk)
            if spread is None:
                spread = self._spreads[bulk] = Spread(bulk, tx.dialect)
            for text, parameters in spread.statements(rows):
                yield number, text, parameters


def _told(error: Exception) -> str:
    """Below the first line libpq guesses at reasons."""
    return str(error).strip().partition("\n")[0]


def _of_the_driver(error: BaseException) -> Any:
    return error.orig if isinstance(error, DBAPIError) else error


def _line(tx: Connection) -> Line:
    """Kept with the connection: the server has prepared the statements for it."""
    line: Line | None = tx.info.get("line")
    if line is None:
        line = tx.info["line"] = Line(cast("psycopg.Connection[Any]", tx.connection.driver_connection))
    return line
