"""Work: items that wait for a worker, and deliveries on their way to another execution."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, select, tuple_

from jamjet_kernel import Commit, Delivery, WorkItem

from . import schema
from .bulk import Row, delete_keys, net, upsert
from .transactions import Transactions

_items, _deliveries = schema.work_items, schema.deliveries

ENQUEUE, SETTLE = upsert(_items), delete_keys(_items)
SEND, DELIVERED = upsert(_deliveries), delete_keys(_deliveries)


class SqlWork:
    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions

    async def pending(self, after: tuple[str, str, str] | None = None, limit: int = 1000) -> list[WorkItem]:
        return await self._transactions.read(pending, after, limit)

    async def deliveries(self, after: str | None = None, limit: int = 1000) -> list[Delivery]:
        return await self._transactions.read(deliveries, after, limit)

    async def drop_delivery(self, tenant_id: str, delivery_id: str) -> None:
        await self._transactions.write(DELIVERED.run, [(tenant_id, delivery_id)])


def pending(tx: Connection, after: tuple[str, str, str] | None, limit: int) -> list[WorkItem]:
    key = tuple_(_items.c.tenant_id, _items.c.execution_id, _items.c.run_id)
    query = select(_items).order_by(*key).limit(limit)
    if after is not None:
        query = query.where(key > after)
    return [
        WorkItem(
            execution_id=row.execution_id,
            run_id=row.run_id,
            attempt=row.attempt,
            queue=row.queue,
            available_at=row.available_at,
            tenant_id=row.tenant_id,
            priority=row.priority,
            lease_owner=row.lease_owner,
        )
        for row in tx.execute(query)
    ]


def deliveries(tx: Connection, after: str | None, limit: int) -> list[Delivery]:
    query = select(_deliveries).order_by(_deliveries.c.delivery_id, _deliveries.c.tenant_id).limit(limit)
    if after is not None:
        query = query.where(_deliveries.c.delivery_id > after)
    return [Delivery(row.delivery_id, row.execution_id, row.body, tenant_id=row.tenant_id) for row in tx.execute(query)]


def changed_items(commits: Sequence[Commit]) -> tuple[list[Row], list[Row]]:
    return net(commits, ended=_settled, begun=_enqueued, key=3)


def _settled(commit: Commit) -> list[Row]:
    return [(commit.tenant_id, commit.head.execution_id, run_id) for run_id in commit.settle]


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
            0,
        )
        for item in commit.enqueue
    ]


def changed_deliveries(commits: Sequence[Commit]) -> tuple[list[Row], list[Row]]:
    return net(commits, ended=_delivered, begun=_sent, key=2)


def _delivered(commit: Commit) -> list[Row]:
    return [(commit.tenant_id, commit.delivered)] if commit.delivered is not None else []


def _sent(commit: Commit) -> list[Row]:
    return [(commit.tenant_id, sent.delivery_id, sent.execution_id, sent.body) for sent in commit.send]
