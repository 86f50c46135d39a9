"""Who may do what, and who did it: tenants, tokens, agents, the audit log."""

from __future__ import annotations

from alembic import op
from sqlalchemy import BigInteger, Column, LargeBinary, Text

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "tenants",
        _key("tenant_id"),
        Column("name", Text, nullable=False),
        Column("status", Text, nullable=False),
        Column("policy", LargeBinary, nullable=False),
        Column("limits", LargeBinary, nullable=False),
        Column("created_at", BigInteger, nullable=False),
        Column("updated_at", BigInteger),
    )
    op.create_table(
        "usage",
        _key("tenant_id"),
        _key("month"),
        Column("tokens", BigInteger, nullable=False),
        Column("cost", BigInteger, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "tokens",
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
    )
    op.create_index("tokens_by_digest", "tokens", ["digest"], unique=True)
    op.create_table(
        "agents",
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
    op.create_table(
        "agent_labels",
        _key("tenant_id"),
        _key("kind"),
        _key("label"),
        _key("agent_id"),
        sqlite_with_rowid=False,
    )
    op.create_index("agent_labels_by_agent", "agent_labels", ["tenant_id", "agent_id"])
    op.create_table(
        "audit",
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
    )
    op.create_index("audit_by_execution", "audit", ["tenant_id", "execution_id", "sequence"])
    op.create_table(
        "audit_chains",
        _key("tenant_id"),
        Column("sequence", BigInteger, nullable=False),
        Column("digest", LargeBinary, nullable=False),
        Column("signature", LargeBinary, nullable=False),
        Column("first_sequence", BigInteger, nullable=False),
    )


def _key(name: str) -> Column[str]:
    return Column(name, Text, primary_key=True)
