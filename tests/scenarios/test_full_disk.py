"""The disk takes nothing more for a while. A limit on the size of files stands for it: writes fail as on a full one."""

from __future__ import annotations

import asyncio
import resource
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from scenario_checks import sound
from scenario_load import catalogue
from scenario_server import Client, KilledServer

from jamjet_kernel.core.progress import Status

pytestmark = pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="only Linux limits another process")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[KilledServer]:
    server = KilledServer(tmp_path)
    server.start()
    yield server
    server.kill()


async def test_a_full_disk_stores_nothing_loses_nothing_and_is_told(server: KilledServer) -> None:
    chain = catalogue(lambda function: {"type": "python_fn", "function": f"scenario_steps:{function}"})[0]
    start = {"workflow_id": "chain", "input": {"n": 0, "pad": "x" * 1000}}
    async with Client(server.url) as client, httpx.AsyncClient(base_url=server.url, trust_env=False) as http:
        await client.ask("POST", "/workflows", {"ir": chain})
        acknowledged = [(await client.ask("POST", "/executions", start))["execution_id"]]

        _fill(server)
        while (answer := await http.post("/executions", json=start)).status_code == 201:
            acknowledged.append(answer.json()["execution_id"])
        async with asyncio.timeout(10):
            while (ready := await http.get("/ready")).status_code == 200:
                await http.post("/executions", json=start)
                await asyncio.sleep(0.1)
        listed = await http.get("/executions")
        _clear(server)
        acknowledged.append((await client.ask("POST", "/executions", start))["execution_id"])
        async with asyncio.timeout(10):
            while (await http.get("/ready")).status_code != 200:
                await asyncio.sleep(0.1)
        for execution_id in acknowledged:
            assert (await client.ask("GET", f"/executions/{execution_id}?wait=10"))["status"] == "completed"

    assert (answer.status_code, answer.json()["code"]) == (503, "storage_error")
    assert "the database refused: " in ready.json()["reason"]
    assert listed.status_code == 200, "what is stored can be read"
    assert await asyncio.to_thread(server.stop) == 0
    executions = sound(server.database)
    assert {execution.execution_id for execution in executions} == set(acknowledged)
    assert {execution.progress.status for execution in executions} == {Status.COMPLETED}


def _fill(server: KilledServer) -> None:
    """The write-ahead log is the largest file, and grows by a little more."""
    size = server.database.with_name("runtime.db-wal").stat().st_size
    resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (size + 20_000, resource.RLIM_INFINITY))


def _clear(server: KilledServer) -> None:
    resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
