"""The servers of a database are restarted one after the other behind a load balancer, and nobody notices."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from scenario_balancer import Balancer
from scenario_load import EXPECTED, catalogue
from scenario_server import Client, KilledServer

ROUNDS = 2
CLIENTS = 8


@pytest.fixture
def servers(tmp_path: Path, postgres_url: str) -> Iterator[list[KilledServer]]:
    # As in production: a lease of 15 s, and 10 s for nodes to finish. The balancer looks ten times a second.
    servers = [KilledServer(tmp_path, postgres_url, drain_seconds=0.5) for _ in range(2)]
    yield servers
    for server in servers:
        server.kill()


@pytest.mark.slow
async def test_a_rolling_restart_fails_no_request_and_loses_no_execution(servers: list[KilledServer]) -> None:
    for server in servers:
        server.start()
    async with Balancer([server.port for server in servers]).running() as balancer:
        await balancer.until_ready(2)
        async with Client(balancer.url) as client, httpx.AsyncClient(base_url=balancer.url, trust_env=False) as http:
            for ir in catalogue(_python)[:3]:
                await client.ask("POST", "/workflows", {"ir": ir})
            load = Load(http)
            clients = [asyncio.create_task(load.run(number)) for number in range(CLIENTS)]
            await asyncio.sleep(0.5)

            for _ in range(ROUNDS):
                for server in servers:
                    assert await asyncio.to_thread(server.stop) == 0
                    server.start()
                    await balancer.until_ready(2)
                    await asyncio.sleep(0.3)

            load.is_over = True
            await asyncio.gather(*clients)
            assert balancer.failures == []
            await load.check(client)
    assert all("Traceback" not in server.log() for server in servers)
    print(
        f"{2 * ROUNDS} restarts, {sum(load.answers.values())} requests, {len(load.started)} executions: {load.answers}"
    )


def _python(function: str) -> dict[str, str]:
    return {"type": "python_fn", "function": f"scenario_steps:{function}"}


class Load:
    """Clients that start executions and look at them, and count what they are answered."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http
        self.started: dict[str, str] = {}
        self.answers: Counter[str] = Counter()
        self.is_over = False

    async def run(self, number: int) -> None:
        workflow_ids = ("chain", "retried", "timed")
        while not self.is_over:
            workflow_id = workflow_ids[(number + len(self.started)) % 3]
            started = await self._ask("POST", "/executions", json={"workflow_id": workflow_id, "input": {"n": 0}})
            execution_id = started.json()["execution_id"]
            self.started[execution_id] = workflow_id
            await self._ask("GET", f"/executions/{execution_id}")
            await self._ask("GET", f"/executions/{execution_id}/events")
            # Some wait for longer than a server that stops goes on.
            await self._ask("GET", f"/executions/{execution_id}?wait={5 if number % 2 else 0.2}")
            await asyncio.sleep(0.02)

    async def _ask(self, method: str, path: str, json: object = None) -> httpx.Response:
        answer = await self._http.request(method, path, json=json, timeout=20)
        self.answers[f"{method} {answer.status_code}"] += 1
        assert answer.is_success, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer

    async def check(self, client: Client) -> None:
        for execution_id, workflow_id in self.started.items():
            execution = await client.ask("GET", f"/executions/{execution_id}?wait=10")
            events = (await client.ask("GET", f"/executions/{execution_id}/events"))["events"]
            results = Counter(event["node_id"] for event in events if event["kind"] == "NodeCompleted")

            assert execution["status"] == "completed", execution
            assert execution["state"] == EXPECTED[workflow_id]
            assert set(results.values()) == {1}, results
