"""A runtime is flooded while its database answers nothing: it refuses, stays small, and keeps what it acknowledged."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from postgres_server import PostgresServer
from scenario_load import catalogue
from scenario_server import Client, KilledServer

PAUSED = 4.0
SIZE = 500_000


@pytest.fixture
def database() -> Iterator[PostgresServer]:
    """A server of its own: others must not wait for it."""
    server = PostgresServer()
    yield server
    server.resume()
    server.close()


@pytest.fixture
def server(database: PostgresServer, tmp_path: Path) -> Iterator[KilledServer]:
    server = KilledServer(tmp_path, database.url(), stall_seconds=1.5, max_unwritten=10)
    yield server
    server.kill()


@pytest.mark.slow
async def test_while_the_database_is_stuck_requests_are_refused_and_memory_does_not_grow(
    server: KilledServer, database: PostgresServer
) -> None:
    server.start()
    async with Client(server.url) as client:
        chain = catalogue(lambda function: {"type": "python_fn", "function": f"scenario_steps:{function}"})[0]
        await client.ask("POST", "/workflows", {"ir": chain})
        async with Flood(server.url) as flood:
            await flood.until(lambda: len(flood.acknowledged) >= 50)
            before = _megabytes(server.pid)

            database.pause()
            flood.answers.clear()
            began, most = time.monotonic(), before
            while time.monotonic() - began < PAUSED:
                await asyncio.sleep(0.1)
                most = max(most, _megabytes(server.pid))
            answers, sent = flood.answers.copy(), flood.sent / 1e6
            health = await asyncio.to_thread(httpx.get, f"{server.url}/health")
            ready = await asyncio.to_thread(httpx.get, f"{server.url}/ready")
            database.resume()

            count = len(flood.acknowledged)
            await flood.until(lambda: len(flood.acknowledged) >= count + 20)

        print(f"paused for {PAUSED} s: {sent:.0f} MB sent, {most - before:.0f} MB more in use, {answers}")
        assert answers[429] > 0
        assert answers[503] > 0
        assert answers.keys() <= {201, 429, 503}
        assert flood.without_retry_after == 0
        assert (health.status_code, ready.status_code) == (200, 503)
        assert most - before < 100, "megabytes"
        for execution_id in flood.acknowledged:
            execution = await client.ask("GET", f"/executions/{execution_id}?wait=10")
            assert (execution["status"], execution["state"]["n"]) == ("completed", 3)
    assert await asyncio.to_thread(server.stop) == 0


class Flood:
    """Clients that send large requests as quickly as they are answered, and some that read."""

    def __init__(self, url: str) -> None:
        self.answers: Counter[int] = Counter()
        self.acknowledged: list[str] = []
        self.without_retry_after = 0
        self.sent = 0
        self._http = httpx.AsyncClient(base_url=url, timeout=30, trust_env=False, limits=httpx.Limits())
        self._body = {"workflow_id": "chain", "workflow_version": "1.0.0", "input": {"n": 0, "pad": "x" * SIZE}}

    async def __aenter__(self) -> Flood:
        self._clients = [asyncio.create_task(self._run(number)) for number in range(60)]
        return self

    async def __aexit__(self, *_: object) -> None:
        for client in self._clients:
            client.cancel()
        ends = await asyncio.gather(*self._clients, return_exceptions=True)
        await self._http.aclose()
        broken = [end for end in ends if not isinstance(end, asyncio.CancelledError)]
        assert not broken, broken

    async def until(self, condition: object) -> None:
        assert callable(condition)
        async with asyncio.timeout(60):
            while not condition():
                await asyncio.sleep(0.02)

    async def _run(self, number: int) -> None:
        while True:
            if number % 6 == 0 and self.acknowledged:
                answer = await self._http.get(f"/executions/{self.acknowledged[0]}/events?limit=1")
                if answer.status_code == 200:
                    continue
            else:
                self.sent += SIZE
                answer = await self._http.post("/executions", json=self._body)
            self.answers[answer.status_code] += 1
            if answer.status_code == 201:
                self.acknowledged.append(answer.json()["execution_id"])
            elif answer.headers.get("retry-after") != "1":
                self.without_retry_after += 1
            await asyncio.sleep(0.02)


def _megabytes(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024
