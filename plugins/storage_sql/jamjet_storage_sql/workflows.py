"""Workflows: registered definitions, immutable under (tenant, workflow_id, version)."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, func, select, tuple_

from jamjet_kernel import AuditRecord, Conflict, LimitReached, Receipt, WorkflowVersion

from . import audit, receipts, schema, tenants
from .bulk import Bulk, given, insert_new
from .transactions import Transactions

_workflows = schema.workflows
_INSERT = insert_new(_workflows)


class SqlWorkflows:
    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions

    async def add(
        self,
        tenant_id: str,
        version: WorkflowVersion,
        receipt: Receipt | None = None,
        audit: Sequence[AuditRecord] = (),
        max_workflows: int | None = None,
    ) -> bool:
        return await self._transactions.write(add, tenant_id, version, receipt, audit, max_workflows)

    async def get(self, tenant_id: str, workflow_id: str, version: str) -> WorkflowVersion | None:
        return await self._transactions.read(get, tenant_id, workflow_id, version)

    async def versions(self, tenant_id: str, workflow_id: str) -> list[tuple[str, int]]:
        return await self._transactions.read(versions, tenant_id, workflow_id)

    async def page(self, tenant_id: str, *, limit: int = 50, after: str | None = None) -> list[tuple[str, str, int]]:
        return await self._transactions.read(page, tenant_id, limit, after)


def add(
    tx: Connection,
    tenant_id: str,
    version: WorkflowVersion,
    receipt: Receipt | None,
    audited: Sequence[AuditRecord],
    max_workflows: int | None,
) -> bool:
    if receipt is not None:
        receipts.add(tx, tenant_id, receipt)
    row = (tenant_id, version.workflow_id, version.version, version.ir, version.created_at)
    if _INSERT.run(tx, [row]):
        if max_workflows is not None:
            _check_count(tx, tenant_id, version.workflow_id, max_workflows)
        audit.append(tx, tenant_id, audited)
        return True
    stored = get(tx, tenant_id, version.workflow_id, version.version)
    if stored is None or stored.ir != version.ir:
        raise Conflict(
            f"workflow {version.workflow_id} {version.version} is registered with other content; "
            "a registered version never changes, give the new content a new one"
        )
    return False


def _check_count(tx: Connection, tenant_id: str, workflow_id: str, limit: int) -> None:
    """A further version of a workflow that is there is no further workflow, however many there are."""
    tenants.HOLD.fetch(tx, [(tenant_id,)])
    c = _workflows.c
    ids = select(c.workflow_id).where(c.tenant_id == tenant_id).distinct().subquery()
    is_new = len(versions(tx, tenant_id, workflow_id)) == 1
    if is_new and tx.execute(select(func.count()).select_from(ids)).scalar_one() > limit:
        raise LimitReached("workflows", limit)


def get(tx: Connection, tenant_id: str, workflow_id: str, version: str) -> WorkflowVersion | None:
    c = _workflows.c
    query = select(c.ir, c.created_at).where(
        c.tenant_id == tenant_id, c.workflow_id == workflow_id, c.version == version
    )
    row = tx.execute(query).first()
    return WorkflowVersion(workflow_id, version, row.ir, row.created_at) if row else None


_WORKFLOW = (_workflows.c.tenant_id, _workflows.c.workflow_id)
_VERSIONS = Bulk(
    [c.name for c in _WORKFLOW],
    lambda _: select(_workflows.c.version, _workflows.c.created_at).where(tuple_(*_WORKFLOW).in_(given(_WORKFLOW))),
)


def versions(tx: Connection, tenant_id: str, workflow_id: str) -> list[tuple[str, int]]:
    return [(version, created_at) for version, created_at in _VERSIONS.fetch(tx, [(tenant_id, workflow_id)])]


def page(tx: Connection, tenant_id: str, limit: int, after: str | None) -> list[tuple[str, str, int]]:
    c = _workflows.c
    ids = select(c.workflow_id).where(c.tenant_id == tenant_id).distinct()
    if after is not None:
        ids = ids.where(c.workflow_id > after)
    listed = ids.order_by(c.workflow_id).limit(limit)
    query = (
        select(c.workflow_id, c.version, c.created_at)
        .where(c.tenant_id == tenant_id, c.workflow_id.in_(listed))
        .order_by(c.workflow_id, c.created_at, c.version)
    )
    return [(row.workflow_id, row.version, row.created_at) for row in tx.execute(query)]
