"""The SQLite driver: the contract of every storage, and what is a file's own."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
import pytest_asyncio

import jamjet_storage_sqlite
from jamjet_kernel import Settings
from jamjet_kernel.errors import PluginError, StorageError
from jamjet_kernel.ports import Storage
from jamjet_kernel.testing import StorageContract
from jamjet_kernel.testing.storage import TENANT, commit, kinds, sequence_of, store
from jamjet_storage_sql import SCHEMA_VERSION, SqlStorage
from jamjet_storage_sqlite import open_file
from jamjet_storage_sqlite.engine import open_engine

try:
    import resource
except ImportError:  # on Windows
    resource = None  # type: ignore[assignment]


def open_storage(url: str) -> SqlStorage | None:
    return jamjet_storage_sqlite.open_storage(url=url, settings=Settings())


class TestSqlite(StorageContract):
    @pytest_asyncio.fixture
    async def storage(self, tmp_path: Path) -> AsyncIterator[Storage]:
        storage = open_file(tmp_path / "runtime.db")
        yield storage
        await storage.close()


# Which file


@pytest.mark.parametrize(
    ("url", "file"),
    [
        (".jamjet/runtime.db", ".jamjet/runtime.db"),
        ("sqlite:///relative.db", "relative.db"),
        ("sqlite:///{here}/deep/er/absolute.db", "deep/er/absolute.db"),
        ("odd name%41?#.db", "odd name%41?#.db"),
        ("./odd:name.db", "odd:name.db"),
    ],
)
async def test_a_url_names_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str, file: str) -> None:
    monkeypatch.chdir(tmp_path)

    for _ in range(2):
        storage = open_storage(url.format(here=tmp_path))
        assert storage is not None
        await storage.close()

    assert (tmp_path / file).is_file()


@pytest.mark.parametrize(
    "url",
    [
        "",
        ":memory:",
        "sqlite://",
        "sqlite:///:memory:",
        "sqlite://host/a.db",
        "sqlite:///a.db?mode=ro",
        "a\0b",
        "sqlite:a.db",
        "sqlite:/a.db",
        "postgresql:/host/database",
        "postgresql+psycopg:database",
        "postgres:/anna:se/cret@host/database",
        "host=localhost password=secret dbname=database",
    ],
)
def test_a_url_without_a_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.chdir(tmp_path)

    with pytest.raises(PluginError, match=r"sqlite:///relative\.db") as refused:
        open_storage(url)

    assert "cret" not in str(refused.value)
    assert list(tmp_path.iterdir()) == []


def test_another_drivers_url_is_left_to_it() -> None:
    assert open_storage("postgresql://localhost/jamjet") is None


# Files that cannot be used


def test_a_file_that_is_no_database_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("to do: nothing of this may be lost\n" * 100)
    before = path.read_bytes()

    with pytest.raises(PluginError, match=r"notes\.txt is no SQLite database"):
        open_file(path)

    assert path.read_bytes() == before


def test_a_damaged_database_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "damaged.db"
    path.write_bytes(b"SQLite format 3\0" + b"\xff" * 8192)
    before = path.read_bytes()

    with pytest.raises(PluginError, match=r"cannot read .*damaged\.db"):
        open_file(path)

    assert path.read_bytes() == before


def test_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()

    with pytest.raises(PluginError, match=r"data/runtime\.db"):
        open_file(tmp_path / "data")


def test_a_database_of_another_application_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "music.db"
    sql(path, "CREATE TABLE albums (name TEXT)")
    before = path.read_bytes()

    with pytest.raises(PluginError, match="another application"):
        open_file(path)

    assert path.read_bytes() == before


async def test_a_newer_schema_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "runtime.db"
    await open_file(path).close()
    sql(path, f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    before = path.read_bytes()

    with pytest.raises(PluginError, match=f"schema version {SCHEMA_VERSION + 1}.*upgrade"):
        open_file(path)

    assert path.read_bytes() == before


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everything")
def test_a_read_only_folder_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)

    with pytest.raises(PluginError, match="must be writable"):
        open_file(tmp_path / "runtime.db")


def test_a_path_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(PluginError, match="cannot lock"):
        open_file(tmp_path / "file" / "runtime.db")


async def test_a_file_that_was_refused_is_not_kept_locked(tmp_path: Path) -> None:
    path = tmp_path / "runtime.db"
    path.write_text("not yet a database")
    with pytest.raises(PluginError):
        open_file(path)

    path.unlink()

    await open_file(path).close()


# One runtime a file


async def test_a_second_runtime_is_refused_and_told_who_is_there(tmp_path: Path) -> None:
    path, link = tmp_path / "runtime.db", tmp_path / "link.db"
    storage = open_file(path)
    link.symlink_to(path)

    with pytest.raises(PluginError, match=f"in use by the runtime with pid {os.getpid()} on "):
        open_file(path)
    with pytest.raises(PluginError, match="in use"):
        open_storage(str(link))

    await store(storage, commit())
    await storage.close()
    await open_file(path).close()


async def test_the_lock_goes_with_its_process(tmp_path: Path) -> None:
    path = tmp_path / "runtime.db"
    with child(WRITER, path) as process:
        read_line(process)
        with pytest.raises(PluginError, match=f"pid {process.pid} on "):
            open_file(path)

        process.send_signal(signal.SIGKILL)
        process.wait()

    await open_file(path).close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
async def test_a_forked_child_does_not_keep_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "runtime.db"
    with child(FORKER, path) as process:
        orphan = int(read_line(process))
        process.send_signal(signal.SIGKILL)
        process.wait()
        try:
            await open_file(path).close()
        finally:
            os.kill(orphan, signal.SIGKILL)


# Durability


@pytest.mark.parametrize("acknowledged", [1, 7, 40])
async def test_what_was_acknowledged_survives_kill_9(tmp_path: Path, acknowledged: int) -> None:
    path = tmp_path / "runtime.db"
    with child(WRITER, path) as process:
        told = [read_line(process) for _ in range(acknowledged)]
        process.send_signal(signal.SIGKILL)
        told += process.communicate()[0].splitlines()

    storage = open_file(path)

    whole = [line for line in told if line.endswith(".")]
    assert len(whole) >= acknowledged
    for name in (line.rstrip(".") for line in whole):
        assert await sequence_of(storage, name) == 5
        assert await storage.receipts.get(TENANT, name) is not None
    waiting = {work.execution_id for work in await storage.work.pending(limit=100_000)}
    assert waiting == {head.execution_id for head in await storage.executions.page(TENANT, limit=100_000)}
    await storage.close()


@pytest.mark.parametrize(("synchronous", "level"), [("FULL", 2), ("NORMAL", 1), ("EXTRA", 3)])
def test_every_connection_is_as_durable_as_set(tmp_path: Path, synchronous: str, level: int) -> None:
    engine = open_engine(tmp_path / "runtime.db", synchronous=synchronous, connections=2)

    with engine.connect() as one, engine.connect() as other:
        pragmas = [
            connection.exec_driver_sql(f"PRAGMA {pragma}").scalar()
            for connection in (one, other)
            for pragma in ("synchronous", "journal_mode")
        ]

    assert pragmas == [level, "wal"] * 2
    engine.dispose()


async def test_closing_leaves_one_file(tmp_path: Path) -> None:
    storage = open_file(tmp_path / "runtime.db")
    await store(storage, commit())

    await storage.close()

    left = {path.name for path in tmp_path.iterdir()}
    assert left - {"runtime.db.lock"} == {"runtime.db"}


async def test_what_was_begun_is_finished_before_closing(tmp_path: Path) -> None:
    storage = open_file(tmp_path / "runtime.db")
    writing = [asyncio.create_task(storage.commit([commit(f"e{n}")])) for n in range(20)]
    await asyncio.sleep(0)

    await storage.close()

    assert [kinds(answers) for answers in await asyncio.gather(*writing)] == [[None]] * 20


@pytest.mark.skipif(resource is None, reason="no limits here")
async def test_a_full_disk_refuses_and_recovers(tmp_path: Path) -> None:
    storage = open_file(tmp_path / "runtime.db")
    await store(storage, commit("before"))

    with largest_file(2**20):
        answers = await storage.commit([commit("big", count=30_000), commit("small")])
    await store(storage, commit("after"))

    assert kinds(answers) == [StorageError, StorageError]
    assert "disk" in str(answers[0])
    assert [await sequence_of(storage, name) for name in ("before", "big", "small", "after")] == [1, None, None, 1]
    await storage.close()


async def test_no_thread_stays_behind(tmp_path: Path) -> None:
    storage = open_file(tmp_path / "runtime.db")
    await store(storage, commit())
    await storage.executions.page(TENANT)

    await storage.close()

    assert not [thread for thread in threading.enumerate() if thread.name.startswith("sqlite-")]


# Helpers


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """As if the disk were full: no file of this process grows beyond that."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def sql(path: Path, statement: str) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(statement)


WRITER = """
import asyncio, itertools, sys
from pathlib import Path
from jamjet_kernel.testing.storage import commit, item, receipt
from jamjet_storage_sqlite import open_file

async def write(storage, writer):
    for n in itertools.count():
        name = f"{writer}-{n}"
        first = commit(name, count=2, enqueue=[item("a", name)], receipt=receipt(name))
        second = commit(name, expected=2, count=3, settle=["a"], enqueue=[item("b", name)])
        if await storage.commit([first, second]) != [None, None]:
            raise SystemExit("refused")
        sys.stdout.write(name + ".\\n")
        sys.stdout.flush()

async def main():
    storage = open_file(Path(sys.argv[1]))
    await asyncio.gather(*(write(storage, writer) for writer in range(8)))

asyncio.run(main())
"""

FORKER = """
import os, sys, time
from pathlib import Path
from jamjet_storage_sqlite import open_file

storage = open_file(Path(sys.argv[1]))
if not os.fork():
    print(os.getpid(), flush=True)  # by now what a fork hands down has been let go
time.sleep(60)
"""


@contextmanager
def child(program: str, path: Path) -> Iterator[subprocess.Popen[str]]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with subprocess.Popen(
        [sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def read_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    line = process.stdout.readline().strip()
    assert line, "the child ended"
    return line
