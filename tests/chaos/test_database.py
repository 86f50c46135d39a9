"""The database dies and comes back, and connections to it are cut, also while a commit's answer is on its way."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from chaos_ordeal import FAULTS, SEED, under_load
from chaos_runtimes import Runtimes, named
from postgres_proxy import PostgresProxy, at_random
from postgres_server import PostgresServer

pytestmark = pytest.mark.slow

NAMES = ["one", "two", "three"]


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    """Of this test alone: others would not like what happens to it."""
    server = PostgresServer()
    yield server
    server.close()


async def test_nothing_is_lost_when_the_database_is_killed(tmp_path: Path, server: PostgresServer) -> None:
    runtimes = Runtimes(tmp_path, named(server.url(), NAMES))
    try:
        async with under_load(server.url(), runtimes) as ordeal:
            for _ in range(FAULTS):
                await ordeal.moment(0.5, 3.0)
                server.kill()
                await ordeal.moment(0, 2.0)
                await asyncio.to_thread(server.start)
    finally:
        runtimes.kill()

    print(f"\n{FAULTS} kills of the database: {ordeal.figures}")


async def test_nothing_is_lost_or_done_twice_when_connections_are_cut(tmp_path: Path, blank_postgres_url: str) -> None:
    dice = random.Random(SEED)
    with PostgresProxy(blank_postgres_url, dice) as proxy:
        runtimes = Runtimes(tmp_path, named(proxy.url(blank_postgres_url), NAMES))
        try:
            async with under_load(blank_postgres_url, runtimes) as ordeal:
                proxy.plan(at_random(0.05, dice))
                proxy.torn = 0.002
                while len(proxy.happened) < 10 * FAULTS:
                    await asyncio.sleep(0.05)
                proxy.plan([])
                proxy.torn = 0.0
        finally:
            await asyncio.to_thread(runtimes.kill)

    cuts = ", ".join(f"{count} × {fault.value}" for fault, count in Counter(proxy.happened).items())
    print(f"\n{len(proxy.happened)} cuts ({cuts}): {ordeal.figures}")
