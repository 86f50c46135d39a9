"""The server process is killed, again and again and at any moment, while it works; and loses nothing.

Real processes, real signals. `JAMJET_KILLS=200` kills that often instead of the few times of every day;
`JAMJET_SEED=17` chooses the moments.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from scenario_checks import Execution, sound
from scenario_load import EXPECTED, catalogue
from scenario_server import Client, KilledServer

from jamjet_kernel.core import events as ev
from jamjet_kernel.core.progress import Status

KILLS = int(os.environ.get("JAMJET_KILLS", "8"))
CLIENTS = 12


@pytest.fixture
def server(tmp_path: Path) -> Iterator[KilledServer]:
    server = KilledServer(tmp_path)
    yield server
    server.kill()


def python(function: str) -> dict[str, Any]:
    return {"type": "python_fn", "function": f"scenario_steps:{function}"}


@pytest.mark.slow
async def test_what_was_acknowledged_completes_however_often_the_server_is_killed(server: KilledServer) -> None:
    load = Load(random.Random(int(os.environ.get("JAMJET_SEED", "1"))), server)

    async with Client(server.url) as client:
        await load.run(client)

    executions = {execution.execution_id: execution for execution in sound(server.database)}
    assert server.lives == KILLS + 1
    assert load.acknowledged, "nothing was started at all"
    assert executions.keys() >= load.acknowledged.keys(), "an acknowledged execution is lost"
    for execution_id, workflow_id in load.acknowledged.items():
        _check(executions[execution_id], workflow_id)
    assert len(set(load.keyed.values())) == len(load.keyed), "two keys led to one execution"
    roots = [execution for execution in executions.values() if execution.progress.parent is None]
    assert all(execution.progress.status is Status.COMPLETED for execution in roots if execution.workflow_id != "paid")
    print(f"{KILLS} kills, {len(load.acknowledged)} acknowledged, {len(executions)} executions in all")


async def test_a_restart_goes_on_at_once_with_what_was_running(server: KilledServer) -> None:
    nodes = {"a": python("count"), "held": python("block_once"), "b": python("count")}
    edges = [{"from": "a", "to": "held"}, {"from": "held", "to": "b"}, {"from": "b", "to": "end"}]
    server.start()
    async with Client(server.url) as client:
        ir = {"workflow_id": "held", "version": "1.0.0", "nodes": nodes, "edges": edges}
        await client.ask("POST", "/workflows", {"ir": ir})
        marker = server.database.parent / "blocked"
        started = await client.ask("POST", "/executions", {"workflow_id": "held", "input": {"marker": str(marker)}})
        while not marker.exists():
            await asyncio.sleep(0.01)

        server.kill()
        server.start()
        await client.ask("GET", "/health")
        ready_at = time.monotonic()
        execution = await client.ask("GET", f"/executions/{started['execution_id']}?wait=30")

    assert execution["status"] == "completed"
    assert time.monotonic() - ready_at < 3, "it waited for something before it went on"
    assert server.stop() == 0


class Load:
    """Clients that start executions of every shape and answer what those ask, while the server dies and lives."""

    def __init__(self, dice: random.Random, server: KilledServer) -> None:
        self.acknowledged: dict[str, str] = {}
        self.keyed: dict[str, str] = {}
        self._dice = dice
        self._server = server
        self._workflows = [ir["workflow_id"] for ir in catalogue(python)]
        self._stopping = False

    async def run(self, client: Client) -> None:
        self._server.start()
        for ir in catalogue(python):
            await client.ask("POST", "/workflows", {"ir": ir})
        async with asyncio.TaskGroup() as tasks:
            clients = [tasks.create_task(self._start_some(client, number)) for number in range(CLIENTS)]
            helper = tasks.create_task(self._answer(client))
            for _ in range(KILLS):
                # A start takes about a second, so some kills hit a server that is still recovering.
                await asyncio.sleep(self._dice.uniform(0.3, 2.5))
                await asyncio.to_thread(self._server.kill)
                self._server.start()
            self._stopping = True
            await asyncio.wait(clients)
            await self._all_ended(client)
            helper.cancel()
        assert await asyncio.to_thread(self._server.stop) == 0, self._server.log()

    async def _start_some(self, client: Client, number: int) -> None:
        count = 0
        while not self._stopping:
            count += 1
            workflow_id = self._dice.choice(self._workflows)
            body = {"workflow_id": workflow_id, "input": {"n": 0}}
            if self._dice.random() < 0.5:
                key = f"start-{number}-{count}"
                answer = await client.ask("POST", "/executions", body, key=key)
                self.keyed[key] = answer["execution_id"]
            else:
                answer = await client.once("POST", "/executions", body)
            if answer is not None:
                self.acknowledged[answer["execution_id"]] = workflow_id
            await asyncio.sleep(self._dice.uniform(0, 0.05))

    async def _answer(self, client: Client) -> None:
        """Approves whatever asks, and tells of each payment once."""
        paid: set[str] = set()
        while True:
            for approval in (await client.ask("GET", "/approvals?limit=100"))["approvals"]:
                path = f"/executions/{approval['execution_id']}"
                await client.ask("POST", f"{path}/approve", {"decision": "approved"}, key=f"approve{path}")
            for execution_id in [name for name, kind in self.acknowledged.items() if kind == "paid"]:
                if execution_id not in paid:
                    path = f"/executions/{execution_id}"
                    event = {"correlation_key": "paid", "payload": {"amount": 500}}
                    await client.ask("POST", f"{path}/external-event", event, key=f"pay{path}")
                    paid.add(execution_id)
            await asyncio.sleep(0.05)

    async def _all_ended(self, client: Client) -> None:
        for execution_id in self.acknowledged:
            execution = await client.ask("GET", f"/executions/{execution_id}?wait=5")
            while execution["status"] in ("running", "paused"):
                execution = await client.ask("GET", f"/executions/{execution_id}?wait=5")
        for status in ("running", "paused"):  # what was started without an answer
            while [e for e in await self._listed(client, status) if e["workflow_id"] != "paid"]:
                await asyncio.sleep(0.1)

    async def _listed(self, client: Client, status: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = (await client.ask("GET", f"/executions?status={status}&limit=1000"))["executions"]
        return found


def _check(execution: Execution, workflow_id: str) -> None:
    progress = execution.progress
    assert progress.status is Status.COMPLETED, (execution.execution_id, progress.status, progress.error)
    assert progress.state == EXPECTED[workflow_id]
    assert execution.count(ev.ExternalEventReceived) == (workflow_id == "paid")
    assert execution.count(ev.ApprovalReceived) == (workflow_id == "approved")
