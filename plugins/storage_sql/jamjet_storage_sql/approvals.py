"""Approvals: decisions that a person owes."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, select, tuple_

from jamjet_kernel import Commit, OpenApproval

from . import schema
from .bulk import Row, delete_keys, net, shown, upsert
from .transactions import Transactions

_approvals = schema.approvals

ASK, ANSWERED = upsert(_approvals), delete_keys(_approvals)


class SqlApprovals:
    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions

    async def page(
        self,
        tenant_id: str,
        *,
        execution_id: str | None = None,
        limit: int = 50,
        after: tuple[str, str] | None = None,
    ) -> list[OpenApproval]:
        return await self._transactions.read(page, tenant_id, execution_id, limit, after)


def page(
    tx: Connection, tenant_id: str, execution_id: str | None, limit: int, after: tuple[str, str] | None
) -> list[OpenApproval]:
    key = tuple_(_approvals.c.execution_id, _approvals.c.node_id)
    query = select(_approvals).where(_approvals.c.tenant_id == tenant_id).order_by(*key).limit(limit)
    if execution_id is not None:
        query = query.where(_approvals.c.execution_id == execution_id)
    if after is not None:
        query = query.where(key > after)
    return [
        OpenApproval(
            execution_id=row.execution_id,
            node_id=row.node_id,
            requested_at=row.requested_at,
            workflow_id=row.workflow_id,
            description=row.description,
            expires_at=row.expires_at,
            tool=row.tool,
        )
        for row in tx.execute(query)
    ]


def changed(commits: Sequence[Commit]) -> tuple[list[Row], list[Row]]:
    return net(commits, ended=_answered, begun=_asked, key=3)


def _answered(commit: Commit) -> list[Row]:
    return [(commit.tenant_id, commit.head.execution_id, node_id) for node_id in commit.answered]


def _asked(commit: Commit) -> list[Row]:
    return [
        (
            commit.tenant_id,
            asked.execution_id,
            asked.node_id,
            asked.requested_at,
            asked.workflow_id,
            asked.description and shown(asked.description),
            asked.expires_at,
            asked.tool and shown(asked.tool),
        )
        for asked in commit.ask
    ]
