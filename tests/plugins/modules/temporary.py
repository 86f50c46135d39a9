"""A storage driver for `temporary://`: everything is gone when the runtime stops."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from tempfile import TemporaryDirectory

from sqlalchemy import create_engine, event

from jamjet_kernel import Storage, hookimpl
from jamjet_storage_sql import SqlStorage, metadata


@hookimpl
def open_storage(url: str) -> Storage | None:
    if url != "temporary://":
        return None
    folder = TemporaryDirectory(prefix="jamjet-")
    options = {"check_same_thread": False, "isolation_level": None}
    engine = create_engine(f"sqlite:///{folder.name}/runtime.db", connect_args=options)
    # Python's sqlite3 begins no transaction before a savepoint; so it is told to begin none, and we do.
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN"))
    metadata.create_all(engine)
    thread = ThreadPoolExecutor(1, thread_name_prefix="temporary")
    return SqlStorage(engine, writer=thread, readers=thread, exclusive=True, released=folder.cleanup)
