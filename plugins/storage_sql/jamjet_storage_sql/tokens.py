"""Tokens: of their plain text only the digest is here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, Row, bindparam, func, select, update

from jamjet_kernel import AuditRecord, Conflict, Receipt, Role, Token

from . import audit, receipts, schema
from .bulk import insert_new
from .transactions import Transactions

_tokens = schema.tokens
_INSERT = insert_new(_tokens)
_USED = (
    update(_tokens)
    .where(_tokens.c.tenant_id == bindparam("of_tenant"), _tokens.c.token_id == bindparam("of_token"))
    .where(func.coalesce(_tokens.c.last_used_at, 0) < bindparam("at"))
    .values(last_used_at=bindparam("at"))
)


class SqlTokens:
    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions

    async def add(
        self, tenant_id: str, token: Token, receipt: Receipt | None = None, audit: Sequence[AuditRecord] = ()
    ) -> None:
        await self._transactions.write(add, tenant_id, token, receipt, audit)

    async def by_digest(self, digest: bytes) -> Token | None:
        return await self._transactions.read(by_digest, digest)

    async def page(self, tenant_id: str, *, limit: int = 50, after: str | None = None) -> list[Token]:
        return await self._transactions.read(page, tenant_id, limit, after)

    async def revoke(self, tenant_id: str, token_id: str, at: int, audit: Sequence[AuditRecord] = ()) -> Token | None:
        return await self._transactions.write(revoke, tenant_id, token_id, at, audit)

    async def used(self, uses: Sequence[tuple[str, str, int]]) -> None:
        if uses:
            await self._transactions.write(used, uses)


def add(tx: Connection, tenant_id: str, token: Token, receipt: Receipt | None, records: Sequence[AuditRecord]) -> None:
    if receipt is not None:
        receipts.add(tx, tenant_id, receipt)
    if not _INSERT.run(tx, [_row(replace(token, tenant_id=tenant_id))]):
        raise Conflict(f"the token {token.token_id} exists already, or another one with its plain text")
    audit.append(tx, tenant_id, records)


def by_digest(tx: Connection, digest: bytes) -> Token | None:
    row = tx.execute(select(_tokens).where(_tokens.c.digest == digest)).first()
    return _token(row) if row else None


def page(tx: Connection, tenant_id: str, limit: int, after: str | None) -> list[Token]:
    query = select(_tokens).where(_tokens.c.tenant_id == tenant_id).order_by(_tokens.c.token_id).limit(limit)
    if after is not None:
        query = query.where(_tokens.c.token_id > after)
    return [_token(row) for row in tx.execute(query)]


def revoke(tx: Connection, tenant_id: str, token_id: str, at: int, records: Sequence[AuditRecord]) -> Token | None:
    is_it = (_tokens.c.tenant_id == tenant_id, _tokens.c.token_id == token_id)
    revoked = update(_tokens).where(*is_it, _tokens.c.revoked_at.is_(None)).values(revoked_at=at)
    changed = tx.execute(revoked).rowcount
    row = tx.execute(select(_tokens).where(*is_it)).first()
    if row is None:
        return None
    if not changed:
        return _token(row)
    audit.append(tx, tenant_id, records)
    return replace(_token(row), revoked_at=None)


def used(tx: Connection, uses: Sequence[tuple[str, str, int]]) -> None:
    # In the order of the key, so that two processes that write the same tokens do not wait for each other in a circle.
    rows = [{"of_tenant": tenant_id, "of_token": token_id, "at": at} for tenant_id, token_id, at in sorted(uses)]
    tx.execute(_USED, rows)


def _row(token: Token) -> tuple[Any, ...]:
    return tuple(getattr(token, name) for name in _tokens.columns.keys())  # noqa: SIM118  # a collection of SQLAlchemy's


def _token(row: Row[Any]) -> Token:
    fields = dict(row._mapping)
    return Token(**{**fields, "role": Role(row.role), "digest": bytes(row.digest)})
