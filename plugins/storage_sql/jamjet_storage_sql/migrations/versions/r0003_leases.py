"""Work for many: leases, fences, claims, workers, dead letters."""

from __future__ import annotations

from typing import Any

from alembic import op
from sqlalchemy import BigInteger, Column, Integer, LargeBinary, Text, text

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    _add_columns()
    _free_all()
    _index_claims()
    op.create_table(
        "concurrency",
        _key("tenant_id"),
        _key("key"),
        _key("queue"),
        Column("priority", Integer, nullable=False),
        Column("at_once", Integer, nullable=False),
        Column("open_at", BigInteger),
        sqlite_with_rowid=False,
    )
    _index_keys()
    op.create_table(
        "dead_letters",
        _key("tenant_id"),
        _key("execution_id"),
        _key("run_id"),
        Column("queue", Text, nullable=False),
        Column("attempts", Integer, nullable=False),
        Column("error", Text, nullable=False),
        Column("error_class", Text, nullable=False),
        Column("failed_at", BigInteger, nullable=False),
        Column("workflow_id", Text, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_index("dead_letters_by_queue", "dead_letters", ["tenant_id", "queue", "execution_id", "run_id"])
    op.create_table(
        "workers",
        _key("tenant_id"),
        _key("worker_id"),
        Column("kind", Text, nullable=False),
        Column("host", Text, nullable=False),
        Column("pid", BigInteger, nullable=False),
        Column("version", Text, nullable=False),
        Column("started_at", BigInteger, nullable=False),
        Column("details", LargeBinary, nullable=False),
        Column("last_seen", BigInteger, nullable=False),
        Column("expires_at", BigInteger, nullable=False),
        Column("batch", BigInteger, nullable=False, server_default="0"),
        sqlite_with_rowid=False,
    )


def _add_columns() -> None:
    op.add_column("work_items", Column("losses", Integer, nullable=False, server_default="0"))
    op.add_column("work_items", Column("concurrency_key", Text))
    op.add_column("work_items", Column("concurrency_limit", Integer))
    op.add_column("work_items", Column("counts", Integer, nullable=False, server_default="0"))
    op.add_column("timers", Column("lease_owner", Text))
    op.add_column("deliveries", Column("lease_owner", Text))


def _free_all() -> None:
    """Nobody could hold anything yet that is not in `workers`, so nobody would take it away from him."""
    op.execute(text("UPDATE work_items SET lease_owner = NULL, lease_expires_at = NULL"))


def _index_claims() -> None:
    urgency = ["queue", text("priority DESC"), "available_at"]
    free = "lease_owner IS NULL AND concurrency_key IS NULL"
    _index("work_items_to_claim", "work_items", urgency, f"{free} AND attempt > 0")
    _index("work_items_to_claim_by_tenant", "work_items", ["tenant_id", *urgency], free)
    key, free = ["tenant_id", "concurrency_key"], "lease_owner IS NULL AND concurrency_key IS NOT NULL"
    _index("work_items_to_claim_by_key", "work_items", [*key, *urgency], free)
    _index("work_items_by_lease", "work_items", ["lease_expires_at"], "lease_expires_at IS NOT NULL")
    leased = "lease_owner IS NOT NULL AND"
    _index("work_items_at_work_by_key", "work_items", key, f"{leased} concurrency_key IS NOT NULL")
    _index("work_items_at_work_by_queue", "work_items", ["queue"], f"{leased} counts > 0")
    op.drop_index("timers_by_time", "timers")
    _index("timers_to_claim", "timers", ["fire_at"], "lease_owner IS NULL")
    op.drop_index("deliveries_by_id", "deliveries")
    _index("deliveries_to_claim", "deliveries", ["delivery_id"], "lease_owner IS NULL")


def _index_keys() -> None:
    urgency = ["queue", text("priority DESC"), "open_at"]
    _index("concurrency_to_claim", "concurrency", urgency, "open_at IS NOT NULL AND at_once > 0")
    _index("concurrency_to_claim_by_tenant", "concurrency", ["tenant_id", *urgency], "open_at IS NOT NULL")


def _index(name: str, table: str, columns: list[Any], where: str) -> None:
    op.create_index(name, table, columns, postgresql_where=text(where), sqlite_where=text(where))


def _key(name: str) -> Column[str]:
    return Column(name, Text, primary_key=True)
