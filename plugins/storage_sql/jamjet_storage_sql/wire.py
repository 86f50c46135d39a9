"""How statements travel to a database: what a driver brings beside its engine."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any, Protocol

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from jamjet_kernel import JamJetError, StorageError

if TYPE_CHECKING:
    from .bulk import Bulk

Row = tuple[Any, ...]
Request = tuple["Bulk", Sequence[Row]]
"""A statement, and the rows that it is run over."""


@dataclass(frozen=True, slots=True)
class Answer:
    """How many rows of the table a statement touched, and what it found."""

    count: int
    rows: Sequence[Row] = ()


class CommitLost(Exception):
    """The connection broke when COMMIT was on its way: whether it was done is not known."""


class Unavailable(StorageError):
    """The database cannot be reached; what it was told last may be stored or not."""


class Passing(Unavailable):
    """What stopped the transaction passes."""


class Wire(Protocol):
    def transaction(self, connection: Connection) -> AbstractContextManager[object]:
        """Committed at the end of the block, rolled back when that raises. Raises `CommitLost`."""
        ...

    def exchange(self, tx: Connection, requests: Sequence[Request]) -> Iterator[Answer]:
        """The answers, in order. Where a statement fails, its turn raises the driver's error, and that is the last."""
        ...

    def post(self, tx: Connection, requests: Sequence[Request]) -> None:
        """They are run before the transaction is committed, and nobody asks for their answers: statements that fail
        where they cannot do what they should, which then fails the transaction."""
        ...

    def is_passing(self, error: BaseException) -> bool:
        """Whether the same transaction may well succeed when it is begun again."""
        ...

    def refusal(self, error: Exception) -> JamJetError:
        """In the driver's words, without the statement and its parameters: they may hold secrets."""
        ...


def wire_of(tx: Connection) -> Wire:
    """A transaction carries it, so that a statement needs nothing but its `tx`."""
    found: Wire = tx.get_execution_options()["wire"]
    return found


class OneByOne:
    """For a database in this process: there is nothing to save by sending statements together."""

    def transaction(self, connection: Connection) -> AbstractContextManager[object]:
        return connection.begin()

    def exchange(self, tx: Connection, requests: Sequence[Request]) -> Iterator[Answer]:
        for bulk, rows in requests:
            yield total(_execute(tx, *statement) for statement in bulk.statements(tx.dialect, rows))

    def post(self, tx: Connection, requests: Sequence[Request]) -> None:
        for _ in self.exchange(tx, requests):
            pass

    def is_passing(self, error: BaseException) -> bool:
        return False

    def refusal(self, error: Exception) -> JamJetError:
        return StorageError(f"the database refused: {error.orig if isinstance(error, DBAPIError) else error}")


def total(answers: Iterable[Answer]) -> Answer:
    """As if it had been one statement."""
    parts = list(answers)
    if len(parts) == 1:
        return parts[0]
    return Answer(sum(part.count for part in parts), list(chain.from_iterable(part.rows for part in parts)))


def _execute(tx: Connection, sql: str, parameters: Row) -> Answer:
    # Past SQLAlchemy's execution context: it costs 40 µs a statement, and a commit of one step has five.
    cursor = tx.connection.cursor()
    try:
        cursor.execute(sql, parameters)
        return Answer(cursor.rowcount, cursor.fetchall() if cursor.description else ())
    finally:
        cursor.close()
