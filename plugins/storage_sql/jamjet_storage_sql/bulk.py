"""One statement over many rows, as few calls.

A Core statement over one row is compiled once per dialect; running it repeats the row in its VALUES clause.
`executemany` would do the same work, but Python's sqlite3 releases the GIL once per row, and gets it back only
when the event loop lets go: measured beside a busy loop, 600 rows a second against 35,000 this way.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from sqlalchemy import (
    Column,
    Connection,
    Dialect,
    Executable,
    Select,
    Table,
    Text,
    Values,
    bindparam,
    column,
    delete,
    literal_column,
    select,
    tuple_,
    update,
    values,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.sql.expression import ColumnElement
from sqlalchemy.types import TypeEngine

from jamjet_kernel import Commit

from .wire import Row as Row
from .wire import wire_of

ROWS = 500
"""In one statement. SQLite limits its parameters to 32,766."""

_INSERTS: dict[str, Callable[[Table], Any]] = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}


@dataclass(frozen=True, slots=True)
class Cut:
    """A statement over one row, cut where its rows go: `INSERT INTO t (a, b) VALUES `, `(?, ?)`, and the rest."""

    before: str
    row: str
    after: str
    types: tuple[TypeEngine[Any], ...]


class Bulk:
    """`build` makes the statement over one row, whose parameters must be named after `columns`, in order."""

    def __init__(self, columns: Iterable[str], build: Callable[[Dialect], Executable]) -> None:
        self._columns = list(columns)
        self._build = build
        self._cuts: dict[tuple[str, str], Cut] = {}

    def run(self, tx: Connection, rows: Sequence[Row]) -> int:
        """Answers how many rows of the table were touched."""
        [answer] = wire_of(tx).exchange(tx, [(self, rows)])
        return answer.count

    def fetch(self, tx: Connection, rows: Sequence[Row]) -> Sequence[Row]:
        """Answers what the statement finds, or returns, for the given rows."""
        [answer] = wire_of(tx).exchange(tx, [(self, rows)])
        return answer.rows

    def statements(self, dialect: Dialect, rows: Sequence[Row]) -> Iterator[tuple[str, Row]]:
        """With their parameters: a placeholder for each value of each row."""
        if not rows:
            return
        cut = self.cut(dialect)
        for start in range(0, len(rows), ROWS):
            chunk = rows[start : start + ROWS]
            yield cut.before + ", ".join([cut.row] * len(chunk)) + cut.after, tuple(chain.from_iterable(chunk))

    def cut(self, dialect: Dialect) -> Cut:
        key = (dialect.name, dialect.paramstyle)
        if key not in self._cuts:
            self._cuts[key] = self._compile(dialect)
        return self._cuts[key]

    def _compile(self, dialect: Dialect) -> Cut:
        compiled: Any = self._build(dialect).compile(dialect=dialect)  # type: ignore[attr-defined]
        assert compiled.positiontup == self._columns, compiled.positiontup
        before, row, after = re.split(r"(?<=VALUES )(\([^()]*\))", str(compiled), maxsplit=1)
        return Cut(before, row, after, tuple(compiled.binds[name].type for name in self._columns))


def insert(table: Table) -> Bulk:
    """Fails where a row's key is there already."""
    return Bulk(table.columns.keys(), lambda dialect: insert_of(table, dialect))


def insert_new(table: Table) -> Bulk:
    """Leaves out rows whose key is there already: compare `run`'s answer."""
    return Bulk(table.columns.keys(), lambda dialect: insert_of(table, dialect).on_conflict_do_nothing())


def upsert(table: Table) -> Bulk:
    def build(dialect: Dialect) -> Executable:
        statement = insert_of(table, dialect)
        changed = {c.name: statement.excluded[c.name] for c in table.columns if not c.primary_key}
        built: Executable = statement.on_conflict_do_update(index_elements=list(table.primary_key), set_=changed)
        return built

    return Bulk(table.columns.keys(), build)


def add_up(table: Table) -> Bulk:
    """What is no key is a number, and added to the one that is there."""

    def build(dialect: Dialect) -> Executable:
        statement = insert_of(table, dialect)
        sums = {c.name: c + statement.excluded[c.name] for c in table.columns if not c.primary_key}
        built: Executable = statement.on_conflict_do_update(index_elements=list(table.primary_key), set_=sums)
        return built

    return Bulk(table.columns.keys(), build)


def delete_keys(table: Table) -> Bulk:
    keys = list(table.primary_key)
    statement = delete(table).where(tuple_(*keys).in_(given(keys)))
    return Bulk([key.name for key in keys], lambda _: statement)


def lease(table: Table, answer: Sequence[Column[Any]]) -> Bulk:
    """A row is a key and who holds it now. `answer`: the columns to fetch.

    A list of some hundred keys instead (`IN ((…), (…))`) takes PostgreSQL 10 ms to plan for each hundred.
    """
    keys = list(table.primary_key)
    asked = values_of({**{key.name: key.type for key in keys}, "holder": Text()}).cte("given")
    held = update(table).where(*(key == asked.c[key.name] for key in keys)).values(lease_owner=asked.c.holder)
    return Bulk([*(key.name for key in keys), "holder"], lambda _: held.returning(*answer))


def given(columns: Iterable[ColumnElement[Any]]) -> Select[Any]:
    """The rows of this run, to select from."""
    rows = values_of({c.key or "": c.type for c in columns})
    # Nested, for two reasons of SQLite's: it names the columns of VALUES in a common table expression only, and
    # sqlite3 counts the rows of a statement only when its first word is INSERT, UPDATE or DELETE. And
    # `IN (VALUES …)` without it scans the whole table.
    return select(rows.cte("given", nesting=True))


def values_of(types: Mapping[str, TypeEngine[Any]]) -> Values:
    """The rows of this run, as a table."""
    columns = [column(name, type) for name, type in types.items()]
    return values(*columns, name="given").data([tuple(bindparam(c.name, type_=c.type) for c in columns)])


def one_of(types: Mapping[str, TypeEngine[Any]]) -> dict[str, Any]:
    """The values of the only row of this run, by their columns: to compare with, where an index gives the order."""
    row = values_of(types).cte("given")
    return {name: select(row.c[name]).scalar_subquery() for name in types}


def first(query: Select[Any], count: Any) -> Select[Any]:
    """So many rows, where the count is one of the row's values."""
    # For SQLite, SQLAlchemy would make a parameter of the offset that is not there.
    return query.limit(count).offset(literal_column("0"))


def net(
    commits: Iterable[Commit],
    *,
    ended: Callable[[Commit], Iterable[Row]],
    begun: Callable[[Commit], Iterable[Row]],
    key: int,
) -> tuple[list[Row], list[Row]]:
    """What a batch does to a table in the end: the keys to delete, the rows to have.

    The first `key` values of a row are its key. What one commit of the batch begins a later one may end.
    """
    last: dict[Row, Row | None] = {}
    for commit in commits:
        for gone in ended(commit):
            last[gone] = None
        for row in begun(commit):
            last[row[:key]] = row
    return [gone for gone, row in last.items() if row is None], [row for row in last.values() if row is not None]


def insert_of(table: Table, dialect: Dialect) -> Any:
    """One row, whose parameters are named after the columns."""
    insert = _INSERTS[dialect.name](table)
    return insert.values({c.name: bindparam(c.name, type_=c.type) for c in table.columns})


def shown(text: str) -> str:
    """Of a text that people read and that may come from anywhere: PostgreSQL stores no NUL in one."""
    return text.replace("\0", "\ufffd")
