"""Work: items that wait for a worker, and deliveries on their way to another execution."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from sqlalchemy import (
    Connection,
    ScalarSelect,
    Select,
    Table,
    bindparam,
    delete,
    func,
    literal,
    literal_column,
    null,
    select,
    tuple_,
    update,
)

from jamjet_kernel import DEFAULT_TENANT, Commit, Delivery, WorkItem

from . import schema
from .bulk import Bulk, Row, delete_keys, given, insert_new, net, upsert
from .clock import milliseconds
from .transactions import Transactions

_items, _deliveries = schema.work_items, schema.deliveries

ENQUEUE, SETTLE = upsert(_items), delete_keys(_items)
SEND, DELIVERED = upsert(_deliveries), delete_keys(_deliveries)

_LEASED = (_items.c.tenant_id, _items.c.execution_id, _items.c.run_id, _items.c.fence)
SETTLE_LEASED = Bulk([c.name for c in _LEASED], lambda _: delete(_items).where(tuple_(*_LEASED).in_(given(_LEASED))))
"""Touches only what is still held under the fence that the result comes with."""


class SqlWork:
    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions

    async def pending(self, after: tuple[str, str, str] | None = None, limit: int = 1000) -> list[WorkItem]:
        return await self._transactions.read(pending, after, limit)

    async def get(self, tenant_id: str, execution_id: str, run_id: str) -> WorkItem | None:
        return await self._transactions.read(get, tenant_id, execution_id, run_id)

    async def claim(
        self,
        worker_id: str,
        queue: str,
        now: int,
        limit: int,
        *,
        tenant_id: str | None = None,
        lease_ms: int | None = None,
        queue_limit: int | None = None,
    ) -> list[WorkItem]:
        arguments = (worker_id, queue, now, limit, tenant_id, lease_ms, queue_limit)
        return await self._transactions.write(claim, *arguments)

    async def next_due(self, queue: str) -> int | None:
        return await self._transactions.read(next_due, queue)

    async def backlog(self, limit: int) -> int:
        return await self._transactions.read(backlog, limit)

    async def renew(self, item: WorkItem, lease_ms: int) -> bool:
        return await self._transactions.write(renew, item, lease_ms)

    async def give_back(self, items: Sequence[WorkItem]) -> int:
        return await self._transactions.write(give_back, items)

    async def deliveries(self, after: str | None = None, limit: int = 1000) -> list[Delivery]:
        return await self._transactions.read(deliveries, after, limit)

    async def claim_deliveries(self, worker_id: str, limit: int = 1000) -> list[Delivery]:
        return await self._transactions.write(claim_deliveries, worker_id, limit)

    async def drop_delivery(self, tenant_id: str, delivery_id: str) -> None:
        await self._transactions.write(DELIVERED.run, [(tenant_id, delivery_id)])


# Items


def pending(tx: Connection, after: tuple[str, str, str] | None, limit: int) -> list[WorkItem]:
    key = tuple_(_items.c.tenant_id, _items.c.execution_id, _items.c.run_id)
    query = select(_items).order_by(*key).limit(limit)
    if after is not None:
        query = query.where(key > after)
    return [_item(row) for row in tx.execute(query)]


def get(tx: Connection, tenant_id: str, execution_id: str, run_id: str) -> WorkItem | None:
    c = _items.c
    row = tx.execute(
        select(_items).where(c.tenant_id == tenant_id, c.execution_id == execution_id, c.run_id == run_id)
    ).first()
    return _item(row) if row else None


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
        limit = min(limit, queue_limit - _held_in(tx, queue))
    if limit <= 0:
        return []
    picked = tx.execute(_CLAIMABLE_OF_TENANT if tenant_id else _CLAIMABLE, _asked(queue, now, limit, tenant_id)).all()
    picked = _within_their_keys(tx, picked)
    if not picked:
        return []
    rows = [(row.tenant_id, row.execution_id, row.run_id) for row in picked]
    changes = {"lease_owner": worker_id, "lease_expires_at": None if lease_ms is None else milliseconds() + lease_ms}
    taken = update(_items).where(_key_of(_items).in_(rows)).values(fence=_items.c.fence + 1, **changes)
    claimed = [_item(row) for row in tx.execute(taken.returning(_items))]
    return sorted(claimed, key=lambda item: (-item.priority, item.available_at))


def _key_of(table: Table) -> Any:
    return tuple_(*table.primary_key)


def _asked(queue: str, now: int, limit: int, tenant_id: str | None) -> dict[str, Any]:
    asked = {"queue": queue, "now": now, "limit": limit}
    return asked if tenant_id is None else {**asked, "tenant": tenant_id}


def _claimable(*conditions: Any) -> Select[Any]:
    c = _items.c
    due = (c.queue == bindparam("queue"), c.lease_owner.is_(None), c.available_at <= bindparam("now"))
    columns = (c.tenant_id, c.execution_id, c.run_id, c.concurrency_key, c.concurrency_limit)
    query = select(*columns).where(*conditions, *due).order_by(c.priority.desc(), c.available_at)
    return query.limit(bindparam("limit")).with_for_update(skip_locked=True)


_CLAIMABLE = _claimable()
_CLAIMABLE_OF_TENANT = _claimable(_items.c.tenant_id == bindparam("tenant"))


def _held_in(tx: Connection, queue: str) -> int:
    """How many items of the queue are leased; nobody else leases one until the transaction is over."""
    _lock(tx, [(DEFAULT_TENANT, f"queue:{queue}")])
    held = select(func.count()).where(_items.c.queue == queue, _items.c.lease_owner.isnot(None))
    return tx.execute(held).scalar_one()


def _within_their_keys(tx: Connection, picked: Sequence[Any]) -> list[Any]:
    """Those for which there is room among the leased items of the same concurrency key."""
    keys = sorted({(row.tenant_id, row.concurrency_key) for row in picked if row.concurrency_key is not None})
    if not keys:
        return list(picked)
    _lock(tx, [(tenant_id, f"key:{key}") for tenant_id, key in keys])
    held = Counter({key: _held_under(tx, *key) for key in keys})
    fitting = []
    for row in picked:
        key = (row.tenant_id, row.concurrency_key)
        if row.concurrency_key is not None:
            if held[key] >= (row.concurrency_limit or 1):
                continue
            held[key] += 1
        fitting.append(row)
    return fitting


def _held_under(tx: Connection, tenant_id: str, key: str) -> int:
    c = _items.c
    held = select(func.count()).where(c.tenant_id == tenant_id, c.concurrency_key == key, c.lease_owner.isnot(None))
    return tx.execute(held).scalar_one()


_HAVE = insert_new(schema.concurrency)


def _lock(tx: Connection, names: Sequence[tuple[str, str]]) -> None:
    _HAVE.run(tx, names)
    key = _key_of(schema.concurrency)
    tx.execute(select(schema.concurrency.c.name).where(key.in_(names)).order_by(*key).with_for_update()).all()


def next_due(tx: Connection, queue: str) -> int | None:
    c = _items.c
    # The earliest of each priority is at hand in the index; of the others only that there are some.
    query = select(func.min(c.available_at)).where(c.queue == queue, c.lease_owner.is_(None))
    return tx.execute(query).scalar()


def backlog(tx: Connection, limit: int) -> int:
    free = select(literal(1)).select_from(_items).where(_items.c.lease_owner.is_(None)).limit(limit).subquery()
    return tx.execute(select(func.count()).select_from(free)).scalar_one()


def renew(tx: Connection, item: WorkItem, lease_ms: int) -> bool:
    c = _items.c
    held = (c.fence == item.fence, c.lease_owner == item.lease_owner, c.lease_expires_at.isnot(None))
    mine = (c.tenant_id == item.tenant_id, c.execution_id == item.execution_id, c.run_id == item.run_id, *held)
    renewed = update(_items).where(*mine).values(lease_expires_at=milliseconds() + lease_ms)
    return bool(tx.execute(renewed).rowcount)


# Without parameters of its own: in a Bulk only the given rows have some.
_FREED: dict[str, Any] = {
    "lease_owner": null(),
    "lease_expires_at": null(),
    "fence": _items.c.fence + literal_column("1"),
}
_GIVE_BACK = Bulk(
    [c.name for c in _LEASED], lambda _: update(_items).where(tuple_(*_LEASED).in_(given(_LEASED))).values(_FREED)
)


def give_back(tx: Connection, items: Sequence[WorkItem]) -> int:
    return _GIVE_BACK.run(tx, [(item.tenant_id, item.execution_id, item.run_id, item.fence) for item in items])


def free_of(tx: Connection, process: str) -> None:
    """What it holds, of which it says so itself."""
    c = _items.c
    tx.execute(update(_items).where(c.lease_owner == process, c.lease_expires_at.is_(None)).values(_FREED))
    tx.execute(update(_deliveries).where(_deliveries.c.lease_owner == process).values(lease_owner=None))


def free_orphans(tx: Connection, alive: ScalarSelect[str]) -> None:
    c = _items.c
    orphaned = (c.lease_owner.isnot(None), c.lease_expires_at.is_(None), c.lease_owner.not_in(alive))
    tx.execute(update(_items).where(*orphaned).values(losses=c.losses + 1, **_FREED))
    owner = _deliveries.c.lease_owner
    tx.execute(update(_deliveries).where(owner.isnot(None), owner.not_in(alive)).values(lease_owner=None))


def free_expired(tx: Connection) -> None:
    """What remote workers did not renew."""
    c = _items.c
    tx.execute(update(_items).where(c.lease_expires_at < milliseconds()).values(losses=c.losses + 1, **_FREED))


def free_of_remote(tx: Connection, tenant_id: str, worker_id: str) -> None:
    c = _items.c
    held = (c.tenant_id == tenant_id, c.lease_owner == worker_id, c.lease_expires_at.isnot(None))
    tx.execute(update(_items).where(*held).values(_FREED))


def _item(row: Any) -> WorkItem:
    return WorkItem(
        execution_id=row.execution_id,
        run_id=row.run_id,
        attempt=row.attempt,
        queue=row.queue,
        available_at=row.available_at,
        tenant_id=row.tenant_id,
        priority=row.priority,
        lease_owner=row.lease_owner,
        fence=row.fence,
        losses=row.losses,
        concurrency_key=row.concurrency_key,
        concurrency_limit=row.concurrency_limit,
    )


# Deliveries


def deliveries(tx: Connection, after: str | None, limit: int) -> list[Delivery]:
    query = select(_deliveries).order_by(_deliveries.c.delivery_id, _deliveries.c.tenant_id).limit(limit)
    if after is not None:
        query = query.where(_deliveries.c.delivery_id > after)
    return [_delivery(row) for row in tx.execute(query)]


def claim_deliveries(tx: Connection, worker_id: str, limit: int) -> list[Delivery]:
    c = _deliveries.c
    free = select(*_deliveries.primary_key).where(c.lease_owner.is_(None)).order_by(c.delivery_id).limit(limit)
    rows = [tuple(row) for row in tx.execute(free.with_for_update(skip_locked=True))]
    if not rows:
        return []
    taken = update(_deliveries).where(_key_of(_deliveries).in_(rows)).values(lease_owner=worker_id)
    claimed = [_delivery(row) for row in tx.execute(taken.returning(_deliveries))]
    return sorted(claimed, key=lambda delivery: delivery.delivery_id)


def _delivery(row: Any) -> Delivery:
    return Delivery(row.delivery_id, row.execution_id, row.body, row.tenant_id, row.lease_owner)


# What a batch of commits writes


def leased(commits: Sequence[Commit]) -> list[Row]:
    return [
        (commit.tenant_id, commit.head.execution_id, commit.lease.run_id, commit.lease.fence)
        for commit in commits
        if commit.lease
    ]


def changed_items(commits: Sequence[Commit]) -> tuple[list[Row], list[Row]]:
    return net(commits, ended=_settled, begun=_enqueued, key=3)


def _settled(commit: Commit) -> list[Row]:
    leased = commit.lease.run_id if commit.lease else None
    return [(commit.tenant_id, commit.head.execution_id, run_id) for run_id in commit.settle if run_id != leased]


def _enqueued(commit: Commit) -> list[Row]:
    return [
        (
            commit.tenant_id,
            item.execution_id,
            item.run_id,
            item.attempt,
            item.queue,
            item.priority,
            item.available_at,
            item.lease_owner,
            None,
            item.fence,
            item.losses,
            item.concurrency_key,
            item.concurrency_limit,
        )
        for item in commit.enqueue
    ]


def changed_deliveries(commits: Sequence[Commit]) -> tuple[list[Row], list[Row]]:
    return net(commits, ended=_delivered, begun=_sent, key=2)


def _delivered(commit: Commit) -> list[Row]:
    return [(commit.tenant_id, commit.delivered)] if commit.delivered is not None else []


def _sent(commit: Commit) -> list[Row]:
    return [
        (commit.tenant_id, sent.delivery_id, sent.execution_id, sent.body, sent.lease_owner) for sent in commit.send
    ]
