"""Claims: who has room takes of the work that nobody holds, the most urgent first.

Where items have no concurrency key, a claim on PostgreSQL takes two round trips: what is due; the leases, and COMMIT.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Integer,
    Select,
    Table,
    Text,
    Update,
    bindparam,
    func,
    literal_column,
    select,
    true,
    tuple_,
    update,
)
from sqlalchemy.types import TypeEngine

from jamjet_kernel import WorkItem

from . import concurrency, schema
from .bulk import Bulk, Row, first, given, one_of, values_of
from .clock import milliseconds
from .concurrency import Key
from .wire import Answer, Request, wire_of

_items = schema.work_items
_RUN = tuple(_items.primary_key)

ITEM = tuple(_items.c[name] for name in WorkItem.__dataclass_fields__)
"""What a `WorkItem` is made of, in order."""

LOOKS = 5
"""Of a claim for keys with room: what one look finds without, the next passes over."""


def claim(
    tx: Connection,
    worker_id: str,
    queue: str,
    now: int,
    limit: int,
    tenant_id: str | None,
    lease_ms: int | None,
    queue_limit: int | None,
) -> list[WorkItem]:
    if queue_limit is not None:
        limit = min(limit, queue_limit - _at_work_in(tx, queue))
    if limit <= 0:
        return []
    keyless, looked = _first_look(tx, queue, now, limit, tenant_id)
    keyed = list(_keyed(tx, queue, now, limit, tenant_id, looked))
    found = [*keyless, *(item for key in keyed for item in key.fitting)]
    chosen = _held(tx, sorted(found, key=_urgency)[:limit])
    counts = 0 if queue_limit is None else 1
    lease: Request = (_LEASE, [(*_run(item), worker_id, lease_ms, counts) for item in chosen])
    _leave(tx, lease, keyed, {_run(item) for item in chosen})
    return [replace(item, lease_owner=worker_id, fence=item.fence + 1) for item in chosen]


def _run(item: WorkItem) -> Row:
    return (item.tenant_id, item.execution_id, item.run_id)


def _urgency(item: WorkItem) -> tuple[int, int]:
    return (-item.priority, item.available_at)


def _at_work_in(tx: Connection, queue: str) -> int:
    counted = wire_of(tx).exchange(tx, [*concurrency.hold_queue(queue), (_COUNT, [(queue,)])])
    [(count,)] = list(counted)[-1].rows
    return int(count)


def _count() -> Select[Any]:
    c, asked = _items.c, one_of({"queue": Text()})
    leased = (c.queue == asked["queue"], c.lease_owner.isnot(None), c.counts > literal_column("0"))
    return select(func.count()).select_from(_items).where(*leased)


_COUNT = Bulk(["queue"], lambda _: _count())


def _lease() -> Update:
    asked = values_of({**{column.name: column.type for column in _RUN}, **_LEASED_BY}).cte("given")
    return (
        update(_items)
        .where(*(column == asked.c[column.name] for column in _RUN))
        .values(
            lease_owner=asked.c.worker,
            lease_expires_at=milliseconds() + asked.c.lease_ms,
            counts=asked.c.counts,
            fence=_items.c.fence + literal_column("1"),
        )
    )


_LEASED_BY: dict[str, TypeEngine[Any]] = {"worker": Text(), "lease_ms": BigInteger(), "counts": Integer()}
_LEASE = Bulk([*(column.name for column in _RUN), *_LEASED_BY], lambda _: _lease())


# What is due


def _first_look(
    tx: Connection, queue: str, now: int, limit: int, tenant_id: str | None
) -> tuple[list[WorkItem], Answer]:
    """Items without a concurrency key, and keys that may have some."""
    rows: list[Row] = [(queue, now, limit) if tenant_id is None else (tenant_id, queue, now, limit)]
    claimable = _CLAIMABLE if tenant_id is None else _CLAIMABLE_OF_TENANT
    look = (claimable, rows), concurrency.look(queue, now, limit, tenant_id)
    *_, items, keys = wire_of(tx).exchange(tx, [*to_the_indexes(tx), *look])
    return [WorkItem(*row) for row in items.rows], keys


def to_the_indexes(tx: Connection) -> Iterator[Request]:
    """Keeps the transaction to them: they have the order of a claim. Where little seems to be due, PostgreSQL would
    rather read all of it and sort; and what its statistics say to be little may be a hundred thousand by now."""
    if tx.dialect.name == "postgresql":
        yield _OFF, [("enable_sort",), ("enable_bitmapscan",), ("enable_seqscan",)]


def _switch_off() -> Select[Any]:
    names = values_of({"name": Text()}).cte("given")
    return select(func.set_config(names.c.name, literal_column("'off'"), literal_column("true")))


_OFF = Bulk(["name"], lambda _: _switch_off())


def _claimable(**more: TypeEngine[Any]) -> Bulk:
    types = {**more, "queue": Text(), "now": BigInteger(), "count": Integer()}
    asked, c = one_of(types), _items.c
    # See the schema.
    whose = [c[name] == asked[name] for name in more] or [c.attempt > literal_column("0")]
    query = select(*ITEM).where(*whose, *_free(_items, asked["queue"]))
    query = first(_by_urgency(query.where(c.available_at <= asked["now"])), asked["count"])
    return Bulk(types, lambda _: query.with_for_update(skip_locked=True))


def _free(items: Any, queue: ColumnElement[str]) -> tuple[ColumnElement[bool], ...]:
    return (items.c.queue == queue, items.c.lease_owner.is_(None), items.c.concurrency_key.is_(None))


def _by_urgency(query: Select[Any]) -> Select[Any]:
    return query.order_by(_items.c.priority.desc(), _items.c.available_at)


_CLAIMABLE = _claimable()
_CLAIMABLE_OF_TENANT = _claimable(tenant_id=Text())


# Items with a concurrency key


@dataclass(frozen=True)
class _Key:
    """The first items of a key that are due: as many as there is room for, and the one after them. None where there is
    no room, and then it is closed."""

    row: Row
    at_work: int
    at_once: int
    items: Sequence[WorkItem]

    @property
    def room(self) -> int:
        return max(0, self.at_once - self.at_work)

    @property
    def fitting(self) -> Sequence[WorkItem]:
        return self.items[: self.room]


def _keyed(tx: Connection, queue: str, now: int, limit: int, tenant_id: str | None, looked: Answer) -> Iterator[_Key]:
    """Of the most urgent keys with room, until `limit` items are found."""
    seen: set[Key] = set()
    found = 0
    for _ in range(LOOKS):
        at_work = concurrency.at_work(tx, queue, looked)
        fresh = {key: counts for key, counts in at_work.items() if key not in seen}
        if not fresh:
            return
        seen |= fresh.keys()
        for key in _with_items(tx, queue, now, limit, fresh):
            found += len(key.fitting)
            yield key
        if found >= limit or len(looked.rows) < limit:
            return
        [looked] = wire_of(tx).exchange(tx, [concurrency.look(queue, now, limit + len(seen), tenant_id)])


def _with_items(
    tx: Connection, queue: str, now: int, limit: int, counts: Mapping[Key, tuple[int, int]]
) -> Iterator[_Key]:
    rooms = {key: at_once - at_work for key, (at_work, at_once) in counts.items()}
    asked = [(*key, queue, now, min(room, limit) + 1) for key, room in rooms.items() if room > 0]
    found: dict[Key, list[WorkItem]] = {key: [] for key in counts}
    for item in _first_of_each(tx, asked):
        found[item.tenant_id, item.concurrency_key or ""].append(item)
    return (_Key((*key, queue), *counts[key], items) for key, items in found.items())


def _first_of_each(tx: Connection, asked: Sequence[Row]) -> list[WorkItem]:
    if tx.dialect.name == "postgresql":
        return [WorkItem(*row) for row in _FIRST_OF_EACH.fetch(tx, asked)]
    # SQLite knows no LATERAL; it is in this process, so that a statement a key is quick.
    return [WorkItem(*row) for values in asked for row in tx.execute(_FIRST, dict(zip(_ASKED, values, strict=True)))]


_ASKED: dict[str, TypeEngine[Any]] = {
    "tenant": Text(),
    "key": Text(),
    "queue": Text(),
    "now": BigInteger(),
    "count": Integer(),
}


def _first(asked: Mapping[str, Any]) -> Select[Any]:
    c = _items.c
    key = (c.tenant_id == asked["tenant"], c.concurrency_key == asked["key"], c.queue == asked["queue"])
    free = (c.lease_owner.is_(None), c.concurrency_key.isnot(None), c.available_at <= asked["now"])
    return _by_urgency(select(*ITEM).where(*key, *free)).limit(asked["count"])


def _lateral() -> Select[Any]:
    asked = values_of(_ASKED).cte("given")
    items = _first(dict(asked.c)).lateral()
    return select(*items.c).select_from(asked.join(items, true()))


_FIRST = _first({name: bindparam(name, type_=type_) for name, type_ in _ASKED.items()})
_FIRST_OF_EACH = Bulk(_ASKED, lambda _: _lateral())


def _held(tx: Connection, items: Sequence[WorkItem]) -> list[WorkItem]:
    """Items of a key are not held before they are chosen: some may have ended meanwhile."""
    keyed = [_run(item) for item in items if item.concurrency_key is not None]
    held = set(_HOLD.fetch(tx, keyed)) if keyed else set()
    return [item for item in items if item.concurrency_key is None or _run(item) in held]


_HOLD = Bulk(
    [column.name for column in _RUN],
    lambda _: (
        select(*_RUN)
        .where(tuple_(*_RUN).in_(given(_RUN)), _items.c.lease_owner.is_(None))
        .with_for_update(skip_locked=True)
    ),
)


def _leave(tx: Connection, lease: Request, keys: Iterable[_Key], taken: set[Row]) -> None:
    """Leases, and leaves the keys as the next claim is to find them."""
    full: list[Row] = []
    opened: list[Row] = []
    through: dict[Row, bool] = {}
    for key in keys:
        rest = [item for item in key.items if _run(item) not in taken]
        count = key.at_work + len(key.items) - len(rest)
        if count >= key.at_once:
            full.append(key.row)
        elif rest:
            opened.append((*key.row, rest[0].priority, rest[0].available_at))
        else:
            through[key.row] = count > 0
    if not through:
        return wire_of(tx).post(tx, [lease, *concurrency.left(full, opened)])
    _, waiting = wire_of(tx).exchange(tx, [lease, concurrency.waiting(list(through))])
    opened += [(*row, concurrency.FIRST, _next_of_key(tx, row)) for row in waiting.rows]
    idle = {row: is_at_work for row, is_at_work in through.items() if row not in set(waiting.rows)}
    return wire_of(tx).post(tx, [*concurrency.left(full, opened), *concurrency.idle(idle)])


# What is due later


def next_due(tx: Connection, queue: str, now: int) -> int | None:
    asked = {"queue": queue, "after": now}
    times = [tx.execute(query, asked).scalar_one() for query in (_NEXT_KEYLESS, _NEXT_KEY_OPENS)]
    return min((time for time in times if time is not None and time < concurrency.NOTHING), default=None)


def _next_of_key(tx: Connection, row: Row) -> int:
    asked = {**dict(zip(("tenant", "key", "queue"), row, strict=True)), "after": -1}
    found = tx.execute(_NEXT_OF_KEY, asked).scalar_one()
    return concurrency.NOTHING if found is None else int(found)


def _next(table: Table, time: str, of: Callable[[Any], tuple[ColumnElement[bool], ...]]) -> Select[Any]:
    """The first time after another. In the indexes each priority has its times in order, so it is asked by itself."""
    top, below, then = table.alias(), table.alias(), table.alias()
    highest = select(top.c.priority).where(*of(top)).order_by(top.c.priority.desc()).limit(1)
    priorities = select(highest.scalar_subquery().label("priority")).cte("priorities", recursive=True)
    lower = select(below.c.priority).where(*of(below), below.c.priority < priorities.c.priority)
    lower = lower.order_by(below.c.priority.desc()).limit(1)
    every = priorities.union_all(select(lower.scalar_subquery()).where(priorities.c.priority.isnot(None)))
    moment = then.c[time]
    soonest = select(moment).where(*of(then), then.c.priority == every.c.priority, moment > bindparam("after"))
    return select(func.min(soonest.order_by(moment).limit(1).scalar_subquery())).select_from(every)


def _free_of_key(items: Any) -> tuple[ColumnElement[bool], ...]:
    c = items.c
    key = (c.tenant_id == bindparam("tenant"), c.concurrency_key == bindparam("key"), c.queue == bindparam("queue"))
    return (*key, c.lease_owner.is_(None), c.concurrency_key.isnot(None))


_NEXT_KEYLESS = _next(
    _items,
    "available_at",
    lambda items: (*_free(items, bindparam("queue")), items.c.attempt > literal_column("0")),
)
_NEXT_OF_KEY = _next(_items, "available_at", _free_of_key)
_NEXT_KEY_OPENS = _next(
    schema.concurrency,
    "open_at",
    lambda rows: (
        rows.c.queue == bindparam("queue"),
        rows.c.open_at.isnot(None),
        rows.c.at_once > literal_column("0"),
    ),
)


def backlog(tx: Connection, limit: int) -> int:
    counts: list[int] = [tx.execute(query, {"limit": limit}).scalar_one() for query in _BACKLOG]
    return min(limit, sum(counts))


def _count_free(is_keyed: ColumnElement[bool]) -> Select[Any]:
    free = select(_items.c.queue).where(_items.c.lease_owner.is_(None), is_keyed).limit(bindparam("limit"))
    return select(func.count()).select_from(free.subquery())


_BACKLOG = (_count_free(_items.c.concurrency_key.is_(None)), _count_free(_items.c.concurrency_key.isnot(None)))
