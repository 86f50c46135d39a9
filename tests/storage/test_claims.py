"""How PostgreSQL and SQLite find what is claimed: by an index that has it in order, whatever waits beside it."""

from __future__ import annotations

import asyncio
import random
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from sqlalchemy.dialects import sqlite
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg

from jamjet_kernel.ports import Lease, Storage
from jamjet_kernel.testing.storage import NOON, commit, keyed, store
from jamjet_storage_postgres import open_server
from jamjet_storage_postgres.spread import Spread
from jamjet_storage_sql import Bulk, claims, concurrency

MANY = 20_000
LOOKS = {
    "items": (claims._CLAIMABLE, ("q1", 10**12, 100), "work_items_to_claim"),
    "a tenant's items": (claims._CLAIMABLE_OF_TENANT, ("t1", "q1", 10**12, 100), "work_items_to_claim_by_tenant"),
    "keys": (concurrency._OPEN_KEYS, ("q1", 10**12, 100), "concurrency_to_claim"),
    "a tenant's keys": (concurrency._OPEN_KEYS_OF_TENANT, ("t1", "q1", 10**12, 100), "concurrency_to_claim_by_tenant"),
    "items of keys": (claims._FIRST_OF_EACH, ("t1", "k1", "q1", 10**12, 100), "work_items_to_claim_by_key"),
}

FILL = f"""
INSERT INTO work_items (tenant_id, execution_id, run_id, attempt, queue, priority, available_at, lease_owner,
                        concurrency_key, fence)
SELECT 't' || n % 3, 'exec_' || md5(n::text), 'step', 1, 'q' || n % 2, n % 5, n,
       CASE WHEN n % 100 = 0 THEN 'w1' END, CASE WHEN n % 2 = 0 THEN 'k' || n % 7 END, n::bigint << 20
FROM generate_series(1, {MANY}) n
"""
KEYS = f"""
INSERT INTO concurrency SELECT 't' || n % 3, 'k' || n, 'q' || n % 2, n % 5, 1, CASE WHEN n % 10 > 0 THEN n END
FROM generate_series(1, {MANY}) n
"""


class Server:
    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection
        self.dialect = PGDialect_psycopg(paramstyle="format")

    def run(self, *statements: str) -> None:
        for statement in statements:
            self._connection.execute(statement)  # type: ignore[call-overload]  # tests' own words

    @contextmanager
    def claiming(self) -> Iterator[None]:
        """A transaction that keeps to the indexes."""
        with self._connection.transaction():
            for bulk, rows in claims.to_the_indexes(self):  # type: ignore[arg-type]  # asks for the dialect only
                self.execute(bulk, rows[0])
            yield

    def execute(self, bulk: Bulk, row: tuple[Any, ...], explain: str = "") -> list[str]:
        [(text, _)] = Spread(bulk, self.dialect).statements([row])
        values = ", ".join(f"'{value}'" if isinstance(value, str) else str(value) for value in row)
        self.run(f"PREPARE looks AS {text.decode()}")
        found = self._connection.execute(f"{explain} EXECUTE looks ({values})")  # type: ignore[call-overload]
        lines = [str(line) for (line, *_) in found]
        self.run("DEALLOCATE looks")
        return lines

    def plan(self, bulk: Bulk, row: tuple[Any, ...]) -> str:
        with self.claiming():
            return "\n".join(self.execute(bulk, row, "EXPLAIN (COSTS OFF)"))


@pytest.fixture
def server(postgres_url: str) -> Iterator[Server]:
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute("VACUUM work_items, concurrency")  # of what earlier tests left
        yield Server(connection)


@pytest.mark.parametrize("plans", ["force_custom_plan", "force_generic_plan"])
@pytest.mark.parametrize("statistics", ["none", "of the empty tables", "of the full tables"])
def test_a_claim_scans_an_index_and_sorts_nothing(server: Server, statistics: str, plans: str) -> None:
    server.run(f"SET plan_cache_mode = {plans}")
    if statistics == "of the empty tables":
        server.run("ANALYZE work_items, concurrency")
    server.run(FILL, KEYS)
    if statistics == "of the full tables":
        server.run("ANALYZE work_items, concurrency")

    for name, (bulk, row, index) in LOOKS.items():
        plan = server.plan(bulk, row)
        assert re.search(rf"Index (Only )?Scan using {index} on", plan), f"{name}:\n{plan}"
        assert not re.search(r"Sort|Bitmap|Seq Scan", plan), f"{name}:\n{plan}"


def test_what_is_due_later_is_not_read(server: Server) -> None:
    """However much of a high priority waits for its time, before what is due."""
    server.run(FILL.replace("n % 5, n,", "n % 5, CASE WHEN n % 5 > 0 THEN 9000000000000 ELSE n END,"))

    with server.claiming():
        bulk, row, _ = LOOKS["items"]
        plan = "\n".join(server.execute(bulk, row, "EXPLAIN (ANALYZE, BUFFERS, COSTS OFF, TIMING OFF)"))

    # PostgreSQL 18 passes over it; earlier ones read the index, but not the table.
    assert "Rows Removed by Filter" not in plan
    assert sum(map(int, re.findall(r"shared hit=(\d+)", plan.splitlines()[1]))) < 500, plan


def test_sqlite_scans_an_index_too(tmp_path: Any) -> None:
    from sqlalchemy import create_engine

    from jamjet_storage_sql import metadata

    engine = create_engine(f"sqlite:///{tmp_path / 'plans.db'}")
    dialect = sqlite.dialect()
    with engine.begin() as tx:
        metadata.create_all(tx)
        for name, (bulk, row, index) in LOOKS.items():
            if bulk is not claims._FIRST_OF_EACH:
                [(text, values)] = bulk.statements(dialect, [row])
                plan = "\n".join(str(line[-1]) for line in tx.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}", values))
                assert f"USING INDEX {index} " in plan, f"{name}:\n{plan}"
                assert "TEMP B-TREE" not in plan, f"{name}:\n{plan}"
    engine.dispose()


async def test_many_processes_keep_to_the_limits_of_keys_in_all_queues(postgres_url: str) -> None:
    limits = {f"k{n}": 1 + n % 2 for n in range(5)}
    storages = [open_server(postgres_url) for _ in range(4)]
    dice = random.Random(7)
    names = [f"e{n}" for n in range(120)]
    for name in names:
        key = dice.choice(list(limits))
        work = keyed("run", name, key, limits[key], queue=dice.choice(["a", "b"]), priority=dice.randrange(2))
        await store(storages[0], commit(name, enqueue=[work]))
    at_work: Counter[str] = Counter()
    left = set(names)

    async def serve(storage: Storage, queue: str, name: str) -> None:
        while left:
            for held in await storage.work.claim(name, queue, NOON, 3):
                key = held.concurrency_key or ""
                at_work[key] += 1
                assert at_work[key] <= limits[key]
                await asyncio.sleep(0.002)
                at_work[key] -= 1
                done = commit(held.execution_id, 1, lease=Lease("run", held.fence), settle=["run"], freed=[key])
                await store(storage, done)
                left.discard(held.execution_id)
            await asyncio.sleep(0.001)

    async with asyncio.timeout(60):
        await asyncio.gather(*(serve(each, q, f"w{n}{q}") for n, each in enumerate(storages) for q in "ab"))

    assert await storages[0].work.pending() == []
    for each in storages:
        await each.work.claim("last", "a", NOON, 1)
        await each.work.claim("last", "b", NOON, 1)
    with psycopg.connect(postgres_url) as connection:
        assert connection.execute("SELECT * FROM concurrency").fetchall() == []  # nothing is left of a key
    for each in storages:
        await each.close()
