"""Workers: who is alive, and what becomes of the work of those who are not."""

from __future__ import annotations

from typing import Any

import msgspec
from sqlalchemy import Connection, Row, delete, func, or_, select, tuple_, update

from jamjet_kernel import Worker

from . import schema, timers, work
from .batches import Batches, number
from .bulk import insert_new
from .clock import milliseconds
from .transactions import Transactions

_workers = schema.workers

PROCESS = "runtime"
"""The kind of those whose one lease all that they hold hangs on."""


class SqlWorkers:
    """`batches` are those that a process makes who joins; None where there are no others who could take it for dead."""

    def __init__(self, transactions: Transactions, batches: Batches | None) -> None:
        self._transactions = transactions
        self._batches = batches

    async def join(self, worker: Worker, lease_ms: int) -> None:
        made = await self._transactions.write(join, worker, lease_ms)
        if self._batches is not None:
            self._batches.begin(worker, made)

    async def see(self, worker: Worker, lease_ms: int) -> None:
        await self._transactions.write(see, worker, lease_ms)

    async def heartbeat(self, worker: Worker, lease_ms: int) -> bool:
        return await self._transactions.write(heartbeat, worker, lease_ms)

    async def leave(self, worker: Worker) -> None:
        await self._transactions.write(leave, worker)

    async def bury(self, *, all_but: str | None = None) -> list[str]:
        return await self._transactions.write(bury, all_but)

    async def next_end(self) -> int | None:
        return await self._transactions.read(next_end)

    async def page(self, tenant_id: str) -> list[Worker]:
        return await self._transactions.read(page, tenant_id)


def join(tx: Connection, worker: Worker, lease_ms: int) -> int:
    """Answers how many batches it has made."""
    see(tx, worker, lease_ms)
    free_orphans(tx)
    return number(tx, worker.tenant_id, worker.worker_id) or 0


def see(tx: Connection, worker: Worker, lease_ms: int) -> None:
    """Adds it where it is not there; its lease counts from now."""
    if not heartbeat(tx, worker, lease_ms):
        _ADD.run(tx, [_row(worker)])
        heartbeat(tx, worker, lease_ms)


_ADD = insert_new(_workers)


def _row(worker: Worker) -> tuple[Any, ...]:
    fixed = (worker.kind, worker.host, worker.pid, worker.version, worker.started_at)
    return (worker.tenant_id, worker.worker_id, *fixed, msgspec.json.encode(worker.details), 0, 0, 0)


def heartbeat(tx: Connection, worker: Worker, lease_ms: int) -> bool:
    now = milliseconds()
    changes = {"last_seen": now, "expires_at": now + lease_ms, "details": msgspec.json.encode(worker.details)}
    return bool(tx.execute(update(_workers).where(*_is(worker)).values(changes)).rowcount)


def leave(tx: Connection, worker: Worker) -> None:
    # First, and by the key: a commit in this process's name that is under way ends before, or finds nobody.
    tx.execute(delete(_workers).where(*_is(worker)))
    if worker.kind == PROCESS:
        work.free_of(tx, worker.worker_id)
        timers.free_of(tx, worker.worker_id)
    else:
        work.free_of_remote(tx, worker.tenant_id, worker.worker_id)


def bury(tx: Connection, all_but: str | None) -> list[str]:
    dead = tx.execute(_dead(all_but).with_for_update(skip_locked=True)).all()
    if dead:
        keys = [(row.tenant_id, row.worker_id) for row in dead]
        tx.execute(delete(_workers).where(tuple_(_workers.c.tenant_id, _workers.c.worker_id).in_(keys)))
    processes = [row.worker_id for row in dead if row.kind == PROCESS]
    if processes or all_but is not None:
        free_orphans(tx)
    work.free_expired(tx)
    return processes


def next_end(tx: Connection) -> int | None:
    process = select(func.min(_workers.c.expires_at)).where(_workers.c.kind == PROCESS)
    *ends, now = tx.execute(select(process.scalar_subquery(), work.first_lease(), milliseconds())).one()
    return min((end + 1 - now for end in ends if end is not None), default=None)


def _dead(all_but: str | None) -> Any:
    c = _workers.c
    is_over = c.expires_at < milliseconds()
    if all_but is not None:
        is_over = or_(is_over, (c.kind == PROCESS) & (c.worker_id != all_but))
    return select(c.tenant_id, c.worker_id, c.kind).where(is_over)


def free_orphans(tx: Connection) -> None:
    """What no process holds that is there: whatever became of the one it was leased to."""
    alive = select(_workers.c.worker_id).where(_workers.c.kind == PROCESS).scalar_subquery()
    work.free_orphans(tx, alive)
    timers.free_orphans(tx, alive)


def page(tx: Connection, tenant_id: str) -> list[Worker]:
    c = _workers.c
    seen_by_all = or_(c.kind == PROCESS, c.tenant_id == tenant_id)
    query = select(_workers).where(seen_by_all, c.expires_at >= milliseconds()).order_by(c.worker_id)
    return [_worker(row) for row in tx.execute(query)]


def _worker(row: Row[Any]) -> Worker:
    return Worker(
        worker_id=row.worker_id,
        kind=row.kind,
        host=row.host,
        pid=row.pid,
        version=row.version,
        started_at=row.started_at,
        details=msgspec.json.decode(row.details),
        tenant_id=row.tenant_id,
        last_seen=row.last_seen,
        expires_at=row.expires_at,
    )


def _is(worker: Worker) -> tuple[Any, Any]:
    return _workers.c.tenant_id == worker.tenant_id, _workers.c.worker_id == worker.worker_id
