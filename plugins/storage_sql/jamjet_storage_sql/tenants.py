"""Tenants, and what each of them consumed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, select, update

from jamjet_kernel import DEFAULT_TENANT, AuditRecord, Commit, Conflict, Receipt, Spent, Tenant, TenantStatus

from . import audit, receipts, schema
from .bulk import Bulk, Row, add_up, given, insert_new
from .transactions import Transactions

_tenants, _usage = schema.tenants, schema.usage
_INSERT = insert_new(_tenants)
_BILLION = 1_000_000_000


class SqlTenants:
    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions

    async def add(self, tenant: Tenant, receipt: Receipt | None = None, audit: Sequence[AuditRecord] = ()) -> None:
        await self._transactions.write(add, tenant, receipt, audit)

    async def get(self, tenant_id: str) -> Tenant | None:
        return await self._transactions.read(get, tenant_id)

    async def page(self, *, limit: int = 50, after: str | None = None) -> list[Tenant]:
        return await self._transactions.read(page, limit, after)

    async def change(self, tenant: Tenant, expected: Tenant, audit: Sequence[AuditRecord] = ()) -> bool:
        return await self._transactions.write(change, tenant, expected, audit)

    async def spent(self, tenant_id: str, month: str) -> Spent:
        return await self._transactions.read(spent, tenant_id, month)


def add(tx: Connection, tenant: Tenant, receipt: Receipt | None, records: Sequence[AuditRecord]) -> None:
    if receipt is not None:
        receipts.add(tx, DEFAULT_TENANT, receipt)
    if not _INSERT.run(tx, [tuple(_row(tenant).values())]):
        raise Conflict(f"the tenant {tenant.tenant_id} exists already")
    audit.append(tx, tenant.tenant_id, records)


def get(tx: Connection, tenant_id: str) -> Tenant | None:
    row = tx.execute(select(_tenants).where(_tenants.c.tenant_id == tenant_id)).first()
    return _tenant(row) if row else None


def page(tx: Connection, limit: int, after: str | None) -> list[Tenant]:
    query = select(_tenants).order_by(_tenants.c.tenant_id).limit(limit)
    if after is not None:
        query = query.where(_tenants.c.tenant_id > after)
    return [_tenant(row) for row in tx.execute(query)]


def change(tx: Connection, tenant: Tenant, expected: Tenant, records: Sequence[AuditRecord]) -> bool:
    unchanged = [_tenants.c[name].is_not_distinct_from(value) for name, value in _row(expected).items()]
    if not tx.execute(update(_tenants).where(*unchanged).values(_row(tenant))).rowcount:
        return False
    audit.append(tx, tenant.tenant_id, records)
    return True


# SQLite compiles FOR UPDATE away; there the single writer does the locking.
HOLD = Bulk(
    ["tenant_id"],
    lambda _: (
        select(_tenants.c.tenant_id)
        .where(_tenants.c.tenant_id.in_(given([_tenants.c.tenant_id])))
        .order_by(_tenants.c.tenant_id)
        .with_for_update()
    ),
)
"""Until the transaction is over, nobody else holds one of them."""


def _row(tenant: Tenant) -> dict[str, Any]:
    """In the order of the columns; JSON in one spelling, so that it can be compared."""
    return {
        "tenant_id": tenant.tenant_id,
        "name": tenant.name,
        "status": tenant.status.value,
        "policy": _json(tenant.policy),
        "limits": _json(tenant.limits),
        "created_at": tenant.created_at,
        "updated_at": tenant.updated_at,
    }


def _json(value: Mapping[str, Any]) -> bytes:
    return msgspec.json.encode(value, order="deterministic")


def _tenant(row: Any) -> Tenant:
    return Tenant(
        tenant_id=row.tenant_id,
        name=row.name,
        status=TenantStatus(row.status),
        policy=msgspec.json.decode(row.policy),
        limits=msgspec.json.decode(row.limits),
        created_at=row.created_at,
        updated_at=row.updated_at,
    )


# What was consumed


def spent(tx: Connection, tenant_id: str, month: str) -> Spent:
    query = select(_usage.c.tokens, _usage.c.cost).where(_usage.c.tenant_id == tenant_id, _usage.c.month == month)
    row = tx.execute(query).first()
    return Spent(month, row.tokens, row.cost / _BILLION) if row else Spent(month)


SPEND = add_up(_usage)


def consumed(commits: Sequence[Commit]) -> list[Row]:
    """A row per tenant and month, in an order that two transactions cannot block each other by."""
    tokens: Counter[tuple[str, str]] = Counter()
    cost: Counter[tuple[str, str]] = Counter()
    for commit in commits:
        if commit.spent is not None:
            key = (commit.tenant_id, commit.spent.month)
            tokens[key] += commit.spent.tokens
            cost[key] += round(commit.spent.cost_usd * _BILLION)
    return [(*key, tokens[key], cost[key]) for key in sorted(tokens)]
