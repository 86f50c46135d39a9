"""The audit chain on SQL: several processes write one, and none can fork it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import pytest_asyncio
from sqlalchemy.dialects import postgresql

from jamjet_kernel.errors import StorageError
from jamjet_kernel.testing.storage import TENANT, audited, commit, event_types, faults, sign, store
from jamjet_storage_sql import SqlStorage, audit
from jamjet_storage_sqlite.engine import open_engine


def another(path: Path) -> SqlStorage:
    """As another process would have it: with threads and connections of its own."""
    engine = open_engine(path, synchronous="NORMAL", connections=2)
    return SqlStorage(engine, writer=ThreadPoolExecutor(1), readers=ThreadPoolExecutor(1), exclusive=False)


@pytest_asyncio.fixture
async def storages(tmp_path: Path) -> AsyncIterator[list[SqlStorage]]:
    opened = [another(tmp_path / "runtime.db") for _ in range(3)]
    for storage in opened:
        storage.audit.sign_with(sign)
    yield opened
    for storage in opened:
        await storage.close()


async def test_writers_of_several_processes_make_one_chain(storages: list[SqlStorage]) -> None:
    async def write(number: int, storage: SqlStorage) -> None:
        for count in range(20):
            await store(storage, commit(f"e{number}-{count}", audit=[audited("committed")] * 2))
            await storage.audit.append(TENANT, [audited("appended")])

    await asyncio.gather(*(write(number, storage) for number, storage in enumerate(storages)))

    assert len(await event_types(storages[0])) == 3 * 20 * 3
    assert await faults(storages[0]) == []


async def test_nothing_is_stored_without_its_signature(tmp_path: Path) -> None:
    storage = another(tmp_path / "runtime.db")

    [refusal] = await storage.commit([commit(audit=[audited("committed")])])

    assert isinstance(refusal, StorageError)
    assert await storage.executions.head(TENANT, "e1") is None
    with pytest.raises(StorageError, match="sign_with"):
        await storage.audit.append(TENANT, [audited("appended")])
    await storage.close()


def test_the_end_of_a_chain_is_held_where_writers_are_many() -> None:
    statement = audit._HOLD._build(postgresql.dialect())

    assert str(statement.compile(dialect=postgresql.dialect())).endswith("FOR UPDATE")  # type: ignore[attr-defined]
