"""Timers: when an execution gets a `TimerFired`."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, ScalarSelect, select, update

from jamjet_kernel import Commit, Timer

from . import schema
from .bulk import Row, delete_keys, lease, net, upsert
from .transactions import Transactions

_timers = schema.timers

SET, CANCEL = upsert(_timers), delete_keys(_timers)


class SqlTimers:
    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions

    async def claim(self, worker_id: str, before: int, limit: int = 1000) -> list[Timer]:
        return await self._transactions.write(claim, worker_id, before, limit)

    async def leased_to(self, worker_id: str) -> list[Timer]:
        return await self._transactions.read(leased_to, worker_id)


def claim(tx: Connection, worker_id: str, before: int, limit: int) -> list[Timer]:
    c = _timers.c
    free = select(*_timers.primary_key).where(c.lease_owner.is_(None), c.fire_at <= before)
    rows = tx.execute(free.order_by(c.fire_at).limit(limit).with_for_update(skip_locked=True))
    claimed = [Timer(*row) for row in _LEASE.fetch(tx, [(*row, worker_id) for row in rows])]
    return sorted(claimed, key=lambda timer: timer.fire_at)


_TIMER = tuple(_timers.c[name] for name in Timer.__dataclass_fields__)
_LEASE = lease(_timers, _TIMER)


def leased_to(tx: Connection, worker_id: str) -> list[Timer]:
    return [Timer(*row) for row in tx.execute(select(*_TIMER).where(_timers.c.lease_owner == worker_id))]


def free_of(tx: Connection, process: str) -> None:
    tx.execute(update(_timers).where(_timers.c.lease_owner == process).values(lease_owner=None))


def free_orphans(tx: Connection, alive: ScalarSelect[str]) -> None:
    owner = _timers.c.lease_owner
    tx.execute(update(_timers).where(owner.isnot(None), owner.not_in(alive)).values(lease_owner=None))


def changed(commits: Sequence[Commit]) -> tuple[list[Row], list[Row]]:
    return net(commits, ended=_cancelled, begun=_set, key=3)


def _cancelled(commit: Commit) -> list[Row]:
    return [(commit.tenant_id, commit.head.execution_id, timer_id) for timer_id in commit.cancel_timers]


def _set(commit: Commit) -> list[Row]:
    return [
        (commit.tenant_id, timer.execution_id, timer.timer_id, timer.fire_at, timer.node_id, timer.lease_owner)
        for timer in commit.set_timers
    ]
