"""The PostgreSQL driver: the contract of every storage, and what many processes on one server make of it."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator
from typing import Any

import psycopg
import pytest
import pytest_asyncio
from postgres_server import GUARDED, Databases
from psycopg.conninfo import conninfo_to_dict

import jamjet_storage_postgres
from jamjet_kernel import Settings
from jamjet_kernel.errors import PluginError
from jamjet_kernel.ports import Storage
from jamjet_kernel.testing import StorageContract
from jamjet_kernel.testing.storage import commit, sequence_of, store
from jamjet_storage_postgres import open_server
from jamjet_storage_postgres.engine import engine_of
from jamjet_storage_postgres.location import server_of
from jamjet_storage_sql import SqlStorage


def open_storage(url: str) -> SqlStorage | None:
    return jamjet_storage_postgres.open_storage(url=url, settings=Settings())


def connected(url: str, statement: str) -> tuple[Any, ...] | None:
    """The first row that the statement answers."""
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(statement)
        return cursor.fetchone() if cursor.description else None  # type: ignore[call-overload,no-any-return]  # tests' own words


class TestPostgres(StorageContract):
    @pytest_asyncio.fixture
    async def storage(self, postgres_url: str) -> AsyncIterator[Storage]:
        storage = open_server(postgres_url)
        yield storage
        await storage.close()


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
