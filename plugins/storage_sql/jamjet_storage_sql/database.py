"""The port `Database`, on SQL: everything at once, for those who look after it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from sqlalchemy import Connection, Engine, Table, insert, literal, select
from sqlalchemy.exc import DBAPIError

from jamjet_kernel import PluginError, StorageError

from . import schema
from .clock import milliseconds
from .schema import SCHEMA_VERSION
from .transactions import database_errors
from .workers import PROCESS

Row = tuple[Any, ...]

AT_ONCE = 100
"""Rows that are in memory at a time while they are read."""


class SqlDatabase:
    """`look` answers the version without touching anything. `hold` gives an engine to a database that has this
    runtime's tables, upgraded where it must be; where one process owns the database, that is this one until the end.
    `place` names the database in messages.
    """

    latest = SCHEMA_VERSION

    def __init__(
        self, place: str, *, look: Callable[[], int | None], hold: Callable[[], AbstractContextManager[Engine]]
    ) -> None:
        self.place = place
        self._look = look
        self._hold = hold

    def version(self) -> int | None:
        return self._look()

    def upgrade(self) -> None:
        with self._hold():
            pass

    @contextmanager
    def contents(self) -> Iterator[SqlContents]:
        version = self.version()
        if version is None:
            raise PluginError(f"there is no runtime in {self.place}")
        if version < self.latest:
            raise PluginError(
                f"{self.place} has the schema version {version}, and this runtime's is {self.latest}: "
                "make a backup, then upgrade it with `jamjet db upgrade`"
            )
        with self._transaction() as tx:
            yield SqlContents(tx, self.place)

    @contextmanager
    def filling(self) -> Iterator[SqlContents]:
        with self._transaction() as tx:
            _check_empty(tx, self.place)
            yield SqlContents(tx, self.place)

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        """With nobody else in it."""
        with self._hold() as engine, engine.execution_options(writes=True).connect() as connection:
            with _told_where(connection, self.place):
                transaction = connection.begin()
                _keep_others_out(connection, self.place)
            with transaction:  # rolls back where what is done in it fails
                yield connection
                with _told_where(connection, self.place):
                    transaction.commit()


class SqlContents:
    def __init__(self, tx: Connection, place: str) -> None:
        self._tx = tx
        self._place = place
        self._tables = {table.name: table for table in schema.metadata.sorted_tables}
        # Leases and workers too: so who takes over what a killed process held finds it in the copy as well.
        self.tables: Mapping[str, Sequence[str]] = {name: tuple(table.c.keys()) for name, table in self._tables.items()}

    def rows(self, table: str) -> Iterator[Row]:
        query = select(self._tables[table]).order_by(*self._tables[table].primary_key)
        with _told_where(self._tx, self._place):
            for row in self._tx.execute(query, execution_options={"yield_per": AT_ONCE}):
                yield tuple(row)

    def add(self, table: str, rows: Sequence[Row]) -> None:
        columns = self.tables[table]
        with _told_where(self._tx, self._place):
            self._tx.execute(insert(self._tables[table]), [dict(zip(columns, row, strict=True)) for row in rows])


@contextmanager
def _told_where(tx: Connection, place: str) -> Iterator[None]:
    try:
        yield
    except database_errors(tx.dialect) as error:
        said = error.orig if isinstance(error, DBAPIError) else error
        raise StorageError(f"{place}: the database refused: {said}") from error


def _keep_others_out(tx: Connection, place: str) -> None:
    # A file's lock does it for SQLite.
    if tx.dialect.name != "postgresql":
        return
    _check_unused(tx, place)
    for timeout in ("statement_timeout", "idle_in_transaction_session_timeout"):
        # However long the other database takes meanwhile. It holds for this transaction only.
        tx.exec_driver_sql(f"SET LOCAL {timeout} = 0")
    # Commits are short: whoever stands in the way for longer is somebody else.
    tx.exec_driver_sql("SET LOCAL lock_timeout = '10s'")
    tables = ", ".join(map(tx.dialect.identifier_preparer.format_table, schema.metadata.sorted_tables))
    tx.exec_driver_sql(f"LOCK TABLE {tables} IN EXCLUSIVE MODE")
    _check_unused(tx, place)


def _check_unused(tx: Connection, place: str) -> None:
    c = schema.workers.c
    # Remote workers do nothing here but by way of a process.
    is_at_work = (c.kind == PROCESS) & (c.expires_at >= milliseconds())
    alive = tx.execute(select(c.host, c.pid).where(is_at_work).order_by(c.worker_id)).all()
    if alive:
        named = ", ".join(f"pid {row.pid} on {row.host}" for row in alive)
        raise PluginError(
            f"{place} is in use by {named}; stop what runs there, and where it was killed wait until its lease is over"
        )


def _check_empty(tx: Connection, place: str) -> None:
    def has_rows(table: Table) -> bool:
        return tx.execute(select(literal(1)).select_from(table).limit(1)).first() is not None

    filled = [table.name for table in schema.metadata.sorted_tables if has_rows(table)]
    if filled:
        raise PluginError(f"{place} is not empty: there are rows in {', '.join(filled)}; name an empty database")
