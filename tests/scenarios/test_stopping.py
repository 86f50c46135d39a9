"""A process is told to stop, and the others go on with its work at once. Real processes, real signals."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from scenario_server import Client, KilledServer
from scenario_site import workflow


class Fleet:
    """Server processes of one database. What is not said is as in production: a lease of 15 seconds."""

    def __init__(self, folder: Path, url: str, stack: ExitStack) -> None:
        self._folder = folder
        self._url = url
        self._stack = stack

    def server(self, **settings: object) -> KilledServer:
        server = KilledServer(self._folder, self._url, **settings)
        self._stack.callback(server.kill)
        server.start()
        return server


@pytest.fixture
def fleet(tmp_path: Path, postgres_url: str) -> Iterator[Fleet]:
    with ExitStack() as stack:
        yield Fleet(tmp_path, postgres_url, stack)


def naps(seconds: float, marker: Path, function: str = "nap", **node: object) -> dict[str, Any]:
    input = {"seconds": seconds, "marker": str(marker)}
    return {"type": "python_fn", "function": f"scenario_steps:{function}", "input_mapping": input, **node}


async def register(client: Client, nodes: dict[str, Any], path: str) -> None:
    await client.ask("POST", "/workflows", {"ir": workflow(nodes, path)})


async def start(client: Client) -> str:
    execution_id: str = (await client.ask("POST", "/executions", {"workflow_id": "story"}))["execution_id"]
    return execution_id


async def begun(marker: Path, times: int = 1) -> list[int]:
    """The processes that a function has begun in."""
    async with asyncio.timeout(20):
        while not marker.exists() or marker.read_text().count("\n") < times:
            await asyncio.sleep(0.01)
    return [int(pid) for pid in marker.read_text().split()]


async def ended(client: Client, execution_id: str) -> dict[str, Any]:
    execution: dict[str, Any] = await client.ask("GET", f"/executions/{execution_id}?wait=20")
    assert execution["status"] == "completed"
    return execution


async def kinds(client: Client, execution_id: str) -> list[str]:
    events = (await client.ask("GET", f"/executions/{execution_id}/events"))["events"]
    return [event["kind"] for event in events]


@pytest.mark.parametrize(("function", "hints"), [("nap", "on"), ("nap_in_thread", "off")])
async def test_a_node_that_does_not_finish_in_time_goes_on_elsewhere_at_once(
    fleet: Fleet, tmp_path: Path, function: str, hints: str
) -> None:
    one, two = [fleet.server(shutdown_grace=0.3, hints=hints) for _ in range(2)]
    marker = tmp_path / "begun"
    async with Client(one.url) as at_one, Client(two.url) as at_two:
        await at_two.ask("GET", "/ready")
        await register(at_one, {"a": naps(2, marker, function)}, "a > end")
        execution_id = await start(at_one)
        await begun(marker)

        told_at = time.monotonic()
        one.signal(signal.SIGTERM)
        pids = await begun(marker, times=2)
        took = time.monotonic() - told_at
        code = await asyncio.to_thread(one.wait)
        workers = (await at_two.ask("GET", "/workers"))["workers"]
        execution = await ended(at_two, execution_id)

        assert code == 0
        assert [worker["pid"] for worker in workers] == [two.pid] == pids[1:]
        assert execution["state"]["pid"] == two.pid
        assert (await kinds(at_two, execution_id)).count("NodeCompleted") == 1
    assert took < 5, "it waited for the lease to end"
    assert "Traceback" not in one.log() + two.log()


async def test_a_node_that_finishes_in_time_counts_and_the_next_one_runs_elsewhere(
    fleet: Fleet, tmp_path: Path
) -> None:
    one, two = fleet.server(lease_seconds=0.6), fleet.server(lease_seconds=0.6)
    markers = [tmp_path / name for name in "ab"]
    nodes = {name: naps(seconds, tmp_path / name, output_key=name) for name, seconds in (("a", 2), ("b", 0))}
    async with Client(one.url) as at_one, Client(two.url) as at_two:
        await at_two.ask("GET", "/ready")
        await register(at_one, nodes, "a > b > end")
        execution_id = await start(at_one)
        await begun(markers[0])

        code = await asyncio.to_thread(one.stop)
        execution = await ended(at_two, execution_id)

        assert code == 0
        first, second = [await begun(marker) for marker in markers]
        assert len(first) == len(second) == 1, "the lease did not last as long as the grace"
        assert first != second == [two.pid]
        assert execution["state"]["a"] == {"pid": first[0]}


async def test_what_has_not_begun_goes_elsewhere_while_the_rest_finishes(fleet: Fleet, tmp_path: Path) -> None:
    one, two = fleet.server(concurrency=1), fleet.server()
    marker = tmp_path / "begun"
    async with Client(one.url) as at_one, Client(two.url) as at_two:
        await at_two.ask("GET", "/ready")
        await register(at_one, {"a": naps(3, marker)}, "a > end")
        # Decided at the same time, so all of them are leased to the process that decides.
        executions = await asyncio.gather(*(start(at_one) for _ in range(8)))
        await begun(marker)

        one.signal(signal.SIGTERM)
        pids = await begun(marker, times=8)
        still_there = {worker["pid"] for worker in (await at_two.ask("GET", "/workers"))["workers"]}
        for execution_id in executions:
            await ended(at_two, execution_id)

        assert still_there == {one.pid, two.pid} == set(pids)
        assert pids.count(one.pid) == 1
        assert await asyncio.to_thread(one.wait) == 0


async def test_the_only_process_leaves_its_work_to_the_next_start(tmp_path: Path) -> None:
    server = KilledServer(tmp_path, shutdown_grace=0.2)
    marker = tmp_path / "begun"
    try:
        server.start()
        async with Client(server.url) as client:
            await register(client, {"a": naps(1, marker)}, "a > end")
            execution_id = await start(client)
            await begun(marker)

            assert await asyncio.to_thread(server.stop) == 0
            server.start()

            await ended(client, execution_id)
            assert len(await begun(marker)) == 2
    finally:
        server.kill()


async def test_a_second_signal_does_not_wait(fleet: Fleet, tmp_path: Path) -> None:
    server = fleet.server(drain_seconds=30)
    async with Client(server.url) as client:
        await client.ask("GET", "/ready")

        server.signal(signal.SIGTERM)
        while (await asyncio.to_thread(httpx.get, f"{server.url}/ready")).status_code == 200:
            await asyncio.sleep(0.02)
        server.signal(signal.SIGTERM)

        assert await asyncio.to_thread(server.wait) == 130


async def test_while_it_drains_it_says_so_and_serves(fleet: Fleet) -> None:
    server = fleet.server(drain_seconds=1)
    async with Client(server.url) as client, httpx.AsyncClient(base_url=server.url, trust_env=False) as caller:
        await client.ask("GET", "/ready")

        server.signal(signal.SIGTERM)
        while (ready := await caller.get("/ready")).status_code == 200:
            await asyncio.sleep(0.02)
        health, listed = await caller.get("/health"), await caller.get("/executions")

        assert ready.json()["reason"] == "it is about to stop"
        assert (health.status_code, listed.status_code) == (200, 200)
        assert listed.headers["connection"] == "close"
        assert await asyncio.to_thread(server.wait) == 0
