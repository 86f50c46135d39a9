"""`jamjet db`: the version of a database, upgrades, copies from SQLite to PostgreSQL and back."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
from old_databases import KEY, check_that_all_go_on, restore, write_functions
from postgres_server import Databases

from jamjet_kernel import Principal, Settings
from jamjet_kernel.runtime import open_runtime
from jamjet_kernel.runtime.presence import Claimant
from jamjet_storage_sql import SCHEMA_VERSION, metadata
from jamjet_storage_sqlite import open_database, open_file

from .conftest import Jamjet


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_functions(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


@pytest.fixture
def old(here: Path) -> Path:
    """Of version 2, with work under way."""
    restore(2, here / "old.db")
    return here / "old.db"


@pytest.fixture
def filled(old: Path) -> Path:
    database = open_database(str(old))
    assert database is not None
    database.upgrade()
    return old


def rows_in(url: str | Path) -> int:
    """In all tables together."""
    union = " UNION ALL ".join(f"SELECT 1 AS one FROM {name}" for name in metadata.tables)
    query = f"SELECT count(*) FROM ({union}) AS everything"
    if "://" not in str(url):
        with closing(sqlite3.connect(url)) as file:
            return int(file.execute(query).fetchone()[0])
    with psycopg.connect(str(url)) as server:
        row = server.execute(query).fetchone()  # type: ignore[call-overload]  # the test's own words
        return int(row[0])


# The version


def test_an_old_database_is_upgraded_and_told_so(jamjet: Jamjet, old: Path) -> None:
    before = jamjet("db", "status", "--database-url", "old.db")
    upgraded = jamjet("db", "upgrade", "--database-url", "old.db")
    again = jamjet("db", "upgrade", "--database-url", "old.db")
    after = jamjet("db", "status", "--database-url", "old.db")

    assert (before.code, upgraded.code, again.code, after.code) == (1, 0, 0, 0)
    assert "old.db has the schema version 2, this runtime's is 3: `jamjet db upgrade`" in before.out
    assert upgraded.out == "✓ upgraded old.db from schema version 2 to 3\n"
    assert again.out == "old.db has the schema version 3 already; nothing to do\n"
    assert after.out == "old.db has the schema version 3, which is this runtime's\n"


def test_a_new_database_is_made(jamjet: Jamjet, monkeypatch: pytest.MonkeyPatch, blank_postgres_url: str) -> None:
    monkeypatch.setenv("DATABASE_URL", blank_postgres_url)

    before, made, after = jamjet("db", "status"), jamjet("db", "upgrade"), jamjet("db", "status")

    assert (before.code, made.code, after.code) == (1, 0, 0)
    assert "holds no runtime yet" in before.out
    assert "✓ made the tables of postgresql://" in made.out


def test_answers_are_json_for_scripts(jamjet: Jamjet, old: Path) -> None:
    status = jamjet("db", "status", "--database-url", "old.db", "--json").json
    upgraded = jamjet("--json", "db", "upgrade", "--database-url", "old.db").json

    assert status == {"database": "old.db", "latest": SCHEMA_VERSION, "version": 2, "state": "old"}
    assert upgraded == {"database": "old.db", "latest": SCHEMA_VERSION, "from": 2, "to": SCHEMA_VERSION}


def test_the_command_upgrades_where_a_start_may_not(jamjet: Jamjet, old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAMJET_MIGRATE", "off")

    assert jamjet("db", "upgrade", "--database-url", "old.db").code == 0


def test_a_newer_database_is_refused(jamjet: Jamjet, old: Path) -> None:
    with closing(sqlite3.connect(old)) as file:
        file.execute("PRAGMA user_version = 99")

    status = jamjet("db", "status", "--database-url", "old.db")
    upgraded = jamjet("db", "upgrade", "--database-url", "old.db")

    assert (status.code, upgraded.code) == (1, 1)
    assert "schema version 99, made by a newer runtime" in status.out
    assert "schema version 99, made by a newer runtime" in upgraded.err


async def test_the_status_is_told_while_a_runtime_is_at_work_and_nothing_else_is_done(
    jamjet: Jamjet, filled: Path
) -> None:
    storage = open_file(filled)

    status, upgraded = (jamjet("db", what, "--database-url", "old.db") for what in ("status", "upgrade"))

    assert status.code == 0
    assert (upgraded.code, "in use by the runtime with pid" in upgraded.err) == (1, True)
    await storage.close()


# Copies


async def test_a_runtime_moves_to_a_server_and_back_and_goes_on(
    jamjet: Jamjet, filled: Path, blank_postgres_url: str
) -> None:
    rows = rows_in(filled)

    there = jamjet("db", "copy", "old.db", blank_postgres_url, "--json").json
    back = jamjet("db", "copy", blank_postgres_url, "back.db", "--json").json

    assert there["rows"] == back["rows"] == rows == rows_in(blank_postgres_url) == rows_in("back.db")
    assert there["tables"] == back["tables"]
    assert {each["table"]: each["rows"] for each in there["tables"]}["work_items"] == 1
    await check_that_all_go_on(blank_postgres_url)
    await check_that_all_go_on("back.db")


@pytest.mark.parametrize("to_file", [True, False], ids=["file", "server"])
async def test_what_a_killed_process_held_is_taken_over_on_the_copy(
    jamjet: Jamjet, filled: Path, blank_postgres_url: str, postgres: Databases, to_file: bool
) -> None:
    jamjet("db", "copy", "old.db", blank_postgres_url)
    with psycopg.connect(blank_postgres_url) as server:
        server.execute("UPDATE work_items SET lease_owner = 'gone', concurrency_key = 'k', concurrency_limit = 1")
        server.execute("UPDATE timers SET lease_owner = 'gone'")
        # Closed, until what is at work ends.
        server.execute("INSERT INTO concurrency SELECT tenant_id, 'k', queue, 0, 1, NULL FROM work_items")
        server.execute("INSERT INTO workers VALUES ('default', 'gone', 'runtime', 'h', 1, '1', 0, '{}', 0, 0, 3)")
    target = "file.db" if to_file else postgres.create()

    copied = jamjet("db", "copy", blank_postgres_url, target)

    assert copied.code == 0, copied.err
    await check_that_all_go_on(target, lease_seconds=0.6, poll_seconds=0.1)


def test_a_copy_is_told_as_a_table_and_what_to_take_along(
    jamjet: Jamjet, here: Path, blank_postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "data").mkdir()
    restore(2, here / "data" / "runtime.db")
    (here / "data" / "signing.key").write_text(KEY)
    jamjet("db", "upgrade", "--database-url", "data/runtime.db")

    copied = jamjet("db", "copy", "data/runtime.db", blank_postgres_url)

    assert copied.code == 0
    assert copied.out.splitlines()[0].split() == ["TABLE", "ROWS", "SHA256"]
    assert ["executions", "6"] in [line.split()[:2] for line in copied.out.splitlines()]
    assert "rows from data/runtime.db are in postgresql://" in copied.out
    assert "signing.key in data. A runtime on the copy looks in .jamjet: take them along." in copied.out
    assert "password" not in copied.out


def test_a_target_that_is_not_empty_is_left_alone(jamjet: Jamjet, filled: Path, here: Path) -> None:
    restore(1, here / "other.db")

    answer = jamjet("db", "copy", "old.db", "other.db")

    assert answer.code == 1
    assert "other.db is not empty: there are rows in approvals, " in answer.err


def test_a_source_that_is_not_upgraded_is_left_alone(jamjet: Jamjet, old: Path, here: Path) -> None:
    answer = jamjet("db", "copy", "old.db", "new.db")

    assert answer.code == 1
    assert "has the schema version 2, and this runtime's is 3" in answer.err
    assert not (here / "new.db").exists()


async def test_a_file_in_use_is_neither_read_nor_filled(jamjet: Jamjet, filled: Path) -> None:
    storage = open_file(filled)
    assert "in use by the runtime" in jamjet("db", "copy", "old.db", "new.db").err
    await storage.close()

    storage = open_file(Path("new.db"))
    assert "in use by the runtime" in jamjet("db", "copy", "old.db", "new.db").err
    await storage.close()


async def test_a_server_in_use_is_neither_read_nor_filled(
    jamjet: Jamjet, filled: Path, blank_postgres_url: str
) -> None:
    settings = Settings(database_url=blank_postgres_url, auth="off", signing_key=KEY)
    async with open_runtime(settings):
        read, written = (
            jamjet("db", "copy", *which) for which in ((blank_postgres_url, "new.db"), ("old.db", blank_postgres_url))
        )

    for answer in (read, written):
        assert answer.code == 1
        assert f"in use by pid {os.getpid()} on " in answer.err


async def test_remote_workers_that_wait_for_a_runtime_do_not_stand_in_the_way(
    jamjet: Jamjet, filled: Path, blank_postgres_url: str
) -> None:
    settings = Settings(database_url=blank_postgres_url, auth="off", signing_key=KEY)
    async with open_runtime(settings) as runtime:
        claimant = Claimant("gpu-1", queues=["gpu"])
        assert await runtime.remote.claim(Principal(), claimant, most=1, seconds=0) == []
        assert "gpu-1" in {worker.worker_id for worker in await runtime.workers(Principal())}

    assert jamjet("db", "copy", blank_postgres_url, "new.db").code == 0


def test_no_runtime_joins_a_server_while_it_is_copied(filled: Path, postgres_url: str) -> None:
    from jamjet_storage_postgres import open_database

    database = open_database(postgres_url)
    assert database is not None
    with database.filling(), psycopg.connect(postgres_url, autocommit=True) as other:
        other.execute("SET lock_timeout = 100")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            other.execute("INSERT INTO workers VALUES ('default', 'new', 'runtime', 'h', 1, '1', 0, '{}', 0, 0, 0)")


def test_a_copy_that_fails_in_the_middle_leaves_the_target_empty(
    jamjet: Jamjet, filled: Path, blank_postgres_url: str
) -> None:
    with closing(sqlite3.connect(filled)) as file:
        # Texts with a NUL are a thing of SQLite's alone.
        file.execute("UPDATE workflows SET version = '0.1.0' || char(0) WHERE workflow_id = 'work'")
        file.commit()

    answer = jamjet("db", "copy", "old.db", blank_postgres_url)

    assert answer.code == 1
    assert "the database refused: PostgreSQL text fields cannot contain NUL" in answer.err
    assert "Traceback" not in answer.err
    assert rows_in(blank_postgres_url) == 0


KILLED = """
import os, signal, sys
from jamjet_kernel.cli import copying, main

def kill(*_):
    os.kill(os.getpid(), signal.SIGKILL)

copying._compared = kill
main()
"""


@pytest.mark.parametrize("to_file", [True, False], ids=["file", "server"])
def test_a_copy_that_is_killed_leaves_a_target_that_can_be_filled(
    jamjet: Jamjet, filled: Path, request: pytest.FixtureRequest, to_file: bool
) -> None:
    target = "new.db" if to_file else request.getfixturevalue("blank_postgres_url")
    command = [sys.executable, "-c", KILLED, "db", "copy", "old.db", target]

    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL

    assert rows_in(target) == 0
    assert jamjet("db", "copy", "old.db", target).code == 0
    assert rows_in(target) == rows_in(filled)


# What cannot be


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["status", "--database-url", "postgresql://anna:secret@localhost:1/jamjet"], 1, "Connection refused"),
        (["status", "--database-url", "postgresql://anna:se%zzcret@localhost/jamjet"], 1, "cannot be read"),
        (["upgrade", "--database-url", "oracle://db/jamjet"], 1, "no storage named 'oracle'"),
        (["upgrade", "--database-url", "sqlite://host/a.db"], 1, "as a SQLite storage"),
        (["upgrade", "--database-url", "deed.py"], 1, "no SQLite database"),
        (["copy", "missing.db", "new.db"], 1, "there is no runtime in"),
        (["copy", "same.db", "./same.db"], 2, "the same database"),
        (["copy", "same.db", "sqlite:///same.db"], 2, "the same database"),
        (["copy", "same.db"], 2, "TARGET"),
        (["copy", "missing.db", "oracle://db/jamjet"], 1, "no storage named 'oracle'"),
    ],
)
def test_what_cannot_be_is_told_in_a_line(
    jamjet: Jamjet, here: Path, arguments: list[str], code: int, said: str
) -> None:
    answer = jamjet("db", *arguments)

    assert answer.code == code
    assert said in answer.err
    assert "Traceback" not in answer.err
    assert "cret" not in answer.err
    assert {path.name for path in here.iterdir()} <= {"deed.py", "deed.py.lock", "missing.db.lock"}


def test_a_missing_driver_is_told_with_what_to_install(jamjet: Jamjet, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("jamjet_storage_postgres.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "psycopg", None)

    answer = jamjet("db", "status", "--database-url", "postgresql://localhost/jamjet")

    assert answer.code == 1
    assert "pip install 'jamjet-runtime[postgres]'" in answer.err
