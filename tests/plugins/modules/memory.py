"""A storage driver for `memory://`: everything is gone when the process ends."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from sqlalchemy import StaticPool, create_engine, event

from jamjet_kernel import Storage, hookimpl
from jamjet_storage_sql import SqlStorage, metadata


@hookimpl
def open_storage(url: str) -> Storage | None:
    if url != "memory://":
        return None
    options = {"check_same_thread": False, "isolation_level": None}
    engine = create_engine("sqlite://", poolclass=StaticPool, connect_args=options)
    # Python's sqlite3 begins no transaction before a savepoint; so it is told to begin none, and we do.
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN"))
    metadata.create_all(engine)
    thread = ThreadPoolExecutor(1, thread_name_prefix="memory")
    return SqlStorage(engine, writer=thread, readers=thread, exclusive=True)
