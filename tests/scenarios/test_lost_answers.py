"""The line to the database fails between COMMIT and its answer, again and again, also when work is claimed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from postgres_proxy import Fault, PostgresProxy, every
from postgres_server import Databases
from scenario_site import ME, Probe, ended, kinds, probe, workflow

from jamjet_kernel import Settings
from jamjet_kernel.core.progress import Status
from jamjet_kernel.runtime import open_runtime


@pytest.fixture
def proxy(postgres: Databases) -> Iterator[PostgresProxy]:
    with PostgresProxy(postgres.url) as proxy:
        yield proxy


async def test_what_was_claimed_and_not_heard_of_is_not_stuck(proxy: PostgresProxy, postgres_url: str) -> None:
    # Little is leased as it is decided, so most of it is claimed; nobody dies of a lease of an hour.
    settings = Settings(
        database_url=proxy.url(postgres_url),
        auth="off",
        shutdown_grace=0,
        concurrency=2,
        lease_seconds=3600,
        poll_seconds=0.1,
        hints="off",
    )
    async with open_runtime(settings, extra_plugins=[Probe()]) as runtime:
        await runtime.register(ME, workflow({"a": probe("a"), "b": probe("b"), "c": probe("c")}, "a > b > c > end"))
        proxy.plan(every(7, Fault.ANSWER_LOST))

        executions = await asyncio.gather(*(runtime.start(ME, "story", None, {}) for _ in range(40)))

        async with asyncio.timeout(60):
            for execution in executions:
                assert (await ended(runtime, execution)).head.status is Status.COMPLETED
        proxy.plan([])
        assert len(proxy.happened) > 3
        for execution in executions:
            assert (await kinds(runtime, execution)).count("NodeCompleted") == 3
