"""What Alembic runs to take its steps."""

from __future__ import annotations

from alembic import context

from jamjet_storage_sql.migrations import VERSION_TABLE

context.configure(connection=context.config.attributes["connection"], version_table=VERSION_TABLE)
context.run_migrations()
