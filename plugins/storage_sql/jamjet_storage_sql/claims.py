"""Claims: who has room takes of the work that nobody holds, the most urgent first."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Executable,
    Integer,
    Select,
    Table,
    Text,
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
from .bulk import Bulk, Row, given, values_of
from .clock import milliseconds
from .concurrency import Key

_items = schema.work_items
_RUN = tuple(_items.primary_key)

ITEM = tuple(_items.c[name] for name in WorkItem.__dataclass_fields__)
"""What a `WorkItem` is made of, in order."""

LOOKS = 5
"""Of a claim for keys with room: what one look finds without, the next passes over."""


class _Found(NamedTuple):
    """An item that may be leased."""

    tenant_id: str
    execution_id: str
    run_id: str
    priority: int
    available_at: int
    concurrency_key: str | None

    @property
    def run(self) -> Row:
        return (self.tenant_id, self.execution_id, self.run_id)

    @property
    def key(self) -> Key:
        return (self.tenant_id, self.concurrency_key or "")


_FOUND = tuple(_items.c[name] for name in _Found._fields)


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
        concurrency.hold_queue(tx, queue)
        limit = min(limit, queue_limit - _at_work_in(tx, queue))
    if limit <= 0:
        return []
    keep_to_the_indexes(tx)
    keyed = list(_keyed(tx, queue, now, limit, tenant_id))
    found = [*_keyless(tx, queue, now, limit, tenant_id), *(item for key in keyed for item in key.fitting)]
    chosen = _held(tx, sorted(found, key=_urgency)[:limit])
    counts = 0 if queue_limit is None else 1
    leased = _LEASE.fetch(tx, [(*item.run, worker_id, lease_ms, counts) for item in chosen])
    _leave(tx, queue, keyed, {item.run for item in chosen})
    return sorted((WorkItem(*row) for row in leased), key=_urgency)


def _urgency(item: _Found | WorkItem) -> tuple[int, int]:
    return (-item.priority, item.available_at)


def keep_to_the_indexes(tx: Connection) -> None:
    """They have the order of a claim. Where little seems to be due, PostgreSQL would rather read all of it and sort;
    and what its statistics say to be little may be a hundred thousand by now."""
    if tx.dialect.name == "postgresql":
        tx.execute(_OFF)


_OFF = select(*(func.set_config(name, "off", True) for name in ("enable_sort", "enable_bitmapscan", "enable_seqscan")))


def _at_work_in(tx: Connection, queue: str) -> int:
    c = _items.c
    leased = (c.queue == queue, c.lease_owner.isnot(None), c.counts > literal_column("0"))
    return tx.execute(select(func.count()).select_from(_items).where(*leased)).scalar_one()


def _lease() -> Executable:
    given = values_of({column.name: column.type for column in _RUN} | _LEASED_BY).cte("given")
    return (
        update(_items)
        .where(*(column == given.c[column.name] for column in _RUN))
        .values(
            lease_owner=given.c.worker,
            lease_expires_at=milliseconds() + given.c.lease_ms,
            counts=given.c.counts,
            fence=_items.c.fence + literal_column("1"),
        )
        .returning(*ITEM)
    )


_LEASED_BY: dict[str, TypeEngine[Any]] = {"worker": Text(), "lease_ms": BigInteger(), "counts": Integer()}
_LEASE = Bulk([*(column.name for column in _RUN), *_LEASED_BY], lambda _: _lease())


# Items without a concurrency key


def _keyless(tx: Connection, queue: str, now: int, limit: int, tenant_id: str | None) -> list[_Found]:
    asked = {"queue": queue, "now": now, "limit": limit}
    if tenant_id is None:
        rows = tx.execute(_CLAIMABLE, asked)
    else:
        rows = tx.execute(_CLAIMABLE_OF_TENANT, {**asked, "tenant": tenant_id})
    return [_Found(*row) for row in rows]


def _claimable(*conditions: ColumnElement[bool]) -> Select[Any]:
    free = _free(_items, bindparam("queue"))
    query = select(*_FOUND).where(*conditions, *free, _items.c.available_at <= bindparam("now"))
    return _by_urgency(query).limit(bindparam("limit")).with_for_update(skip_locked=True)


def _free(items: Any, queue: ColumnElement[str]) -> tuple[ColumnElement[bool], ...]:
    return (items.c.queue == queue, items.c.lease_owner.is_(None), items.c.concurrency_key.is_(None))


def _by_urgency(query: Select[Any]) -> Select[Any]:
    return query.order_by(_items.c.priority.desc(), _items.c.available_at)


_CLAIMABLE = _claimable()
_CLAIMABLE_OF_TENANT = _claimable(_items.c.tenant_id == bindparam("tenant"))


# Items with one


@dataclass(frozen=True)
class _Key:
    """The first items of a key that are due: as many as there is room for, and the one after them."""

    row: Row
    room: int
    items: Sequence[_Found]

    @property
    def fitting(self) -> Sequence[_Found]:
        return self.items[: self.room]


def _keyed(tx: Connection, queue: str, now: int, limit: int, tenant_id: str | None) -> Iterator[_Key]:
    """Of the most urgent keys with room, until `limit` items are found."""
    seen: set[Key] = set()
    found = 0
    for _ in range(LOOKS):
        picked = concurrency.pick(tx, queue, now, limit + len(seen), tenant_id)
        fresh = {key: at_once for key, at_once in picked.items() if key not in seen}
        if not fresh:
            return
        seen |= fresh.keys()
        for key in _with_items(tx, queue, now, limit, _rooms(tx, queue, fresh)):
            found += len(key.fitting)
            yield key
        if found >= limit:
            return


def _rooms(tx: Connection, queue: str, keys: Mapping[Key, int]) -> dict[Key, int]:
    """How many more there may be at work. What has no room is closed."""
    at_work = concurrency.at_work(tx, list(keys))
    rooms = {key: at_once - at_work.get(key, 0) for key, at_once in keys.items()}
    concurrency.close(tx, [(*key, queue) for key, room in rooms.items() if room <= 0])
    return {key: room for key, room in rooms.items() if room > 0}


def _with_items(tx: Connection, queue: str, now: int, limit: int, rooms: Mapping[Key, int]) -> list[_Key]:
    asked = [(*key, queue, now, min(room, limit) + 1) for key, room in rooms.items()]
    found: dict[Key, list[_Found]] = {key: [] for key in rooms}
    for item in _first_of_each(tx, asked):
        found[item.key].append(item)
    return [_Key((*key, queue), room, found[key]) for key, room in rooms.items()]


def _first_of_each(tx: Connection, asked: Sequence[Row]) -> list[_Found]:
    if tx.dialect.name == "postgresql":
        return [_Found(*row) for row in _FIRST_OF_EACH.fetch(tx, asked)]
    # SQLite knows no LATERAL; it is in this process, so that a statement a key is quick.
    return [_Found(*row) for values in asked for row in tx.execute(_FIRST, dict(zip(_ASKED, values, strict=True)))]


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
    return _by_urgency(select(*_FOUND).where(*key, *free)).limit(asked["count"])


def _lateral() -> Select[Any]:
    given = values_of(_ASKED).cte("given")
    first = _first(dict(given.c)).lateral()
    return select(*first.c).select_from(given.join(first, true()))


_FIRST = _first({name: bindparam(name, type_=type_) for name, type_ in _ASKED.items()})
_FIRST_OF_EACH = Bulk(_ASKED, lambda _: _lateral())


def _held(tx: Connection, items: Sequence[_Found]) -> list[_Found]:
    """Items of a key are not held before they are chosen: some may have ended meanwhile."""
    asked = [item.run for item in items if item.concurrency_key is not None]
    held = set(_HOLD.fetch(tx, asked))
    return [item for item in items if item.concurrency_key is None or item.run in held]


_HOLD = Bulk(
    [column.name for column in _RUN],
    lambda _: (
        select(*_RUN)
        .where(tuple_(*_RUN).in_(given(_RUN)), _items.c.lease_owner.is_(None))
        .with_for_update(skip_locked=True)
    ),
)


def _leave(tx: Connection, queue: str, keys: Iterable[_Key], taken: set[Row]) -> None:
    """The keys as the next claim is to find them."""
    full: list[Row] = []
    left: list[Row] = []
    through: list[Row] = []
    for key in keys:
        rest = [item for item in key.items if item.run not in taken]
        if len(key.items) - len(rest) >= key.room:
            full.append(key.row)
        elif rest:
            left.append((*key.row, rest[0].priority, rest[0].available_at))
        else:
            through.append(key.row)
    later = concurrency.waiting(tx, through)
    left += [(*row, concurrency.FIRST, _next_of_key(tx, row)) for row in later]
    concurrency.close(tx, full)
    concurrency.drop(tx, sorted({*through} - {*later}))
    concurrency.leave_open(tx, left)


# What is due later


def next_due(tx: Connection, queue: str, now: int) -> int | None:
    keep_to_the_indexes(tx)
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
    first = select(moment).where(*of(then), then.c.priority == every.c.priority, moment > bindparam("after"))
    return select(func.min(first.order_by(moment).limit(1).scalar_subquery())).select_from(every)


def _free_of_key(items: Any) -> tuple[ColumnElement[bool], ...]:
    c = items.c
    key = (c.tenant_id == bindparam("tenant"), c.concurrency_key == bindparam("key"), c.queue == bindparam("queue"))
    return (*key, c.lease_owner.is_(None), c.concurrency_key.isnot(None))


_NEXT_KEYLESS = _next(_items, "available_at", lambda items: _free(items, bindparam("queue")))
_NEXT_OF_KEY = _next(_items, "available_at", _free_of_key)
_NEXT_KEY_OPENS = _next(
    schema.concurrency, "open_at", lambda rows: (rows.c.queue == bindparam("queue"), rows.c.open_at.isnot(None))
)


def backlog(tx: Connection, limit: int) -> int:
    keep_to_the_indexes(tx)
    counts: list[int] = [tx.execute(query, {"limit": limit}).scalar_one() for query in _BACKLOG]
    return min(limit, sum(counts))


def _count_free(is_keyed: ColumnElement[bool]) -> Select[Any]:
    free = select(_items.c.queue).where(_items.c.lease_owner.is_(None), is_keyed).limit(bindparam("limit"))
    return select(func.count()).select_from(free.subquery())


_BACKLOG = (_count_free(_items.c.concurrency_key.is_(None)), _count_free(_items.c.concurrency_key.isnot(None)))
