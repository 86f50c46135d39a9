"""What tests of several areas share: a runtime on a SQLite file of its own, and databases on a real PostgreSQL."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import hypothesis
import pytest

sys.path.insert(0, str(Path(__file__).parent / "support"))

from postgres_server import Databases, PostgresServer

from jamjet_kernel import Settings
from jamjet_kernel.runtime import Runtime, open_runtime
from jamjet_storage_postgres import open_server

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # What a shell script starts in the background ignores it, and so would everything that a test starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)


# An example takes as long as a busy machine lets it.
hypothesis.settings.register_profile("untimed", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("untimed")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(database_url=str(tmp_path / "runtime.db"), shutdown_grace=0, auth="off")


@pytest.fixture
async def runtime(settings: Settings) -> AsyncIterator[Runtime]:
    async with open_runtime(settings) as opened:
        yield opened


@pytest.fixture(scope="session")
def postgres() -> Iterator[Databases]:
    """On a server of this session, or on the one that JAMJET_TEST_POSTGRES_URL names."""
    server = None
    url = os.environ.get("JAMJET_TEST_POSTGRES_URL")
    if not url:
        server = PostgresServer()
        url = server.url()
    databases = Databases(url)
    yield databases
    databases.close()
    if server is not None:
        server.close()


@pytest.fixture
def blank_postgres_url(postgres: Databases) -> Iterator[str]:
    """A database without any tables."""
    url = postgres.create()
    yield url
    postgres.drop(url)


@pytest.fixture
def postgres_url(postgres: Databases) -> Iterator[str]:
    """A database that has the tables, and nothing in them."""
    url = postgres.borrow(lambda url: asyncio.run(open_server(url).close()))
    yield url
    postgres.give_back(url)
