"""The database's clock: the one that leases go by, since all who share the database share it."""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement


class milliseconds(FunctionElement[int]):  # reads as the SQL function it is
    """Since the epoch, when the statement runs."""

    type = BigInteger()
    inherit_cache = True


@compiles(milliseconds, "sqlite")
def _sqlite(element: milliseconds, compiler: Any, **options: Any) -> str:
    return "CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)"


@compiles(milliseconds, "postgresql")
def _postgresql(element: milliseconds, compiler: Any, **options: Any) -> str:
    # Not now(), which is when the transaction began.
    return "CAST(extract(epoch FROM clock_timestamp()) * 1000 AS bigint)"
