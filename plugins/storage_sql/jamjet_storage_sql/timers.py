"""Timers: when an execution gets a `TimerFired`."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, select

from jamjet_kernel import Commit, Timer

from . import schema
from .bulk import Row, delete_keys, net, upsert
from .transactions import Transactions

_timers = schema.timers

SET, CANCEL = upsert(_timers), delete_keys(_timers)


class SqlTimers:
    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions

    async def due(self, before: int, limit: int = 1000) -> list[Timer]:
        return await self._transactions.read(due, before, limit)


def due(tx: Connection, before: int, limit: int) -> list[Timer]:
    c = _timers.c
    query = select(_timers).where(c.fire_at <= before)
    earliest = query.order_by(c.fire_at, c.tenant_id, c.execution_id, c.timer_id).limit(limit)
    return [
        Timer(row.execution_id, row.timer_id, row.fire_at, node_id=row.node_id, tenant_id=row.tenant_id)
        for row in tx.execute(earliest)
    ]


def changed(commits: Sequence[Commit]) -> tuple[list[Row], list[Row]]:
    return net(commits, ended=_cancelled, begun=_set, key=3)


def _cancelled(commit: Commit) -> list[Row]:
    return [(commit.tenant_id, commit.head.execution_id, timer_id) for timer_id in commit.cancel_timers]


def _set(commit: Commit) -> list[Row]:
    return [
        (commit.tenant_id, timer.execution_id, timer.timer_id, timer.fire_at, timer.node_id)
        for timer in commit.set_timers
    ]
