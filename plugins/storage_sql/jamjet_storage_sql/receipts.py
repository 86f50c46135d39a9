"""Receipts: what a request with an idempotency key led to."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, delete, select

from jamjet_kernel import Commit, KeyTaken, Receipt

from . import schema
from .bulk import Row, insert_new
from .transactions import Transactions

_receipts = schema.receipts

INSERT = insert_new(_receipts)


class SqlReceipts:
    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions

    async def get(self, tenant_id: str, key: str) -> Receipt | None:
        return await self._transactions.read(get, tenant_id, key)

    async def forget(self, before: int) -> int:
        return await self._transactions.write(forget, before)


def get(tx: Connection, tenant_id: str, key: str) -> Receipt | None:
    query = select(_receipts).where(_receipts.c.tenant_id == tenant_id, _receipts.c.key == key)
    row = tx.execute(query).first()
    return Receipt(row.key, row.fingerprint, row.result, row.created_at) if row else None


def forget(tx: Connection, before: int) -> int:
    return tx.execute(delete(_receipts).where(_receipts.c.created_at < before)).rowcount


def add(tx: Connection, tenant_id: str, receipt: Receipt) -> None:
    if not INSERT.run(tx, [_row(tenant_id, receipt)]):
        raise key_taken(receipt)


def key_taken(receipt: Receipt) -> KeyTaken:
    return KeyTaken(f"another request with the idempotency key {receipt.key!r} was faster")


def committed(commits: Sequence[Commit]) -> list[Row]:
    return [_row(commit.tenant_id, commit.receipt) for commit in commits if commit.receipt]


def _row(tenant_id: str, receipt: Receipt) -> Row:
    return (tenant_id, receipt.key, receipt.fingerprint, receipt.result, receipt.created_at)
