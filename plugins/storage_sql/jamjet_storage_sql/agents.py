"""Agents: registered ones, and the labels that they are found by."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, Select, delete, select, update

from jamjet_kernel import Agent, AgentStatus, AuditRecord, Receipt

from . import audit, receipts, schema
from .bulk import Row, insert_new
from .transactions import Transactions

_agents, _labels = schema.agents, schema.agent_labels
_INSERT, _LABEL = insert_new(_agents), insert_new(_labels)


class SqlAgents:
    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions

    async def put(
        self,
        tenant_id: str,
        agent: Agent,
        expected: Agent | None,
        receipt: Receipt | None = None,
        audit: Sequence[AuditRecord] = (),
    ) -> bool:
        return await self._transactions.write(put, tenant_id, agent, expected, receipt, audit)

    async def get(self, tenant_id: str, agent_id: str) -> Agent | None:
        return await self._transactions.read(get, tenant_id, agent_id)

    async def page(
        self,
        tenant_id: str,
        *,
        status: AgentStatus | None = None,
        skill: str | None = None,
        protocol: str | None = None,
        words: Sequence[str] = (),
        limit: int = 50,
        after: str | None = None,
    ) -> list[Agent]:
        query = _listed(tenant_id, status, limit, after)
        for kind, label in (("skill", skill), ("protocol", protocol)):
            if label is not None:
                query = query.where(_agents.c.agent_id.in_(_labelled(tenant_id, kind, _labels.c.label == label)))
        for word in words:
            begins = _labels.c.label.startswith(word, autoescape=True)
            query = query.where(_agents.c.agent_id.in_(_labelled(tenant_id, "word", begins)))
        return await self._transactions.read(page, query)

    async def remove(self, tenant_id: str, agent_id: str, audit: Sequence[AuditRecord] = ()) -> bool:
        return await self._transactions.write(remove, tenant_id, agent_id, audit)

    async def seen(self, tenant_id: str, agent_id: str, at: int) -> bool:
        return await self._transactions.write(seen, tenant_id, agent_id, at)


def put(
    tx: Connection,
    tenant_id: str,
    agent: Agent,
    expected: Agent | None,
    receipt: Receipt | None,
    records: Sequence[AuditRecord],
) -> bool:
    stored = _add(tx, tenant_id, agent) if expected is None else _replace(tx, tenant_id, agent, expected)
    if not stored:
        return False
    if expected is None or _kept(expected)["labels"] != _kept(agent)["labels"]:
        _label(tx, tenant_id, agent)
    if receipt is not None:
        receipts.add(tx, tenant_id, receipt)
    audit.append(tx, tenant_id, records)
    return True


def get(tx: Connection, tenant_id: str, agent_id: str) -> Agent | None:
    row = tx.execute(select(_agents).where(*_is(tenant_id, agent_id))).first()
    return _agent(row) if row else None


def page(tx: Connection, query: Select[Any]) -> list[Agent]:
    return [_agent(row) for row in tx.execute(query)]


def remove(tx: Connection, tenant_id: str, agent_id: str, records: Sequence[AuditRecord]) -> bool:
    if not tx.execute(delete(_agents).where(*_is(tenant_id, agent_id))).rowcount:
        return False
    _unlabel(tx, tenant_id, agent_id)
    audit.append(tx, tenant_id, records)
    return True


def seen(tx: Connection, tenant_id: str, agent_id: str, at: int) -> bool:
    return bool(tx.execute(update(_agents).where(*_is(tenant_id, agent_id)).values(last_seen_at=at)).rowcount)


# Rows


def _add(tx: Connection, tenant_id: str, agent: Agent) -> bool:
    kept = {"tenant_id": tenant_id, "last_seen_at": agent.last_seen_at, **_kept(agent)}
    return bool(_INSERT.run(tx, [tuple(kept[column.name] for column in _agents.columns)]))


def _replace(tx: Connection, tenant_id: str, agent: Agent, expected: Agent) -> bool:
    unchanged = (_agents.c[name].is_not_distinct_from(value) for name, value in _kept(expected).items())
    statement = update(_agents).where(_agents.c.tenant_id == tenant_id, *unchanged).values(_kept(agent))
    return bool(tx.execute(statement).rowcount)


def _kept(agent: Agent) -> dict[str, Any]:
    """The columns that `put` compares and writes."""
    labels = {"skill": list(agent.skills), "protocol": list(agent.protocols), "word": list(agent.words)}
    return {
        "agent_id": agent.agent_id,
        "uri": agent.uri,
        "name": agent.name,
        "description": agent.description,
        "version": agent.version,
        "status": str(agent.status),
        "card": agent.card,
        "labels": msgspec.json.encode(labels),
        "discovered_from": agent.discovered_from,
        "created_at": agent.created_at,
        "updated_at": agent.updated_at,
    }


def _agent(row: Any) -> Agent:
    labels = msgspec.json.decode(row.labels)
    return Agent(
        agent_id=row.agent_id,
        uri=row.uri,
        name=row.name,
        created_at=row.created_at,
        card=row.card,
        description=row.description,
        version=row.version,
        status=AgentStatus(row.status),
        skills=tuple(labels["skill"]),
        protocols=tuple(labels["protocol"]),
        words=tuple(labels["word"]),
        discovered_from=row.discovered_from,
        updated_at=row.updated_at,
        last_seen_at=row.last_seen_at,
    )


def _is(tenant_id: str, agent_id: str) -> tuple[Any, Any]:
    return _agents.c.tenant_id == tenant_id, _agents.c.agent_id == agent_id


def _listed(tenant_id: str, status: AgentStatus | None, limit: int, after: str | None) -> Select[Any]:
    query = select(_agents).where(_agents.c.tenant_id == tenant_id).order_by(_agents.c.agent_id).limit(limit)
    if status is not None:
        query = query.where(_agents.c.status == str(status))
    return query if after is None else query.where(_agents.c.agent_id > after)


# Labels


def _label(tx: Connection, tenant_id: str, agent: Agent) -> None:
    _unlabel(tx, tenant_id, agent.agent_id)
    labels: dict[str, Sequence[str]] = {"skill": agent.skills, "protocol": agent.protocols, "word": agent.words}
    rows: list[Row] = [
        (tenant_id, kind, label, agent.agent_id) for kind, given in labels.items() for label in dict.fromkeys(given)
    ]
    _LABEL.run(tx, rows)


def _unlabel(tx: Connection, tenant_id: str, agent_id: str) -> None:
    tx.execute(delete(_labels).where(_labels.c.tenant_id == tenant_id, _labels.c.agent_id == agent_id))


def _labelled(tenant_id: str, kind: str, condition: Any) -> Select[Any]:
    return select(_labels.c.agent_id).where(_labels.c.tenant_id == tenant_id, _labels.c.kind == kind, condition)
