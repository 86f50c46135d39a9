"""Concurrency keys: of the items with one key only so many are leased at a time.

The table has a row per tenant, key and queue for as long as the queue has items with that key. A claim looks for rows
here rather than for items: a hundred thousand of them that have to wait are in nobody's way.

- A row is *open* where items may be leased from the time `open_at` on. The claim closes it that leases as many as may
  be at work; what ends or frees one opens it again. What is enqueued meanwhile leaves it closed.
- Whoever leases items of a key holds its rows of all queues, and looks at the items only then. Whoever ends or frees
  items changes them first, then holds the rows that are there, and opens them only then. So nobody counts what another
  one is just changing, and no row is closed that somebody was about to open.
- A claim waits for nobody: it passes over what others hold.

The row with the empty key is the queue's own, held while that queue's leased items are counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from sqlalchemy import (
    BigInteger,
    Connection,
    Dialect,
    Executable,
    Integer,
    Select,
    Text,
    Update,
    case,
    exists,
    func,
    literal_column,
    null,
    select,
    tuple_,
    update,
)
from sqlalchemy.types import TypeEngine

from jamjet_kernel import DEFAULT_TENANT, Commit

from . import schema
from .bulk import Bulk, Row, delete_keys, first, given, insert_new, insert_of, one_of, values_of
from .wire import Answer, Request, wire_of

_rows, _items = schema.concurrency, schema.work_items
_c = _rows.c

Key: TypeAlias = tuple[str, str]
"""(tenant_id, key)"""

NOTHING = 2**62
"""`open_at` where nothing waits."""

FIRST = 2**31 - 1
"""`priority` where somebody must look what waits."""

_KEY = (_c.tenant_id, _c.key)
_OF_KEYS = tuple_(*_KEY).in_(given(_KEY))
_OF_ROWS = tuple_(*_rows.primary_key).in_(given(_rows.primary_key))


def _on_keys(statement: Executable) -> Bulk:
    return Bulk([column.name for column in _KEY], lambda _: statement)


def _on_rows(statement: Executable) -> Bulk:
    return Bulk([column.name for column in _rows.primary_key], lambda _: statement)


# What ends, is freed, or comes


def told_by(commits: Sequence[Commit]) -> tuple[list[Key], list[Row]]:
    """The keys of which something ends, and a row for each key and queue that items are enqueued with."""
    return [(commit.tenant_id, key) for commit in commits for key in commit.freed], _entered(commits)


def _entered(commits: Iterable[Commit]) -> list[Row]:
    found: dict[Row, Row] = {}
    for commit in commits:
        for item in commit.enqueue:
            if item.concurrency_key is not None:
                row = (commit.tenant_id, item.concurrency_key, item.queue)
                priority, _, due = found.get(row, (item.priority, 0, item.available_at))
                at_once = item.concurrency_limit or 1
                found[row] = (max(priority, item.priority), at_once, min(due, item.available_at))
    return [(*row, *values) for row, values in sorted(found.items())]


def changes(freed: Iterable[Key], entered: Sequence[Row] = ()) -> Iterator[Request]:
    """What was leased of the `freed` keys is not, or is gone; and new items are `entered`."""
    freed = sorted(set(freed))
    # In order, so that those who wait for each other's rows are few.
    if keys := sorted({*freed, *((tenant_id, key) for tenant_id, key, *_ in entered)}):
        yield _HOLD, keys
        yield _OPEN, freed
        yield _ENTER, entered


_HOLD = _on_keys(select(_c.queue).where(_OF_KEYS).order_by(*_rows.primary_key).with_for_update())
# Without parameters of its own: in a Bulk only the given rows have some.
_OPEN = _on_keys(
    update(_rows).where(_OF_KEYS).values({"open_at": literal_column("0"), "priority": literal_column(str(FIRST))})
)


def _enter(dialect: Dialect) -> Executable:
    statement = insert_of(_rows, dialect)
    new = statement.excluded
    built: Executable = statement.on_conflict_do_update(
        index_elements=list(_rows.primary_key),
        set_={
            "priority": case((_c.priority < new.priority, new.priority), else_=_c.priority),
            "at_once": new.at_once,
            # Closed stays closed: NULL is not later than anything.
            "open_at": case((_c.open_at > new.open_at, new.open_at), else_=_c.open_at),
        },
    )
    return built


_ENTER = Bulk(_rows.columns.keys(), _enter)


# What a claim looks for


def hold_queue(queue: str) -> Iterator[Request]:
    """Nobody else leases an item of the queue under its limit until the transaction is over."""
    row = (DEFAULT_TENANT, "", queue)
    yield _HAVE, [(*row, 0, 0, None)]
    yield _HOLD_ROWS, [row]


_HAVE = insert_new(_rows)
_HOLD_ROWS = _on_rows(select(*_rows.primary_key).where(_OF_ROWS).with_for_update())


def look(queue: str, now: int, limit: int, tenant_id: str | None) -> Request:
    """For the first `limit` keys that are open by now. They are held then; those that others hold are passed over."""
    if tenant_id is None:
        return _OPEN_KEYS, [(queue, now, limit)]
    return _OPEN_KEYS_OF_TENANT, [(tenant_id, queue, now, limit)]


def _open_keys(**more: TypeEngine[Any]) -> Bulk:
    types = {**more, "queue": Text(), "now": BigInteger(), "count": Integer()}
    asked = one_of(types)
    is_open = (_c.queue == asked["queue"], _c.open_at.isnot(None), _c.open_at <= asked["now"])
    # See the schema.
    whose = [_c[name] == asked[name] for name in more] or [_c.at_once > literal_column("0")]
    query = select(*_KEY, _c.at_once).where(*whose, *is_open)
    query = first(query.order_by(_c.priority.desc(), _c.open_at), asked["count"])
    return Bulk(types, lambda _: query.with_for_update(skip_locked=True))


_OPEN_KEYS = _open_keys()
_OPEN_KEYS_OF_TENANT = _open_keys(tenant_id=Text())


def at_work(tx: Connection, queue: str, looked: Answer) -> dict[Key, tuple[int, int]]:
    """Of the keys that were found, how many items are leased, and how many may be. All of their rows are held now;
    without those with rows of other queues that somebody else holds."""
    keys = {(tenant_id, key): at_once for tenant_id, key, at_once in looked.rows}
    if not keys:
        return {}
    asked = list(keys)
    rows, counts = wire_of(tx).exchange(tx, [(_ALL, asked), (_AT_WORK, asked)])
    if others := [row for row in rows.rows if row[2] != queue]:
        held, rows, counts = wire_of(tx).exchange(tx, [(_TRY_ROWS, others), (_ALL, asked), (_AT_WORK, asked)])
        for row in {row for row in rows.rows if row[2] != queue} - set(held.rows):
            keys.pop(row[:2], None)
    count = {(tenant_id, key): count for tenant_id, key, count in counts.rows}
    return {key: (count.get(key, 0), at_once) for key, at_once in keys.items()}


_ALL = _on_keys(select(*_rows.primary_key).where(_OF_KEYS))
_TRY_ROWS = _on_rows(select(*_rows.primary_key).where(_OF_ROWS).with_for_update(skip_locked=True))


def _count_at_work() -> Select[Any]:
    c = _items.c
    key = (c.tenant_id, c.concurrency_key)
    leased = (c.lease_owner.isnot(None), c.concurrency_key.isnot(None))
    return select(*key, func.count()).where(tuple_(*key).in_(given(_KEY)), *leased).group_by(*key)


_AT_WORK = _on_keys(_count_at_work())


# What a claim leaves


def left(closed: Sequence[Row], opened: Sequence[Row]) -> Iterator[Request]:
    """Of the `closed` as many are at work as may be. Of the others something waits: (…, priority, open_at)."""
    yield _CLOSE, sorted(closed)
    yield _LEAVE_OPEN, sorted(opened)


def idle(rows: Mapping[Row, bool]) -> Iterator[Request]:
    """Of these nothing waits. While something is at work the row stays, so that whoever ends that can hold it."""
    yield _REST, sorted(row for row, is_at_work in rows.items() if is_at_work)
    yield _DROP, sorted(row for row, is_at_work in rows.items() if not is_at_work)


def waiting(rows: Sequence[Row]) -> Request:
    """Answers those of which items wait for their time."""
    return _WAITING, rows


def _leave_open() -> Update:
    asked = values_of({name: _c[name].type for name in _LEFT}).cte("given")
    here = (column == asked.c[column.name] for column in _rows.primary_key)
    return update(_rows).where(*here).values(priority=asked.c.priority, open_at=asked.c.open_at)


def _waiting() -> Select[Any]:
    c = _items.c
    same = (c.tenant_id == _c.tenant_id, c.concurrency_key == _c.key, c.queue == _c.queue)
    free = exists().where(*same, c.concurrency_key.isnot(None), c.lease_owner.is_(None))
    return select(*_rows.primary_key).where(_OF_ROWS, free.correlate(_rows))


_LEFT = (*_rows.primary_key.columns.keys(), "priority", "open_at")
_LEAVE_OPEN = Bulk(_LEFT, lambda _: _leave_open())
_CLOSE = _on_rows(update(_rows).where(_OF_ROWS).values(open_at=null()))
_WAITING = _on_rows(_waiting())
_REST = _on_rows(update(_rows).where(_OF_ROWS).values(open_at=literal_column(str(NOTHING))))
_DROP = delete_keys(_rows)
