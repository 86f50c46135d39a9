"""Dead letters: runs that failed for good."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, select, tuple_

from jamjet_kernel import Commit, DeadLetter

from . import schema
from .bulk import Row, delete_keys, net, shown, upsert
from .transactions import Transactions

_letters = schema.dead_letters

BURY, RAISE = upsert(_letters), delete_keys(_letters)


class SqlDeadLetters:
    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions

    async def page(
        self, tenant_id: str, *, queue: str | None = None, limit: int = 50, after: tuple[str, str] | None = None
    ) -> list[DeadLetter]:
        return await self._transactions.read(page, tenant_id, queue, limit, after)

    async def get(self, tenant_id: str, execution_id: str, run_id: str) -> DeadLetter | None:
        return await self._transactions.read(get, tenant_id, execution_id, run_id)


def page(
    tx: Connection, tenant_id: str, queue: str | None, limit: int, after: tuple[str, str] | None
) -> list[DeadLetter]:
    key = tuple_(_letters.c.execution_id, _letters.c.run_id)
    query = select(_letters).where(_letters.c.tenant_id == tenant_id).order_by(*key).limit(limit)
    if queue is not None:
        query = query.where(_letters.c.queue == queue)
    if after is not None:
        query = query.where(key > after)
    return [_letter(*row) for row in tx.execute(query)]


def get(tx: Connection, tenant_id: str, execution_id: str, run_id: str) -> DeadLetter | None:
    c = _letters.c
    query = select(_letters).where(c.tenant_id == tenant_id, c.execution_id == execution_id, c.run_id == run_id)
    row = tx.execute(query).first()
    return _letter(*row) if row else None


def _letter(tenant_id: str, *fields: Any) -> DeadLetter:
    """From a row, in the order of the table's columns."""
    return DeadLetter(*fields)


def changed(commits: Sequence[Commit]) -> tuple[list[Row], list[Row]]:
    return net(commits, ended=_raised, begun=_buried, key=3)


def _raised(commit: Commit) -> list[Row]:
    return [(commit.tenant_id, commit.head.execution_id, run_id) for run_id in commit.raised]


def _buried(commit: Commit) -> list[Row]:
    return [
        (
            commit.tenant_id,
            letter.execution_id,
            letter.run_id,
            letter.queue,
            letter.attempts,
            shown(letter.error),
            letter.error_class,
            letter.failed_at,
            letter.workflow_id,
        )
        for letter in commit.buried
    ]
