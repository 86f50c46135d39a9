"""Work: items that wait for a worker, and deliveries on their way to another execution."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    ScalarSelect,
    delete,
    func,
    literal_column,
    null,
    select,
    tuple_,
    update,
)

from jamjet_kernel import Commit, Delivery, WorkItem

from . import claims, concurrency, schema
from .bulk import Bulk, Row, delete_keys, given, lease, net, upsert
from .claims import ITEM
from .clock import milliseconds
from .transactions import Transactions
from .wire import wire_of

_items, _deliveries = schema.work_items, schema.deliveries

ENQUEUE, SETTLE = upsert(_items), delete_keys(_items)
SEND, DELIVERED = upsert(_deliveries), delete_keys(_deliveries)

_LEASED = (_items.c.tenant_id, _items.c.execution_id, _items.c.run_id, _items.c.fence)
_KEY = (_items.c.tenant_id, _items.c.concurrency_key)
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
        return await self._transactions.write(claims.claim, *arguments)

    async def leased_to(self, worker_id: str) -> list[WorkItem]:
        return await self._transactions.read(leased_to, worker_id)

    async def next_due(self, queue: str, now: int) -> int | None:
        return await self._transactions.read(claims.next_due, queue, now)

    async def backlog(self, limit: int) -> int:
        return await self._transactions.read(claims.backlog, limit)

    async def held(self, tenant_id: str) -> list[WorkItem]:
        return await self._transactions.read(held, tenant_id)

    async def renew(self, item: WorkItem, lease_ms: int) -> bool:
        return await self._transactions.write(renew, item, lease_ms)

    async def give_back(self, items: Sequence[WorkItem]) -> int:
        return await self._transactions.write(give_back, items)

    async def deliveries(self, after: str | None = None, limit: int = 1000) -> list[Delivery]:
        return await self._transactions.read(deliveries, after, limit)

    async def deliveries_leased_to(self, worker_id: str) -> list[Delivery]:
        return await self._transactions.read(deliveries_leased_to, worker_id)

    async def claim_deliveries(self, worker_id: str, limit: int = 1000) -> list[Delivery]:
        return await self._transactions.write(claim_deliveries, worker_id, limit)

    async def drop_delivery(self, tenant_id: str, delivery_id: str) -> None:
        await self._transactions.write(DELIVERED.run, [(tenant_id, delivery_id)])


# Items


def pending(tx: Connection, after: tuple[str, str, str] | None, limit: int) -> list[WorkItem]:
    key = tuple_(_items.c.tenant_id, _items.c.execution_id, _items.c.run_id)
    query = select(*ITEM).order_by(*key).limit(limit)
    if after is not None:
        query = query.where(key > after)
    return [WorkItem(*row) for row in tx.execute(query)]


def get(tx: Connection, tenant_id: str, execution_id: str, run_id: str) -> WorkItem | None:
    c = _items.c
    row = tx.execute(
        select(*ITEM).where(c.tenant_id == tenant_id, c.execution_id == execution_id, c.run_id == run_id)
    ).first()
    return WorkItem(*row) if row else None


def held(tx: Connection, tenant_id: str) -> list[WorkItem]:
    c = _items.c
    query = select(*ITEM).where(c.lease_expires_at.isnot(None), c.tenant_id == tenant_id)
    return [WorkItem(*row) for row in tx.execute(query.order_by(c.lease_expires_at).limit(1000))]


def leased_to(tx: Connection, worker_id: str) -> list[WorkItem]:
    c = _items.c
    query = select(*ITEM).where(c.lease_owner == worker_id, c.lease_expires_at.is_(None))
    return [WorkItem(*row) for row in tx.execute(query)]


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
    [c.name for c in _LEASED],
    lambda _: update(_items).where(tuple_(*_LEASED).in_(given(_LEASED))).values(_FREED).returning(*_KEY),
)


def give_back(tx: Connection, items: Sequence[WorkItem]) -> int:
    keys = _GIVE_BACK.fetch(tx, [(item.tenant_id, item.execution_id, item.run_id, item.fence) for item in items])
    _open(tx, keys)
    return len(keys)


def _free(tx: Connection, *held: ColumnElement[bool], lost: bool = False) -> None:
    changes = {**_FREED, "losses": _items.c.losses + 1} if lost else _FREED
    _open(tx, tx.execute(update(_items).where(*held).values(changes).returning(*_KEY)))


def _open(tx: Connection, keys: Iterable[Any]) -> None:
    freed = [(tenant_id, key) for tenant_id, key in keys if key is not None]
    for _ in wire_of(tx).exchange(tx, list(concurrency.changes(freed))):
        pass


def free_of(tx: Connection, process: str) -> None:
    """What it holds, of which it says so itself."""
    _free(tx, _items.c.lease_owner == process, _items.c.lease_expires_at.is_(None))
    tx.execute(update(_deliveries).where(_deliveries.c.lease_owner == process).values(lease_owner=None))


def free_orphans(tx: Connection, alive: ScalarSelect[str]) -> None:
    c = _items.c
    _free(tx, c.lease_owner.isnot(None), c.lease_expires_at.is_(None), c.lease_owner.not_in(alive), lost=True)
    owner = _deliveries.c.lease_owner
    tx.execute(update(_deliveries).where(owner.isnot(None), owner.not_in(alive)).values(lease_owner=None))


def free_expired(tx: Connection) -> None:
    """What remote workers did not renew."""
    _free(tx, _items.c.lease_expires_at < milliseconds(), lost=True)


def first_lease() -> ScalarSelect[int]:
    """When the first lease of a remote worker ends."""
    return select(func.min(_items.c.lease_expires_at)).where(_items.c.lease_expires_at.isnot(None)).scalar_subquery()


def free_of_remote(tx: Connection, tenant_id: str, worker_id: str) -> None:
    c = _items.c
    _free(tx, c.tenant_id == tenant_id, c.lease_owner == worker_id, c.lease_expires_at.isnot(None))


# Deliveries


def deliveries(tx: Connection, after: str | None, limit: int) -> list[Delivery]:
    query = select(*_DELIVERY).order_by(_deliveries.c.delivery_id, _deliveries.c.tenant_id).limit(limit)
    if after is not None:
        query = query.where(_deliveries.c.delivery_id > after)
    return [Delivery(*row) for row in tx.execute(query)]


def deliveries_leased_to(tx: Connection, worker_id: str) -> list[Delivery]:
    query = select(*_DELIVERY).where(_deliveries.c.lease_owner == worker_id).order_by(_deliveries.c.delivery_id)
    return [Delivery(*row) for row in tx.execute(query)]


def claim_deliveries(tx: Connection, worker_id: str, limit: int) -> list[Delivery]:
    c = _deliveries.c
    free = select(*_deliveries.primary_key).where(c.lease_owner.is_(None)).order_by(c.delivery_id).limit(limit)
    rows = tx.execute(free.with_for_update(skip_locked=True))
    claimed = [Delivery(*row) for row in _LEASE_DELIVERIES.fetch(tx, [(*row, worker_id) for row in rows])]
    return sorted(claimed, key=lambda delivery: delivery.delivery_id)


_DELIVERY = tuple(_deliveries.c[name] for name in Delivery.__dataclass_fields__)
_LEASE_DELIVERIES = lease(_deliveries, _DELIVERY)


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
            0,
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
