"""Taking the steps: Alembic, in a transaction that is ours."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection


def take(tx: Connection, *, until: str = "head") -> None:
    """All of them happen in the transaction `tx`, or none: both databases have transactions around their DDL."""
    config = Config()
    # A percent sign begins an interpolation.
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.attributes["connection"] = tx
    command.upgrade(config, until)
