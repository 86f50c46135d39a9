"""The PostgreSQL driver: the contract of every storage, and what many processes on one server make of it."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import cycle
from typing import Any

import psycopg
import pytest
import pytest_asyncio
from postgres_proxy import Fault, PostgresProxy
from postgres_server import GUARDED, Databases, PostgresServer
from psycopg.conninfo import conninfo_to_dict

import jamjet_storage_postgres
from jamjet_kernel import Settings
from jamjet_kernel.errors import Evicted, Invalid, KeyTaken, PluginError, SequenceConflict, StorageError
from jamjet_kernel.ports import Lease, Recorded, Storage
from jamjet_kernel.testing import StorageContract
from jamjet_kernel.testing.storage import (
    TENANT,
    approval,
    audited,
    commit,
    dead_letter,
    event_types,
    faults,
    item,
    kinds,
    receipt,
    sequence_of,
    sign,
    store,
    tenant,
    worker,
    workflow,
)
from jamjet_storage_postgres import open_server, spread
from jamjet_storage_postgres.engine import BY_KEY, SETTINGS, engine_of
from jamjet_storage_postgres.location import server_of
from jamjet_storage_postgres.spread import Spread
from jamjet_storage_sql import SqlStorage, audit, batches, executions
from jamjet_storage_sql import commit as hot_path


def open_storage(url: str) -> SqlStorage | None:
    return jamjet_storage_postgres.open_storage(url=url, settings=Settings())


def connected(url: str, statement: str) -> tuple[Any, ...] | None:
    """The first row that the statement answers."""
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(statement)
        return cursor.fetchone() if cursor.description else None  # type: ignore[call-overload,no-any-return]  # tests' own words


@pytest_asyncio.fixture
async def storage(postgres_url: str) -> AsyncIterator[SqlStorage]:
    opened = open_server(postgres_url)
    yield opened
    await opened.close()


class TestPostgres(StorageContract):
    @pytest_asyncio.fixture
    async def storage(self, storage: SqlStorage) -> Storage:
        return storage


# Which database


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg", "PostgreSQL"])
async def test_a_url_names_a_database(postgres_url: str, scheme: str) -> None:
    storage = open_storage(postgres_url.replace("postgresql", scheme, 1))
    assert storage is not None

    await store(storage, commit())

    assert await sequence_of(storage) == 1
    await storage.close()


def test_another_drivers_url_is_left_to_it() -> None:
    assert open_storage(".jamjet/runtime.db") is None
    assert open_storage("sqlite:///runtime.db") is None


async def test_a_database_without_tables_gets_them(blank_postgres_url: str) -> None:
    for _ in range(2):
        storage = open_server(blank_postgres_url)
        await storage.close()

    assert connected(blank_postgres_url, "SELECT count(*) FROM executions") == (0,)


async def test_what_the_url_says_is_passed_on(postgres_url: str) -> None:
    settings = "application_name=mine&options=-c%20lock_timeout%3D7s%20-c%20jit%3Don"
    engine = engine_of(server_of(f"{postgres_url}&{settings}"), connections=1)

    with engine.connect() as connection:
        shown = [
            connection.exec_driver_sql(f"SHOW {name}").scalar()
            for name in ("application_name", "lock_timeout", "jit", "default_transaction_isolation")
        ]

    assert shown == ["mine", "7s", "on", "read committed"]
    engine.dispose()


# Databases that cannot be used


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("postgresql+asyncpg://localhost/jamjet", "psycopg"),
        ("postgresql://anna:se%zzcret@localhost/jamjet", "cannot be read"),
        ("postgresql://anna:se cret@localhost/jamjet", "cannot be read"),
        ("postgresql://anna:secret@[::1/jamjet", "cannot be read"),
        ("postgresql://anna:se/cret@localhost/jamjet", "its database is no name"),
        ("postgresql://anna:secret@localhost/jamjet?colour=red", "colour"),
        ("postgresql://anna:secret@localhost:99999/jamjet", "99999"),
        ("postgresql://anna:secret@localhost:1/jamjet", "postgresql://anna@localhost:1/jamjet"),
        ("postgresql:///jamjet?host=/nowhere&password=secret", "/nowhere"),
    ],
)
def test_a_database_that_cannot_be_reached_is_told_without_the_password(url: str, said: str) -> None:
    with pytest.raises(PluginError) as refused:
        open_server(url)

    assert said in str(refused.value)
    assert "cret" not in str(refused.value)


def test_a_database_that_is_not_there_is_told(postgres_url: str) -> None:
    with pytest.raises(PluginError, match='database "nothing" does not exist'):
        open_server(postgres_url.replace(conninfo_to_dict(postgres_url)["dbname"], "nothing"))


@pytest.fixture
def guarded_url(postgres: Databases, postgres_url: str) -> str:
    """Only the password `right` opens it."""
    if "JAMJET_TEST_POSTGRES_URL" in os.environ:
        pytest.skip("needs a server whose pg_hba.conf asks for it")
    connected(postgres.url, f"DROP ROLE IF EXISTS {GUARDED}")
    connected(postgres.url, f"CREATE ROLE {GUARDED} SUPERUSER LOGIN PASSWORD 'right'")
    return postgres_url.replace("postgres@", f"{GUARDED}:right@")


def test_a_wrong_password_is_told_and_not_shown(guarded_url: str) -> None:
    with pytest.raises(PluginError, match="password authentication failed") as refused:
        open_server(guarded_url.replace("right", "wrong"))

    assert "wrong" not in str(refused.value)


async def test_the_right_password_opens(guarded_url: str) -> None:
    await open_server(guarded_url).close()


def test_a_database_in_another_encoding_is_refused(postgres: Databases) -> None:
    url = postgres.create("SQL_ASCII")

    with pytest.raises(PluginError, match="encoded in SQL_ASCII"):
        open_server(url)

    postgres.drop(url)


def test_a_missing_driver_is_told_with_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("jamjet_storage_postgres.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "psycopg", None)

    with pytest.raises(PluginError, match=r"pip install 'jamjet-runtime\[postgres\]'"):
        open_storage("postgresql://localhost/jamjet")


# What PostgreSQL cannot store


async def test_a_nul_is_refused_where_it_cannot_be_stored(storage: SqlStorage) -> None:
    answers = await storage.commit([commit("a"), commit("bad", workflow_id="a\0b"), commit("c")])

    assert kinds(answers) == [None, Invalid, None]
    assert [await sequence_of(storage, name) for name in ("a", "bad", "c")] == [1, None, 1]
    with pytest.raises(Invalid, match="NUL"):
        await storage.workflows.add(TENANT, workflow("a\0b"))
    with pytest.raises(Invalid, match="NUL"):
        await storage.executions.head(TENANT, "a\0b")
    assert await storage.executions.head(TENANT, "bad") is None


async def test_a_nul_in_a_body_is_stored(storage: SqlStorage) -> None:
    await store(storage, replace(commit(), events=[Recorded(1, b'"a\\u0000b\0"')]))

    assert await storage.executions.events(TENANT, "e1") == [Recorded(1, b'"a\\u0000b\0"')]


async def test_what_people_read_is_stored_without_its_nul(storage: SqlStorage) -> None:
    asked = replace(approval(), description="look:\0", tool="x\0")

    await store(storage, commit(ask=[asked], buried=[dead_letter("a", error="broken \0 pipe")]))

    assert await storage.approvals.page(TENANT) == [replace(approval(), description="look:\ufffd", tool="x\ufffd")]
    assert [letter.error for letter in await storage.dead_letters.page(TENANT)] == ["broken \ufffd pipe"]


@pytest.mark.parametrize("count", [1, 7, 8, 9, 10_001])
async def test_any_number_of_rows_is_stored(storage: SqlStorage, count: int) -> None:
    await store(storage, commit(count=count))

    assert await sequence_of(storage) == count


async def test_more_bytes_than_an_array_may_hold_are_stored(
    storage: SqlStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spread, "BYTES", 2**20)
    bodies = [bytes([n]) * 2**18 for n in range(20)]

    await store(storage, replace(commit(count=20), events=[Recorded(n, body) for n, body in enumerate(bodies, 1)]))

    assert [event.body for event in await storage.executions.events(TENANT, "e1")] == bodies


async def test_what_a_commit_writes_finds_its_rows_by_their_keys(storage: SqlStorage, postgres_url: str) -> None:
    await store(storage, *(commit(f"e{n}", enqueue=[item(execution_id=f"e{n}")]) for n in range(500)))
    connected(postgres_url, "ANALYZE")
    engine = engine_of(server_of(postgres_url), connections=1, settings={**SETTINGS, **BY_KEY})
    bulks = {step.bulk for step in hot_path._steps([commit()])} | {audit._HOLD, audit._MOVE, batches.MARK}
    bulks.remove(executions.COUNT_OPEN)  # which has an index of its own to count in

    with engine.connect() as connection:
        for written in (Spread(bulk, engine.dialect) for bulk in bulks):
            for text in (written.few[0], written.many):
                explain = f"EXPLAIN (GENERIC_PLAN, COSTS OFF) {text.decode()}"
                plan = "\n".join(connection.exec_driver_sql(explain).scalars())
                scanned = re.findall(r"((?:Seq|Index|Bitmap)[\w ]*?Scan.* on \w+)", plan)
                assert all("_pkey" in scan for scan in scanned), plan
    engine.dispose()


async def test_a_plan_that_was_made_for_empty_tables_is_not_kept(blank_postgres_url: str) -> None:
    storage = open_server(blank_postgres_url)
    for n, count in enumerate([10] * 10 + [200] * 15):
        await store(storage, *(commit(f"{n}-{each}") for each in range(count)))
        await store(storage, *(commit(f"{n}-{each}", expected=1) for each in range(count)))
    await storage.close()

    found = connected(
        blank_postgres_url, "SELECT idx_scan FROM pg_stat_user_indexes WHERE indexrelname = 'executions_pkey'"
    )
    assert found is not None
    assert found[0] > 200 * 15 // 2


# Many processes


@pytest_asyncio.fixture
async def others(postgres_url: str) -> AsyncIterator[list[SqlStorage]]:
    """As two processes have it."""
    opened = [open_server(postgres_url) for _ in range(2)]
    for storage in opened:
        storage.audit.sign_with(sign)
    yield opened
    for storage in opened:
        await storage.close()


async def test_of_two_processes_one_moves_an_execution_on(others: list[SqlStorage]) -> None:
    won = 0
    for sequence in range(30):
        rivals = [commit(expected=sequence, enqueue=[item(f"n{sequence}")]) for _ in others]
        answers = await asyncio.gather(
            *(
                storage.commit([rival, commit(f"{n}-{sequence}")])
                for n, (storage, rival) in enumerate(zip(others, rivals, strict=True))
            )
        )
        assert [kinds(answer)[1] for answer in answers] == [None, None]
        assert sorted((kinds(answer)[0] for answer in answers), key=str) == [SequenceConflict, None]
        won += 1

    assert await sequence_of(others[0]) == won
    assert len(await others[0].work.pending()) == won


async def test_of_two_processes_one_takes_a_key(others: list[SqlStorage]) -> None:
    for n in range(20):
        rivals = [commit(f"{name}{n}", receipt=receipt(f"key-{n}", result=name)) for name in "ab"]
        answers = await asyncio.gather(*(each.commit([rival]) for each, rival in zip(others, rivals, strict=True)))

        assert sorted((kinds(answer)[0] for answer in answers), key=str) == [KeyTaken, None]


async def test_two_processes_keep_a_tenant_to_its_limit(others: list[SqlStorage]) -> None:
    await others[0].tenants.add(tenant())
    batches = [[commit(f"{name}{n}", max_open=7) for n in range(10)] for name in "ab"]

    answers = await asyncio.gather(*(each.commit(batch) for each, batch in zip(others, batches, strict=True)))

    assert sum(answer is None for batch in answers for answer in batch) == 7
    assert await others[1].executions.count_open(TENANT) == 7


async def test_two_processes_write_one_chain(others: list[SqlStorage]) -> None:
    async def write(number: int, storage: SqlStorage) -> None:
        for n in range(25):
            batch = [commit(f"e{number}-{n}-{each}", audit=[audited("committed")] * 2) for each in range(3)]
            await asyncio.gather(store(storage, *batch), storage.audit.append(TENANT, [audited("appended")]))

    await asyncio.gather(*(write(number, storage) for number, storage in enumerate(others)))

    assert len(await event_types(others[0])) == 2 * 25 * 7
    assert await faults(others[0]) == []


async def test_what_the_processes_wait_for_in_a_circle_is_begun_again(postgres_url: str) -> None:
    storage = open_server(f"{postgres_url}&options=-c%20deadlock_timeout%3D100ms")
    storage.audit.sign_with(sign)
    await store(storage, commit(audit=[audited("first")]))

    with outside(postgres_url) as rival:
        rival.execute("SELECT * FROM audit_chains FOR UPDATE")
        committing = asyncio.create_task(storage.commit([commit(expected=1, audit=[audited("second")])]))
        await waits_for_a_lock(postgres_url)
        await asyncio.to_thread(rival.execute, "UPDATE executions SET created_at = created_at + 1")

    assert await committing == [None]
    assert await sequence_of(storage) == 2
    assert await faults(storage) == []
    await storage.close()


async def test_what_cannot_be_serialized_is_begun_again(postgres_url: str) -> None:
    storage = open_server(f"{postgres_url}&options=-c%20default_transaction_isolation%3Dserializable")
    await store(storage, commit())

    with outside(postgres_url) as rival:
        rival.execute("UPDATE executions SET created_at = created_at + 1")
        committing = asyncio.create_task(storage.commit([commit(expected=1)]))
        await waits_for_a_lock(postgres_url)

    assert await committing == [None]
    assert await sequence_of(storage) == 2
    await storage.close()


# Connections that break


async def test_connections_that_broke_meanwhile_are_made_again(storage: SqlStorage, postgres_url: str) -> None:
    await store(storage, commit())

    for n in range(1, 4):
        assert await terminated(postgres_url) > 0
        await store(storage, commit(expected=n))
        assert await sequence_of(storage) == n + 1
        assert await storage.workflows.add(TENANT, workflow(f"w{n}"))


async def test_a_connection_that_breaks_in_a_transaction_costs_nothing(storage: SqlStorage, postgres_url: str) -> None:
    storage.audit.sign_with(sign)
    await store(storage, commit(audit=[audited("first")]))

    with outside(postgres_url) as rival:
        rival.execute("SELECT * FROM audit_chains FOR UPDATE")
        writing = [
            asyncio.create_task(storage.commit([commit(expected=1, audit=[audited("second")])])),
            asyncio.create_task(storage.audit.append(TENANT, [audited("third")])),
        ]
        await waits_for_a_lock(postgres_url, count=2)
        await terminated(postgres_url, but=rival)

    assert await asyncio.gather(*writing) == [[None], None]
    assert await sequence_of(storage) == 2
    assert sorted(await event_types(storage)) == ["first", "second", "third"]
    assert await faults(storage) == []


@pytest.fixture
def own_server() -> Iterator[PostgresServer]:
    server = PostgresServer()
    yield server
    server.close()


async def test_a_restarted_server_is_found_again(own_server: PostgresServer) -> None:
    storage = open_server(own_server.url())
    storage.audit.sign_with(sign)
    await store(storage, commit(audit=[audited("started")]))

    await asyncio.to_thread(own_server.stop)
    writing = asyncio.create_task(storage.commit([commit(expected=1, audit=[audited("stopped")])]))
    reading = asyncio.create_task(storage.executions.head(TENANT, "e1"))
    await asyncio.to_thread(own_server.start)

    assert await writing == [None]
    assert await reading is not None
    own_server.kill()
    await asyncio.to_thread(own_server.start)
    await store(storage, commit(expected=2, audit=[audited("killed")]))
    assert await sequence_of(storage) == 3
    assert await faults(storage) == []
    await storage.close()


# A COMMIT without its answer


@pytest.fixture
def proxy(postgres: Databases) -> Iterator[PostgresProxy]:
    with PostgresProxy(postgres.url) as proxy:
        yield proxy


@pytest_asyncio.fixture
async def far(proxy: PostgresProxy, postgres_url: str) -> AsyncIterator[SqlStorage]:
    """Behind the proxy, and nobody has joined yet."""
    storage = open_server(proxy.url(postgres_url))
    storage.audit.sign_with(sign)
    yield storage
    await storage.close()


@pytest.mark.parametrize("fault", [Fault.ANSWER_LOST, Fault.COMMIT_LOST])
async def test_a_commit_is_made_once_whatever_is_lost(far: SqlStorage, proxy: PostgresProxy, fault: Fault) -> None:
    await far.workers.join(worker("w1"), 60_000)
    await store(far, commit(enqueue=[item(fence=7)]))
    proxy.plan([fault])

    done = commit(expected=1, lease=Lease("search", 7), settle=["search"], audit=[audited("done")])
    answers = await far.commit([done, commit("e2", receipt=receipt())])

    assert answers == [None, None]
    assert proxy.happened == [fault]
    assert [await sequence_of(far, name) for name in ("e1", "e2")] == [2, 1]
    assert await event_types(far) == ["done"]
    assert await faults(far) == []
    await store(far, commit(expected=2))


@pytest.mark.parametrize("fault", [Fault.ANSWER_LOST, Fault.COMMIT_LOST])
async def test_the_answers_of_a_commit_with_a_loser_are_not_lost(
    far: SqlStorage, proxy: PostgresProxy, fault: Fault
) -> None:
    await far.workers.join(worker("w1"), 60_000)
    proxy.plan([fault])

    answers = await far.commit([commit("a"), commit("b", expected=5), commit("c")])

    assert kinds(answers) == [None, SequenceConflict, None]
    assert proxy.happened == [fault]
    assert [await sequence_of(far, name) for name in "abc"] == [1, None, 1]


async def test_a_line_that_fails_all_the_time_loses_and_doubles_nothing(far: SqlStorage, proxy: PostgresProxy) -> None:
    await far.workers.join(worker("w1"), 60_000)
    proxy.plan(cycle([Fault.NONE, Fault.ANSWER_LOST, Fault.COMMIT_LOST, Fault.ANSWER_LOST, Fault.ANSWER_LOST]))

    for n in range(20):
        await store(far, commit(expected=n, audit=[audited("moved")]), commit(f"other-{n}"))
        with suppress(StorageError):
            await far.audit.append(TENANT, [audited("appended")])

    assert len(proxy.happened) > 20
    assert await sequence_of(far) == 20
    assert (await event_types(far)).count("moved") == 20
    assert await faults(far) == []


async def test_without_a_name_a_lost_answer_is_told(far: SqlStorage, proxy: PostgresProxy) -> None:
    proxy.plan([Fault.ANSWER_LOST])

    [answer] = await far.commit([commit()])

    assert isinstance(answer, StorageError)
    assert "not known" in str(answer)
    assert await sequence_of(far) == 1


async def test_a_process_that_was_buried_commits_nothing(others: list[SqlStorage]) -> None:
    dead, other = others
    await dead.workers.join(worker("w1"), 0)
    await other.workers.join(worker("w2"), 60_000)
    await asyncio.sleep(0.01)

    assert await other.workers.bury() == ["w1"]

    with pytest.raises(Evicted):
        await dead.commit([commit()])
    with pytest.raises(Evicted):
        await dead.commit([commit(), commit("e2", expected=7)])
    assert await sequence_of(other) is None
    await dead.workers.join(worker("w3"), 60_000)
    await store(dead, commit())


# Helpers


@contextmanager
def outside(url: str) -> Iterator[psycopg.Connection[Any]]:
    """A transaction of somebody else."""
    with psycopg.connect(url) as connection:
        yield connection


async def waits_for_a_lock(url: str, count: int = 1) -> None:
    found = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    async with asyncio.timeout(10):
        while connected(url, found) != (count,):
            await asyncio.sleep(0.01)


async def terminated(url: str, but: psycopg.Connection[Any] | None = None) -> int:
    """How many connections to the database are broken now."""
    spared = but.info.backend_pid if but else 0
    mine = f"datname = current_database() AND pid NOT IN (pg_backend_pid(), {spared})"
    row = connected(url, f"SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity WHERE {mine}")
    assert row is not None
    return int(row[0])
