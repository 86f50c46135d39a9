"""Databases of every schema version there was, on both systems, and what a start makes of them."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from old_databases import KEY, check_that_all_go_on, restore, write_functions
from postgres_server import Databases
from psycopg import sql
from sqlalchemy import Connection, Engine, create_engine, event

from jamjet_kernel import PluginError, Settings
from jamjet_kernel.runtime import open_runtime
from jamjet_storage_postgres import open_server
from jamjet_storage_sql import SCHEMA_VERSION, SqlStorage, prepare
from jamjet_storage_sql.migrations import VERSION_TABLE, version_of
from jamjet_storage_sql.migrations.steps import take
from jamjet_storage_sqlite import open_file
from jamjet_storage_sqlite.engine import stored_version


class Database:
    """One that tests look into past the runtime."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.is_sqlite = "://" not in url

    def open(self, *, migrate: bool = True) -> SqlStorage:
        if self.is_sqlite:
            return open_file(Path(self.url), migrate=migrate)
        return open_server(self.url, migrate=migrate)

    async def start(self, *, migrate: bool = True) -> None:
        await self.open(migrate=migrate).close()

    @contextmanager
    def engine(self) -> Iterator[Engine]:
        engine = create_engine(
            f"sqlite:///{self.url}" if self.is_sqlite else self.url.replace("postgresql", "postgresql+psycopg", 1),
            connect_args={"isolation_level": None} if self.is_sqlite else {},
        )
        if self.is_sqlite:
            event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN"))
        try:
            yield engine
        finally:
            engine.dispose()

    def run(self, *statements: str) -> None:
        with self.engine() as engine, engine.begin() as tx:
            for statement in statements:
                tx.exec_driver_sql(statement)

    def contents(self) -> dict[str, list[Any]]:
        """All there is: the schema, and every row."""
        with self.engine() as engine, engine.connect() as tx:
            found = {table: rows_of(tx, table) for table in table_names(tx)}
            return {**found, "": described(tx)}

    def version(self) -> int | None:
        with self.engine() as engine, engine.connect() as tx:
            return version_of(tx)


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Database:
    """Nothing is in it."""
    if request.param == "sqlite":
        return Database(str(tmp_path / "runtime.db"))
    return Database(request.getfixturevalue("blank_postgres_url"))


@pytest.fixture
def old(database: Database, tmp_path: Path) -> Database:
    """Of version 2."""
    if database.is_sqlite:
        restore(2, Path(database.url))
        return database
    with database.engine() as engine, engine.begin() as tx:
        take(tx, until="0002")
    restore(2, tmp_path / "version_2.db")
    carry(tmp_path / "version_2.db", database.url)
    return database


def carry(path: Path, url: str) -> None:
    with closing(sqlite3.connect(path)) as source, psycopg.connect(url) as target:
        for (table,) in source.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            rows = source.execute(f"SELECT * FROM {table}").fetchall()
            if rows:
                values = sql.SQL(", ").join([sql.Placeholder()] * len(rows[0]))
                insert = sql.SQL("INSERT INTO {} VALUES ({})").format(sql.Identifier(table), values)
                target.cursor().executemany(insert, rows)


# What the schema is


def test_the_steps_make_the_schema_that_a_fresh_database_gets(
    database: Database, tmp_path: Path, postgres: Databases
) -> None:
    fresh = Database(str(tmp_path / "fresh.db") if database.is_sqlite else postgres.create())
    with fresh.engine() as engine, database.engine() as other:
        prepare(engine, migrate=True, place="fresh")
        with other.begin() as tx:
            take(tx)

        with engine.connect() as tx, other.connect() as stepped:
            assert described(stepped) == described(tx)
            assert version_of(stepped) == version_of(tx) == SCHEMA_VERSION


def described(tx: Connection) -> list[Any]:
    return _described_by_sqlite(tx) if tx.dialect.name == "sqlite" else _described_by_postgres(tx)


def _described_by_sqlite(tx: Connection) -> list[Any]:
    tables = tx.exec_driver_sql("SELECT name, ncol, wr, strict FROM pragma_table_list WHERE name NOT LIKE 'sqlite_%'")
    columns = "SELECT m.name, x.* FROM sqlite_master m, pragma_table_xinfo(m.name) x WHERE m.type = 'table'"
    keys = (
        "SELECT m.name, l.origin, x.* FROM sqlite_master m, pragma_index_list(m.name) l, pragma_index_xinfo(l.name) x"
    )
    indexes = "SELECT sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL"
    others = "SELECT type, name FROM sqlite_master WHERE type NOT IN ('table', 'index')"
    return _ours([*tables, *(row for query in (columns, keys, indexes, others) for row in tx.exec_driver_sql(query))])


def _described_by_postgres(tx: Connection) -> list[Any]:
    columns = """SELECT table_name, ordinal_position, column_name, data_type, is_nullable, column_default
        FROM information_schema.columns WHERE table_schema = 'public'"""
    indexes = "SELECT tablename, indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'"
    constraints = """SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint
        WHERE connamespace = 'public'::regnamespace"""
    return _ours([row for query in (columns, indexes, constraints) for row in tx.exec_driver_sql(query)])


def _ours(rows: list[Any]) -> list[Any]:
    """Without what Alembic keeps for itself."""
    return sorted(str(tuple(row)) for row in rows if row[0] != VERSION_TABLE)


def rows_of(tx: Connection, table: str) -> list[dict[str, Any]]:
    return sorted(map(dict, tx.exec_driver_sql(f"SELECT * FROM {table}").mappings()), key=str)


def table_names(tx: Connection) -> list[str]:
    catalogue = {
        "sqlite": "SELECT name FROM sqlite_master WHERE type = 'table'",
        "postgresql": "SELECT tablename FROM pg_tables WHERE schemaname = 'public'",
    }
    return sorted(tx.exec_driver_sql(catalogue[tx.dialect.name]).scalars())


def test_an_ordinary_start_imports_no_alembic(tmp_path: Path) -> None:
    program = """
import asyncio, pathlib, sys
from jamjet_storage_sqlite import open_file
for _ in range(2):
    asyncio.run(open_file(pathlib.Path(sys.argv[1])).close())
print("alembic" in sys.modules)
"""
    answer = subprocess.run(
        [sys.executable, "-c", program, tmp_path / "runtime.db"], capture_output=True, text=True, check=True
    )

    assert answer.stdout.strip() == "False"


# Old ones


@pytest.mark.parametrize("version", [1, 2])
async def test_executions_of_an_old_file_go_on(version: int, tmp_path: Path, functions: None) -> None:
    database = Database(str(tmp_path / "runtime.db"))
    restore(version, Path(database.url))

    await check_that_all_go_on(database.url)

    # An earlier release looks there, and refuses what it does not know.
    assert stored_version(Path(database.url)) == SCHEMA_VERSION


async def test_executions_of_an_old_server_go_on(old: Database, functions: None) -> None:
    await check_that_all_go_on(old.url)


@pytest.fixture
def functions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_functions(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)


async def test_an_upgrade_takes_nothing_away(old: Database) -> None:
    before = old.contents()

    await old.start()

    after = old.contents()
    for table in before.keys() - {"", "work_items", VERSION_TABLE}:
        columns = before[table][0].keys() if before[table] else ()
        assert [{name: row[name] for name in columns} for row in after[table]] == before[table]
    assert len(after["work_items"]) == len(before["work_items"]) == 1


# Those that are refused


async def test_a_newer_one_is_refused_and_left_alone(database: Database) -> None:
    await database.start()
    newer = SCHEMA_VERSION + 1
    database.run(f"UPDATE {VERSION_TABLE} SET version_num = '{newer:04}'")
    if database.is_sqlite:
        database.run(f"PRAGMA user_version = {newer}")
    before = database.contents()

    with pytest.raises(PluginError, match=f"schema version {newer}, made by a newer runtime.*up to {SCHEMA_VERSION}"):
        database.open()

    assert database.contents() == before


async def test_with_migrate_off_an_old_one_is_refused_and_left_alone(old: Database) -> None:
    before = old.contents()

    with pytest.raises(PluginError, match=r"has the schema version 2, this runtime needs version 3.*jamjet db upgrade"):
        old.open(migrate=False)

    assert old.contents() == before


async def test_with_migrate_off_an_empty_one_is_refused_and_left_alone(database: Database) -> None:
    with pytest.raises(PluginError, match=r"holds no runtime yet.*jamjet db upgrade"):
        database.open(migrate=False)

    if database.is_sqlite:
        assert not Path(database.url).exists()
    else:
        assert database.contents() == {"": []}


async def test_with_migrate_off_one_of_this_version_is_opened(database: Database) -> None:
    await database.start()

    await database.start(migrate=False)


async def test_the_setting_reaches_the_driver(database: Database) -> None:
    settings = Settings(database_url=database.url, migrate="off", auth="off", signing_key=KEY)

    with pytest.raises(PluginError, match="JAMJET_MIGRATE is off"):
        async with open_runtime(settings):
            pass


def test_tables_of_another_application_are_left_alone(blank_postgres_url: str) -> None:
    database = Database(blank_postgres_url)
    database.run("CREATE TABLE events (name text)", "CREATE TABLE alembic_version (version_num text)")

    with pytest.raises(PluginError, match=r"another application \(events\)"):
        database.open()

    assert database.contents().keys() == {"alembic_version", "events", ""}


async def test_tables_of_other_names_are_no_hindrance(blank_postgres_url: str) -> None:
    database = Database(blank_postgres_url)
    database.run("CREATE TABLE alembic_version (version_num text)", "INSERT INTO alembic_version VALUES ('ab12')")

    await database.start()

    assert database.contents()["alembic_version"] == [{"version_num": "ab12"}]


# In the middle of it


UPGRADE = """
import os, signal, sys
from pathlib import Path
from sqlalchemy import Engine, event

url, left = sys.argv[1], int(sys.argv[2])

def count(connection, cursor, statement, *_):
    global left
    if statement.lstrip().startswith(("CREATE", "ALTER", "DROP", "INSERT", "UPDATE")):
        left -= 1
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)

event.listen(Engine, "after_cursor_execute", count)
if "://" in url:
    from jamjet_storage_postgres import open_server
    open_server(url)
else:
    from jamjet_storage_sqlite import open_file
    open_file(Path(url))
"""


@pytest.mark.parametrize("statements", [2, 15])
async def test_a_killed_upgrade_leaves_what_was_there_and_the_next_one_succeeds(
    old: Database, statements: int, functions: None
) -> None:
    before = old.contents()

    assert killed(old, statements)

    assert old.contents() == before
    await check_that_all_go_on(old.url)


@pytest.mark.parametrize("statements", [1, 10])
async def test_a_killed_first_start_leaves_a_database_that_starts(database: Database, statements: int) -> None:
    assert killed(database, statements)

    assert database.version() is None
    await database.start()
    assert database.version() == SCHEMA_VERSION


def killed(database: Database, statements: int) -> bool:
    """Whether opening it got as far as so many statements that change something."""
    command = [sys.executable, "-c", UPGRADE, database.url, str(statements)]
    return subprocess.run(command, check=False, env=os.environ).returncode == -signal.SIGKILL


# Several at once


@pytest.mark.parametrize("begin", [lambda tx: None, lambda tx: take(tx, until="0002")], ids=["fresh", "old"])
async def test_of_several_processes_one_makes_the_tables_and_all_start(
    blank_postgres_url: str, begin: Callable[[Connection], None]
) -> None:
    database = Database(blank_postgres_url)
    with database.engine() as engine, engine.begin() as tx:
        begin(tx)

    with ThreadPoolExecutor(6) as threads:
        opened = list(threads.map(lambda _: database.open(), range(6)))

    for storage in opened:
        await storage.close()
    assert database.version() == SCHEMA_VERSION


async def test_whoever_waits_for_an_upgrade_outlasts_its_own_timeouts(blank_postgres_url: str) -> None:
    impatient = f"{blank_postgres_url}&options=-c%20lock_timeout%3D100%20-c%20statement_timeout%3D100"
    with psycopg.connect(blank_postgres_url) as upgrading:
        upgrading.execute("SELECT pg_advisory_xact_lock(%s)", [0x4A616D4A])
        waiting = asyncio.create_task(asyncio.to_thread(open_server, impatient))
        await asyncio.sleep(0.5)
        assert not waiting.done()

    await (await waiting).close()
