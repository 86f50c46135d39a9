"""Audit: a chain of records per tenant, written in the transaction of what it tells.

Many processes cannot fork a chain: whoever appends holds the row of its end until the transaction is over, and moves
it only from where it was read. So it comes last in a transaction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec.structs import astuple, replace
from sqlalchemy import Connection, Select, column, delete, func, select, update

from jamjet_kernel import AuditRecord, Commit, SealedRecord
from jamjet_kernel import chain as audit_chain

from . import schema
from .bulk import Bulk, Row, given, insert, insert_new
from .transactions import Transactions, signer
from .wire import Answer, Request, wire_of

_audit, _chains = schema.audit, schema.audit_chains


class SqlAudit:
    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions

    def sign_with(self, sign: audit_chain.Sign) -> None:
        self._transactions.signer.sign = sign

    async def append(self, tenant_id: str, records: Sequence[AuditRecord]) -> None:
        await self._transactions.write(append, tenant_id, records)

    async def page(
        self,
        tenant_id: str,
        *,
        execution_id: str | None = None,
        actor_id: str | None = None,
        event_type: str | None = None,
        since: int | None = None,
        until: int | None = None,
        limit: int = 50,
        offset: int = 0,
        before: int | None = None,
    ) -> tuple[list[SealedRecord], int]:
        named = {"execution_id": execution_id, "actor_id": actor_id, "event_type": event_type}
        matching = _matching(tenant_id, named, since, until)
        return await self._transactions.read(page, matching, limit, offset, before)

    async def chain(self, tenant_id: str, after: int = 0, limit: int = 1000) -> list[SealedRecord]:
        return await self._transactions.read(chain, tenant_id, after, limit)

    async def end(self, tenant_id: str) -> audit_chain.ChainEnd | None:
        return await self._transactions.read(end, tenant_id)

    async def forget(
        self, tenant_id: str, before: int, told: AuditRecord, *, workflow: tuple[str, str] | None = None
    ) -> int:
        if workflow is None:
            return await self._transactions.write(forget, tenant_id, before, told)
        return await self._transactions.write(forget_of, tenant_id, workflow, before, told)


# Appending

Told = Mapping[str, Sequence[AuditRecord]]
"""What is to be appended to the chain of each tenant."""


def append(tx: Connection, tenant_id: str, records: Sequence[AuditRecord]) -> None:
    """The last statement of a transaction: what comes after it holds up every other writer of the tenant."""
    if records:
        append_told(tx, {tenant_id: records})


def append_told(tx: Connection, told: Told) -> None:
    [held] = wire_of(tx).exchange(tx, [hold(told)])
    append_held(tx, told, held)


def told_by(commits: Sequence[Commit]) -> Told:
    """Each tenant's records in the order of the commits."""
    told: dict[str, list[AuditRecord]] = {}
    for commit in commits:
        if commit.audit:
            told.setdefault(commit.tenant_id, []).extend(commit.audit)
    return told


def hold(told: Told) -> Request:
    """Answers the ends of the chains that there are, nobody else's until the transaction is over."""
    return _HOLD, _names(told)


def append_held(tx: Connection, told: Told, held: Answer) -> None:
    """To the ends that `hold` has answered. The records go with the COMMIT: their numbers are keys, so that a chain
    that somebody moved without holding it fails the transaction."""
    if len(held.rows) < len(told):
        held = _begun(tx, told)
    rows: list[Row] = []
    moved: list[Row] = []
    sign = signer(tx).sign
    for tenant_id, expected, previous in held.rows:
        sequence = expected
        for record in told[tenant_id]:
            sequence += 1
            digest = audit_chain.digest_of(tenant_id, sequence, previous, record)
            rows.append((tenant_id, sequence, *astuple(record), previous, digest, None))
            previous = digest
        signature = sign(audit_chain.signed_bytes(previous))
        rows[-1] = (*rows[-1][:-1], signature)
        moved.append((tenant_id, expected, sequence, previous, signature))
    wire_of(tx).post(tx, [(_INSERT, rows), (_MOVE, moved)])


def _begun(tx: Connection, told: Told) -> Answer:
    """As `hold`, once each of the chains is there."""
    new = [(tenant_id, 0, audit_chain.BEGINNING, b"", 1) for (tenant_id,) in _names(told)]
    _, held = wire_of(tx).exchange(tx, [(_BEGIN, new), hold(told)])
    return held


def _names(told: Told) -> list[Row]:
    """In an order, so that two writers never wait for each other."""
    return [(tenant_id,) for tenant_id in sorted(told)]


_INSERT = insert(_audit)
_BEGIN = insert_new(_chains)
# SQLite compiles FOR UPDATE away; there the single writer does the locking.
_HOLD = Bulk(
    ["tenant_id"],
    lambda _: (
        select(_chains.c.tenant_id, _chains.c.sequence, _chains.c.digest)
        .where(_chains.c.tenant_id.in_(given([_chains.c.tenant_id])))
        .order_by(_chains.c.tenant_id)
        .with_for_update()
    ),
)
_MOVED = (
    _chains.c.tenant_id,
    column("expected", _chains.c.sequence.type),
    _chains.c.sequence,
    _chains.c.digest,
    _chains.c.signature,
)
_moved = given(_MOVED).subquery("moved")
_MOVE = Bulk(
    [str(c.key) for c in _MOVED],
    lambda _: (
        update(_chains)
        .where(_chains.c.tenant_id == _moved.c.tenant_id, _chains.c.sequence == _moved.c.expected)
        .values(sequence=_moved.c.sequence, digest=_moved.c.digest, signature=_moved.c.signature)
    ),
)


# Reading


def page(
    tx: Connection, matching: Select[Any], limit: int, offset: int, before: int | None
) -> tuple[list[SealedRecord], int]:
    total = tx.execute(select(func.count()).select_from(matching.subquery())).scalar_one()
    if before is not None:
        matching = matching.where(_audit.c.sequence < before)
    newest = matching.order_by(_audit.c.sequence.desc()).limit(limit).offset(offset)
    return [_sealed(*row) for row in tx.execute(newest)], total


def _matching(tenant_id: str, named: Mapping[str, str | None], since: int | None, until: int | None) -> Select[Any]:
    query = select(_audit).where(_audit.c.tenant_id == tenant_id, _audit.c.event_type != _EMPTIED["event_type"])
    for name, value in named.items():
        if value is not None:
            query = query.where(_audit.c[name] == value)
    if since is not None:
        query = query.where(_audit.c.created_at >= since)
    return query if until is None else query.where(_audit.c.created_at < until)


def chain(tx: Connection, tenant_id: str, after: int, limit: int) -> list[SealedRecord]:
    query = select(_audit).where(_audit.c.tenant_id == tenant_id, _audit.c.sequence > after)
    return [_sealed(*row) for row in tx.execute(query.order_by(_audit.c.sequence).limit(limit))]


def end(tx: Connection, tenant_id: str) -> audit_chain.ChainEnd | None:
    row = tx.execute(select(_chains).where(_chains.c.tenant_id == tenant_id)).first()
    return audit_chain.ChainEnd(row.sequence, row.digest, row.signature, row.first_sequence) if row else None


def _sealed(tenant_id: str, sequence: int, *fields: Any) -> SealedRecord:
    """From a row, in the order of the table's columns. SQLite stores values of any type in any of them: what is of
    another one was not written by us, and becomes a value whose digest is another."""
    audit_id, event_type, actor_id, created_at, execution_id, resource, request_id, address, *rest = fields
    data, previous, digest, signature = rest
    told = AuditRecord(
        audit_id,
        event_type,
        actor_id,
        created_at if isinstance(created_at, int) else 0,
        execution_id,
        resource,
        request_id,
        address,
        _bytes(data),
    )
    emptied = told.event_type == _EMPTIED["event_type"]
    signed = None if signature is None else _bytes(signature)
    return SealedRecord(sequence, None if emptied else told, _bytes(previous), _bytes(digest), signed)


def _bytes(value: object) -> bytes:
    return value if isinstance(value, bytes) else b""


# Retention


def forget(tx: Connection, tenant_id: str, before: int, told: AuditRecord) -> int:
    c = _audit.c
    _begun(tx, {tenant_id: [told]})
    kept = select(func.min(c.sequence)).where(c.tenant_id == tenant_id, c.created_at >= before)
    first = tx.execute(kept).scalar()
    stored = end(tx, tenant_id)
    assert stored is not None
    first = stored.sequence + 1 if first is None else first
    if first <= stored.first_sequence:
        return 0
    previous = tx.execute(select(c.digest).where(c.tenant_id == tenant_id, c.sequence == first - 1)).scalar_one()
    append(tx, tenant_id, [replace(told, data=msgspec.json.encode(audit_chain.Forgotten(first, previous.hex())))])
    tx.execute(update(_chains).where(_chains.c.tenant_id == tenant_id).values(first_sequence=first))
    return tx.execute(delete(_audit).where(c.tenant_id == tenant_id, c.sequence < first)).rowcount


_EMPTIED = {
    "audit_id": "",
    "event_type": "",
    "actor_id": "",
    "created_at": 0,
    "execution_id": None,
    "resource": None,
    "request_id": None,
    "address": None,
    "data": b"",
}
"""What is left of a record that was removed from the middle, beside its place in the chain."""

_AT_ONCE = 5000


def forget_of(tx: Connection, tenant_id: str, workflow: tuple[str, str], before: int, told: AuditRecord) -> int:
    c, of = _audit.c, schema.executions.c
    query = (
        select(c.sequence)
        .join(schema.executions, (of.tenant_id == c.tenant_id) & (of.execution_id == c.execution_id))
        .where(c.tenant_id == tenant_id, c.created_at < before)
        .where(of.workflow_id == workflow[0], of.workflow_version == workflow[1], of.created_at < before)
        .order_by(c.sequence)
        .limit(_AT_ONCE)
    )
    found = list(tx.execute(query).scalars())
    if not found:
        return 0
    runs = tuple(audit_chain.ranges(found))
    append(tx, tenant_id, [replace(told, data=msgspec.json.encode(audit_chain.Forgotten(ranges=runs)))])
    for first, last in runs:
        span = c.sequence.between(first, last)
        tx.execute(update(_audit).where(c.tenant_id == tenant_id, span).values(_EMPTIED))
    return len(found)
