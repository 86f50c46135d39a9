"""The tables.

Rules, so that the same SQL runs on one file and on a cluster: `tenant_id` leads every primary key; ids are
made by whoever makes the thing, there are no database sequences; no foreign keys; times are milliseconds in
a BigInteger; the log is append-only and the work table narrow.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    types,
)
from sqlalchemy.dialects import postgresql

SCHEMA_VERSION = 3
"""Stored by the driver; a database with a higher one was made by a newer runtime."""

metadata = MetaData()

# Byte by byte, as SQLite compares. The order of a language takes PostgreSQL longer, and an upgrade of the operating
# system may change it, and so break every index that was built in it.
Text = types.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")

_ROOM: dict[str, Any] = {"postgresql_with": {"fillfactor": 50}}
"""Rows that change often, and never in what an index holds: where the new version fits beside the old one, PostgreSQL
writes to no index. Measured for 1000 heads moved on at once: 12 against 70 ms."""


def _key(name: str) -> Column[str]:
    return Column(name, Text, primary_key=True)


executions = Table(
    "executions",
    metadata,
    _key("tenant_id"),
    _key("execution_id"),
    Column("workflow_id", Text, nullable=False),
    Column("workflow_version", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("completed_at", BigInteger),
    Column("parent_execution_id", Text),
    # Read backwards for "newest first".
    Index("executions_by_time", "tenant_id", "created_at", "execution_id"),
    Index("executions_by_status", "tenant_id", "status", "created_at", "execution_id"),
    Index("executions_by_workflow", "tenant_id", "workflow_id", "created_at", "execution_id"),
    **_ROOM,
)

# With a rowid: measured 201 against 139 thousand events a second without, as bodies are only appended.
events = Table(
    "events",
    metadata,
    _key("tenant_id"),
    _key("execution_id"),
    Column("sequence", BigInteger, primary_key=True),
    Column("body", LargeBinary, nullable=False),
)

snapshots = Table(
    "snapshots",
    metadata,
    _key("tenant_id"),
    _key("execution_id"),
    Column("sequence", BigInteger, primary_key=True),
    Column("body", LargeBinary, nullable=False),
)

workflows = Table(
    "workflows",
    metadata,
    _key("tenant_id"),
    _key("workflow_id"),
    _key("version"),
    Column("ir", LargeBinary, nullable=False),
    Column("created_at", BigInteger, nullable=False),
)

work_items = Table(
    "work_items",
    metadata,
    _key("tenant_id"),
    _key("execution_id"),
    _key("run_id"),
    Column("attempt", Integer, nullable=False),
    Column("queue", Text, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("available_at", BigInteger, nullable=False),
    Column("lease_owner", Text),
    # Of a remote worker's lease, by the database's clock. NULL: the item hangs on the lease of its owner, a process.
    Column("lease_expires_at", BigInteger),
    Column("fence", BigInteger, nullable=False, server_default="0"),
    Column("losses", Integer, nullable=False, server_default="0"),
    Column("concurrency_key", Text),
    Column("concurrency_limit", Integer),
    # 1: it was claimed under a limit of its queue.
    Column("counts", Integer, nullable=False, server_default="0"),
    sqlite_with_rowid=False,
)


def _index(name: str, *columns: ColumnElement[Any], where: ColumnElement[bool]) -> Index:
    return Index(name, *columns, postgresql_where=where, sqlite_where=where)


_c = work_items.c
_free, _keyless = _c.lease_owner.is_(None), _c.concurrency_key.is_(None)
_leased, _keyed = _c.lease_owner.isnot(None), _c.concurrency_key.isnot(None)
# In the order of a claim. What is written already leased, as most work is, enters none of these: and what has a
# concurrency key only the third, so that the items of a key with no room stand in nobody's way. Every attempt is
# greater than 0, and only who claims of all tenants says so: else PostgreSQL, where it knows nothing of a tenant, would
# look for its items among everybody's.
_by_urgency = (_c.queue, _c.priority.desc(), _c.available_at)
_index("work_items_to_claim", *_by_urgency, where=_free & _keyless & (_c.attempt > 0))
_index("work_items_to_claim_by_tenant", _c.tenant_id, *_by_urgency, where=_free & _keyless)
_index("work_items_to_claim_by_key", _c.tenant_id, _c.concurrency_key, *_by_urgency, where=_free & _keyed)
_index("work_items_by_lease", _c.lease_expires_at, where=_c.lease_expires_at.isnot(None))
_index("work_items_at_work_by_key", _c.tenant_id, _c.concurrency_key, where=_leased & _keyed)
_index("work_items_at_work_by_queue", _c.queue, where=_leased & (_c.counts > 0))

# See concurrency.py.
concurrency = Table(
    "concurrency",
    metadata,
    _key("tenant_id"),
    _key("key"),
    _key("queue"),
    # Of the first that waits, or higher.
    Column("priority", Integer, nullable=False),
    Column("at_once", Integer, nullable=False),
    # When to look whether an item can be leased; NULL: not before one that is at work ends.
    Column("open_at", BigInteger),
    sqlite_with_rowid=False,
)
_c = concurrency.c
_by_urgency = (_c.queue, _c.priority.desc(), _c.open_at)
_index("concurrency_to_claim", *_by_urgency, where=_c.open_at.isnot(None) & (_c.at_once > 0))
_index("concurrency_to_claim_by_tenant", _c.tenant_id, *_by_urgency, where=_c.open_at.isnot(None))

dead_letters = Table(
    "dead_letters",
    metadata,
    _key("tenant_id"),
    _key("execution_id"),
    _key("run_id"),
    Column("queue", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("error", Text, nullable=False),
    Column("error_class", Text, nullable=False),
    Column("failed_at", BigInteger, nullable=False),
    Column("workflow_id", Text, nullable=False),
    Index("dead_letters_by_queue", "tenant_id", "queue", "execution_id", "run_id"),
    sqlite_with_rowid=False,
)

workers = Table(
    "workers",
    metadata,
    _key("tenant_id"),
    _key("worker_id"),
    Column("kind", Text, nullable=False),
    Column("host", Text, nullable=False),
    Column("pid", BigInteger, nullable=False),
    Column("version", Text, nullable=False),
    Column("started_at", BigInteger, nullable=False),
    Column("details", LargeBinary, nullable=False),
    # By the database's clock.
    Column("last_seen", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    # Group commits that this process made: tells whether one whose answer was lost is true.
    Column("batch", BigInteger, nullable=False, server_default="0"),
    sqlite_with_rowid=False,
    **_ROOM,
)

approvals = Table(
    "approvals",
    metadata,
    _key("tenant_id"),
    _key("execution_id"),
    _key("node_id"),
    Column("requested_at", BigInteger, nullable=False),
    Column("workflow_id", Text, nullable=False),
    Column("description", Text),
    Column("expires_at", BigInteger),
    Column("tool", Text),
    sqlite_with_rowid=False,
)

timers = Table(
    "timers",
    metadata,
    _key("tenant_id"),
    _key("execution_id"),
    _key("timer_id"),
    Column("fire_at", BigInteger, nullable=False),
    Column("node_id", Text),
    Column("lease_owner", Text),
    sqlite_with_rowid=False,
)
_index("timers_to_claim", timers.c.fire_at, where=timers.c.lease_owner.is_(None))

deliveries = Table(
    "deliveries",
    metadata,
    _key("tenant_id"),
    _key("delivery_id"),
    Column("execution_id", Text, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("lease_owner", Text),
)
_index("deliveries_to_claim", deliveries.c.delivery_id, where=deliveries.c.lease_owner.is_(None))

receipts = Table(
    "receipts",
    metadata,
    _key("tenant_id"),
    _key("key"),
    Column("fingerprint", Text, nullable=False),
    Column("result", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Index("receipts_by_time", "created_at"),
)

tenants = Table(
    "tenants",
    metadata,
    _key("tenant_id"),
    Column("name", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("policy", LargeBinary, nullable=False),
    Column("limits", LargeBinary, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger),
)

# What nodes consumed, per calendar month (UTC).
usage = Table(
    "usage",
    metadata,
    _key("tenant_id"),
    _key("month"),
    Column("tokens", BigInteger, nullable=False),
    # In billionths of a dollar: whole numbers add up exactly.
    Column("cost", BigInteger, nullable=False),
    sqlite_with_rowid=False,
    **_ROOM,
)

tokens = Table(
    "tokens",
    metadata,
    _key("tenant_id"),
    _key("token_id"),
    Column("name", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("digest", LargeBinary, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("created_by", Text, nullable=False),
    Column("expires_at", BigInteger),
    Column("revoked_at", BigInteger),
    Column("last_used_at", BigInteger),
    # Whose a token is, is found by it.
    Index("tokens_by_digest", "digest", unique=True),
)

agents = Table(
    "agents",
    metadata,
    _key("tenant_id"),
    _key("agent_id"),
    Column("uri", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("description", Text),
    Column("version", Text),
    Column("status", Text, nullable=False),
    Column("card", LargeBinary, nullable=False),
    Column("labels", LargeBinary, nullable=False),
    Column("discovered_from", Text),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger),
    Column("last_seen_at", BigInteger),
)

# The labels of the agents, to find them by: `kind` is skill, protocol or word.
agent_labels = Table(
    "agent_labels",
    metadata,
    _key("tenant_id"),
    _key("kind"),
    _key("label"),
    _key("agent_id"),
    Index("agent_labels_by_agent", "tenant_id", "agent_id"),
    sqlite_with_rowid=False,
)

audit = Table(
    "audit",
    metadata,
    _key("tenant_id"),
    Column("sequence", BigInteger, primary_key=True),
    Column("audit_id", Text, nullable=False),
    Column("event_type", Text, nullable=False),
    Column("actor_id", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("execution_id", Text),
    Column("resource", Text),
    Column("request_id", Text),
    Column("address", Text),
    Column("data", LargeBinary, nullable=False),
    Column("previous", LargeBinary, nullable=False),
    Column("digest", LargeBinary, nullable=False),
    Column("signature", LargeBinary),
    Index("audit_by_execution", "tenant_id", "execution_id", "sequence"),
)

# The end of each chain, and where it begins once older records were removed.
audit_chains = Table(
    "audit_chains",
    metadata,
    _key("tenant_id"),
    Column("sequence", BigInteger, nullable=False),
    Column("digest", LargeBinary, nullable=False),
    Column("signature", LargeBinary, nullable=False),
    Column("first_sequence", BigInteger, nullable=False),
    **_ROOM,
)
