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

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeAlias

from sqlalchemy import (
    Connection,
    Dialect,
    Executable,
    Select,
    bindparam,
    case,
    delete,
    exists,
    func,
    literal_column,
    null,
    select,
    tuple_,
    update,
)

from jamjet_kernel import DEFAULT_TENANT, Commit

from . import schema
from .bulk import Bulk, Row, given, insert_new, insert_of, values_of
from .wire import Request

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


def hold_queue(tx: Connection, queue: str) -> None:
    """Nobody else leases an item of the queue under its limit until the transaction is over."""
    row = (DEFAULT_TENANT, "", queue)
    _HAVE.run(tx, [(*row, 0, 0, None)])
    _HOLD_ROWS.fetch(tx, [row])


_HAVE = insert_new(_rows)
_HOLD_ROWS = _on_rows(select(*_rows.primary_key).where(_OF_ROWS).with_for_update())


def pick(tx: Connection, queue: str, now: int, limit: int, tenant_id: str | None) -> dict[Key, int]:
    """The first `limit` keys that are open by now, and how many of their items may be at work in all.

    They are held now; those that others hold are passed over."""
    asked = {"queue": queue, "now": now, "limit": limit}
    if tenant_id is None:
        found = tx.execute(_OPEN_KEYS, asked)
    else:
        found = tx.execute(_OPEN_KEYS_OF_TENANT, {**asked, "tenant": tenant_id})
    keys = {(tenant_id, key): at_once for tenant_id, key, at_once in found}
    elsewhere = _held_elsewhere(tx, queue, list(keys))
    return {key: at_once for key, at_once in keys.items() if key not in elsewhere}


def _open_keys(*conditions: Any) -> Select[Any]:
    is_open = (_c.queue == bindparam("queue"), _c.open_at.isnot(None), _c.open_at <= bindparam("now"))
    query = select(*_KEY, _c.at_once).where(*conditions, *is_open).order_by(_c.priority.desc(), _c.open_at)
    return query.limit(bindparam("limit")).with_for_update(skip_locked=True)


_OPEN_KEYS = _open_keys()
_OPEN_KEYS_OF_TENANT = _open_keys(_c.tenant_id == bindparam("tenant"))


def _held_elsewhere(tx: Connection, queue: str, keys: Sequence[Key]) -> set[Key]:
    """Those with rows of other queues that cannot all be held."""
    others = [row for row in _ALL.fetch(tx, keys) if row[2] != queue]
    if not others:
        return set()
    held = set(_TRY_ROWS.fetch(tx, others))
    return {row[:2] for row in _ALL.fetch(tx, keys) if row[2] != queue and row not in held}


_ALL = _on_keys(select(*_rows.primary_key).where(_OF_KEYS))
_TRY_ROWS = _on_rows(select(*_rows.primary_key).where(_OF_ROWS).with_for_update(skip_locked=True))


def at_work(tx: Connection, keys: Sequence[Key]) -> dict[Key, int]:
    """How many items of each key are leased."""
    return {(tenant_id, key): count for tenant_id, key, count in _AT_WORK.fetch(tx, keys)}


def _count_at_work() -> Select[Any]:
    c = _items.c
    key = (c.tenant_id, c.concurrency_key)
    leased = (c.lease_owner.isnot(None), c.concurrency_key.isnot(None))
    return select(*key, func.count()).where(tuple_(*key).in_(given(_KEY)), *leased).group_by(*key)


_AT_WORK = _on_keys(_count_at_work())


# What a claim leaves


def close(tx: Connection, rows: Sequence[Row]) -> None:
    """As many are at work as may be."""
    _CLOSE.run(tx, rows)


_CLOSE = _on_rows(update(_rows).where(_OF_ROWS).values(open_at=null()))


def leave_open(tx: Connection, rows: Sequence[Row]) -> None:
    """(tenant_id, key, queue, priority, open_at): there may be more at work, and something waits."""
    _LEAVE_OPEN.run(tx, rows)


def _leave_open() -> Executable:
    names = (*_rows.primary_key.columns.keys(), "priority", "open_at")
    given = values_of({name: _c[name].type for name in names}).cte("given")
    here = (column == given.c[column.name] for column in _rows.primary_key)
    return update(_rows).where(*here).values(priority=given.c.priority, open_at=given.c.open_at)


_LEAVE_OPEN = Bulk([*_rows.primary_key.columns.keys(), "priority", "open_at"], lambda _: _leave_open())


def waiting(tx: Connection, rows: Sequence[Row]) -> Sequence[Row]:
    """Those of them of which items wait for their time."""
    return _WAITING.fetch(tx, rows)


def drop(tx: Connection, rows: Sequence[Row]) -> None:
    """Nothing waits. The row stays while something is at work, so that whoever ends that can hold it."""
    _DROP.run(tx, rows)
    _REST.run(tx, rows)


def _items_of_row(*conditions: Any) -> Any:
    c = _items.c
    same = (c.tenant_id == _c.tenant_id, c.concurrency_key == _c.key, c.queue == _c.queue)
    return exists().where(*same, c.concurrency_key.isnot(None), *conditions).correlate(_rows)


_IS_WAITING = _items_of_row(_items.c.lease_owner.is_(None))
_IS_AT_WORK = _items_of_row(_items.c.lease_owner.isnot(None))
_WAITING = _on_rows(select(*_rows.primary_key).where(_OF_ROWS, _IS_WAITING))
_DROP = _on_rows(delete(_rows).where(_OF_ROWS, ~_IS_AT_WORK))
_REST = _on_rows(update(_rows).where(_OF_ROWS).values(open_at=literal_column(str(NOTHING))))
