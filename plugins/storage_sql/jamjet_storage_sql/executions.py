"""Executions: heads, logs and snapshots."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, bindparam, column, func, literal_column, select, tuple_, update

from jamjet_kernel import Commit, Head, Loaded, Recorded, Snapshot, Status

from . import schema
from .bulk import Bulk, Row, given, insert, upsert
from .transactions import Transactions

_executions, _events, _snapshots = schema.executions, schema.events, schema.snapshots


class SqlExecutions:
    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions

    async def load(self, tenant_id: str, execution_id: str, until: int | None = None) -> Loaded | None:
        return await self._transactions.read(load, tenant_id, execution_id, until)

    async def head(self, tenant_id: str, execution_id: str) -> Head | None:
        return await self._transactions.read(head, tenant_id, execution_id)

    async def sequences(self, executions: Sequence[tuple[str, str]]) -> dict[tuple[str, str], int]:
        return await self._transactions.read(sequences, executions)

    async def page(
        self,
        tenant_id: str,
        *,
        status: Status | None = None,
        workflow_id: str | None = None,
        limit: int = 50,
        offset: int = 0,
        before: tuple[int, str] | None = None,
    ) -> list[Head]:
        return await self._transactions.read(page, tenant_id, status, workflow_id, limit, offset, before)

    async def count_open(self, tenant_id: str) -> int:
        return await self._transactions.read(count_open, tenant_id)

    async def events(self, tenant_id: str, execution_id: str, after: int = 0, limit: int = 1000) -> list[Recorded]:
        return await self._transactions.read(events, tenant_id, execution_id, after, limit=limit)


def load(tx: Connection, tenant_id: str, execution_id: str, until: int | None = None) -> Loaded | None:
    found = head(tx, tenant_id, execution_id)
    if found is None:
        return None
    # Bounded by the head, three reads are as one: the log only grows, whatever commits meanwhile.
    end = found.sequence if until is None else min(until, found.sequence)
    snapshot = newest_snapshot(tx, tenant_id, execution_id, end)
    tail = events(tx, tenant_id, execution_id, snapshot.sequence if snapshot else 0, end)
    return Loaded(found, snapshot, tail)


_HEAD = select(_executions).where(
    _executions.c.tenant_id == bindparam("tenant"), _executions.c.execution_id == bindparam("execution")
)


def head(tx: Connection, tenant_id: str, execution_id: str) -> Head | None:
    row = tx.execute(_HEAD, {"tenant": tenant_id, "execution": execution_id}).first()
    return _head(*row) if row else None


_KEY = (_executions.c.tenant_id, _executions.c.execution_id)
_SEQUENCES = Bulk(
    [c.name for c in _KEY], lambda _: select(*_KEY, _executions.c.sequence).where(tuple_(*_KEY).in_(given(_KEY)))
)


def sequences(tx: Connection, keys: Sequence[tuple[str, str]]) -> dict[tuple[str, str], int]:
    return {(tenant_id, execution_id): sequence for tenant_id, execution_id, sequence in _SEQUENCES.fetch(tx, keys)}


_NEWEST_SNAPSHOT = (
    select(_snapshots.c.sequence, _snapshots.c.body)
    .where(
        _snapshots.c.tenant_id == bindparam("tenant"),
        _snapshots.c.execution_id == bindparam("execution"),
        _snapshots.c.sequence <= bindparam("until"),
    )
    .order_by(_snapshots.c.sequence.desc())
    .limit(1)
)


def newest_snapshot(tx: Connection, tenant_id: str, execution_id: str, until: int) -> Snapshot | None:
    row = tx.execute(_NEWEST_SNAPSHOT, {"tenant": tenant_id, "execution": execution_id, "until": until}).first()
    return Snapshot(row.sequence, row.body) if row else None


_OPEN: list[ColumnElement[str]] = [literal_column(f"'{status.value}'") for status in Status if not status.is_terminal]
_TENANT = (_executions.c.tenant_id,)
COUNT_OPEN = Bulk(
    [c.name for c in _TENANT],
    lambda _: (
        select(*_TENANT, func.count())
        .where(_executions.c.tenant_id.in_(given(_TENANT)), _executions.c.status.in_(_OPEN))
        .group_by(*_TENANT)
    ),
)
"""How many executions of each tenant have not ended; nothing where all have."""


def count_open(tx: Connection, tenant_id: str) -> int:
    found = COUNT_OPEN.fetch(tx, [(tenant_id,)])
    return sum(count for _, count in found)


_EVENTS = (
    select(_events.c.sequence, _events.c.body)
    .where(
        _events.c.tenant_id == bindparam("tenant"),
        _events.c.execution_id == bindparam("execution"),
        _events.c.sequence > bindparam("after"),
        _events.c.sequence <= bindparam("until"),
    )
    .order_by(_events.c.sequence)
    .limit(bindparam("limit"))
)
_ALL = 2**62


def events(
    tx: Connection, tenant_id: str, execution_id: str, after: int = 0, until: int = _ALL, limit: int = _ALL
) -> list[Recorded]:
    parameters = {"tenant": tenant_id, "execution": execution_id, "after": after, "until": until, "limit": limit}
    return [Recorded(sequence, body) for sequence, body in tx.execute(_EVENTS, parameters).all()]


def page(
    tx: Connection,
    tenant_id: str,
    status: Status | None,
    workflow_id: str | None,
    limit: int,
    offset: int,
    before: tuple[int, str] | None,
) -> list[Head]:
    by_time = (_executions.c.created_at, _executions.c.execution_id)
    query = select(_executions).where(_executions.c.tenant_id == tenant_id)
    if status is not None:
        query = query.where(_executions.c.status == status.value)
    if workflow_id is not None:
        query = query.where(_executions.c.workflow_id == workflow_id)
    if before is not None:
        query = query.where(tuple_(*by_time) < before)
    newest = query.order_by(*(c.desc() for c in by_time)).limit(limit).offset(offset)
    return [_head(*row) for row in tx.execute(newest).all()]


def _head(tenant_id: str, execution_id: str, workflow_id: str, version: str, status: str, *rest: Any) -> Head:
    """From a row, in the order of the table's columns."""
    return Head(execution_id, workflow_id, version, Status(status), *rest)


# What a batch of commits writes

CREATE = insert(_executions)
RECORD = insert(_events)
SNAPSHOT = upsert(_snapshots)

_MOVED = (
    _executions.c.tenant_id,
    _executions.c.execution_id,
    column("expected", schema.executions.c.sequence.type),
    _executions.c.status,
    _executions.c.sequence,
    _executions.c.completed_at,
)
_moved = given(_MOVED).subquery("moved")
_MOVE = (
    update(_executions)
    .where(
        _executions.c.tenant_id == _moved.c.tenant_id,
        _executions.c.execution_id == _moved.c.execution_id,
        _executions.c.sequence == _moved.c.expected,
    )
    .values(status=_moved.c.status, sequence=_moved.c.sequence, completed_at=_moved.c.completed_at)
)
MOVE = Bulk([str(c.key) for c in _MOVED], lambda _: _MOVE)
"""The compare-and-swap: touches only the rows that still are where they are expected."""


def heads(commits: Sequence[Commit]) -> tuple[list[Row], list[Row]] | None:
    """The rows to create and to move, one per execution. None when a commit does not follow the one before it."""
    chains: dict[Row, tuple[int, Head]] = {}
    for commit in commits:
        key = (commit.tenant_id, commit.head.execution_id)
        chain = chains.get(key)
        if chain and chain[1].sequence != commit.expected:
            return None
        chains[key] = (chain[0] if chain else commit.expected, commit.head)
    created = [_created(key[0], last) for key, (first, last) in chains.items() if first == 0]
    moved = [_moved_to(key[0], first, last) for key, (first, last) in chains.items() if first != 0]
    return created, moved


def _created(tenant_id: str, head: Head) -> Row:
    return (
        tenant_id,
        head.execution_id,
        head.workflow_id,
        head.workflow_version,
        head.status.value,
        head.sequence,
        head.created_at,
        head.completed_at,
        head.parent_execution_id,
    )


def _moved_to(tenant_id: str, expected: int, head: Head) -> Row:
    return (tenant_id, head.execution_id, expected, head.status.value, head.sequence, head.completed_at)


def recorded(commits: Sequence[Commit]) -> list[Row]:
    return [
        (commit.tenant_id, commit.head.execution_id, event.sequence, event.body)
        for commit in commits
        for event in commit.events
    ]


def snapshots(commits: Sequence[Commit]) -> list[Row]:
    """All of them are kept: a load until an earlier sequence starts from an earlier one."""
    taken = {
        (commit.tenant_id, commit.head.execution_id, commit.snapshot.sequence): commit.snapshot.body
        for commit in commits
        if commit.snapshot
    }
    return [(*key, body) for key, body in taken.items()]
