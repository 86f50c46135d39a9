"""The first tables: executions, and what they are about."""

from __future__ import annotations

from alembic import op
from sqlalchemy import BigInteger, Column, Integer, LargeBinary, Text

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "executions",
        _key("tenant_id"),
        _key("execution_id"),
        Column("workflow_id", Text, nullable=False),
        Column("workflow_version", Text, nullable=False),
        Column("status", Text, nullable=False),
        Column("sequence", BigInteger, nullable=False),
        Column("created_at", BigInteger, nullable=False),
        Column("completed_at", BigInteger),
        Column("parent_execution_id", Text),
    )
    op.create_index("executions_by_time", "executions", ["tenant_id", "created_at", "execution_id"])
    op.create_index("executions_by_status", "executions", ["tenant_id", "status", "created_at", "execution_id"])
    op.create_index("executions_by_workflow", "executions", ["tenant_id", "workflow_id", "created_at", "execution_id"])
    op.create_table(
        "events",
        _key("tenant_id"),
        _key("execution_id"),
        Column("sequence", BigInteger, primary_key=True),
        Column("body", LargeBinary, nullable=False),
    )
    op.create_table(
        "snapshots",
        _key("tenant_id"),
        _key("execution_id"),
        Column("sequence", BigInteger, primary_key=True),
        Column("body", LargeBinary, nullable=False),
    )
    op.create_table(
        "workflows",
        _key("tenant_id"),
        _key("workflow_id"),
        _key("version"),
        Column("ir", LargeBinary, nullable=False),
        Column("created_at", BigInteger, nullable=False),
    )
    op.create_table(
        "work_items",
        _key("tenant_id"),
        _key("execution_id"),
        _key("run_id"),
        Column("attempt", Integer, nullable=False),
        Column("queue", Text, nullable=False),
        Column("priority", Integer, nullable=False),
        Column("available_at", BigInteger, nullable=False),
        Column("lease_owner", Text),
        Column("lease_expires_at", BigInteger),
        Column("fence", BigInteger, nullable=False, server_default="0"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "approvals",
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
    op.create_table(
        "timers",
        _key("tenant_id"),
        _key("execution_id"),
        _key("timer_id"),
        Column("fire_at", BigInteger, nullable=False),
        Column("node_id", Text),
        sqlite_with_rowid=False,
    )
    op.create_index("timers_by_time", "timers", ["fire_at"])
    op.create_table(
        "deliveries",
        _key("tenant_id"),
        _key("delivery_id"),
        Column("execution_id", Text, nullable=False),
        Column("body", LargeBinary, nullable=False),
    )
    op.create_index("deliveries_by_id", "deliveries", ["delivery_id"])
    op.create_table(
        "receipts",
        _key("tenant_id"),
        _key("key"),
        Column("fingerprint", Text, nullable=False),
        Column("result", Text, nullable=False),
        Column("created_at", BigInteger, nullable=False),
    )
    op.create_index("receipts_by_time", "receipts", ["created_at"])


def _key(name: str) -> Column[str]:
    return Column(name, Text, primary_key=True)
