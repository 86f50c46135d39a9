"""What is refused when there is more to do than is good, and what is not."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from http_support import Client

from jamjet_kernel import Commit, JamJetError, Settings
from jamjet_kernel.runtime import Runtime

NOBODYS = {"type": "python_fn", "function": "http_steps:search", "queue": "nobodys"}


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"max_backlog": 1, "max_unwritten": 2, "lease_seconds": 0.3})


@pytest.fixture
async def waiting(client: Client, runtime: Runtime) -> list[str]:
    """Executions whose nodes nobody takes: more than may wait."""
    await register(client, {"a": NOBODYS}, "a > end")
    executions = [await start(client) for _ in range(2)]
    async with asyncio.timeout(10):
        while runtime.readiness.backlog < 2:
            await asyncio.sleep(0.02)
    return executions


async def test_a_long_backlog_refuses_new_executions_and_says_when_to_come_again(
    client: Client, waiting: list[str]
) -> None:
    refused = await client.post("/executions", {"workflow_id": "story"})
    forked = await client.post(f"/executions/{waiting[0]}/fork", {"sequence": 1})

    for answer in (refused, forked):
        assert answer.status_code == 429
        assert answer.headers["Retry-After"] == "1"
        assert answer.json["code"] == "overloaded"
        assert answer.json["error"] == "too many requests: more than 1 nodes wait for a worker"


async def test_a_long_backlog_refuses_nothing_that_shortens_it(
    client: Client, runtime: Runtime, waiting: list[str]
) -> None:
    assert (await client.get("/ready")).status_code == 200
    assert (await client.get(f"/executions/{waiting[0]}")).status_code == 200
    event = {"correlation_key": "paid", "payload": {}}
    assert (await client.post(f"/executions/{waiting[0]}/external-event", event)).status_code == 200

    assert (await client.post(f"/executions/{waiting[0]}/cancel")).status_code == 200

    async with asyncio.timeout(10):
        while (await client.post("/executions", {"workflow_id": "story"})).status_code == 429:
            await asyncio.sleep(0.02)


async def test_what_was_started_already_is_answered_whatever_waits(client: Client, waiting: list[str]) -> None:
    await client.post(f"/executions/{waiting[1]}/cancel")
    key = {"Idempotency_Key": "once"}
    async with asyncio.timeout(10):
        while (first := await client.post("/executions", {"workflow_id": "story"}, **key)).status_code == 429:
            await asyncio.sleep(0.02)
    async with asyncio.timeout(10):
        while (await client.post("/executions", {"workflow_id": "story"})).status_code != 429:
            await asyncio.sleep(0.02)

    again = await client.post("/executions", {"workflow_id": "story"}, **key)

    assert (again.status_code, again.json) == (201, first.json)


async def test_a_database_that_is_stuck_is_not_given_more_than_it_can_take(
    client: Client, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    await register(client, {"a": {"type": "python_fn", "function": "http_steps:search"}}, "a > end")
    go_on, commit = asyncio.Event(), runtime.storage.commit

    async def stuck(commits: Sequence[Commit]) -> list[JamJetError | None]:
        await go_on.wait()
        return await commit(commits)

    monkeypatch.setattr(runtime.storage, "commit", stuck)
    taken = [asyncio.create_task(start(client)) for _ in range(2)]
    async with asyncio.timeout(10):
        while len(runtime.journal) < 2:
            await asyncio.sleep(0.01)
    refused = await client.post("/executions", {"workflow_id": "story"})
    go_on.set()

    assert (refused.status_code, refused.json["code"]) == (429, "overloaded")
    assert refused.headers["Retry-After"] == "1"
    for execution_id in await asyncio.gather(*taken):
        assert (await client.get(f"/executions/{execution_id}", "wait=5")).json["status"] == "completed"
    assert runtime.journal.bytes == 0


async def test_a_database_that_cannot_be_read_is_not_asked_by_more_than_may_wait(
    client: Client, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    await register(client, {"a": {"type": "python_fn", "function": "http_steps:search"}}, "a > end")
    go_on, asked, check = asyncio.Event(), 0, runtime.tenants.check_start

    async def stuck(tenant_id: str) -> None:
        nonlocal asked
        asked += 1
        await go_on.wait()
        await check(tenant_id)

    monkeypatch.setattr(runtime.tenants, "check_start", stuck)
    taken = [asyncio.create_task(start(client)) for _ in range(2)]
    async with asyncio.timeout(10):
        while asked < 2:
            await asyncio.sleep(0.01)
    refused = await client.post("/executions", {"workflow_id": "story"})
    go_on.set()

    assert (refused.status_code, refused.json["code"]) == (429, "overloaded")
    for execution_id in await asyncio.gather(*taken):
        assert (await client.get(f"/executions/{execution_id}", "wait=5")).json["status"] == "completed"


async def test_what_waits_behind_a_stuck_commit_is_refused_and_the_commit_still_counts(
    client: Client, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    await register(client, {"a": {"type": "python_fn", "function": "http_steps:search"}}, "a > end")
    go_on, commit = asyncio.Event(), runtime.storage.commit

    async def stuck(commits: Sequence[Commit]) -> list[JamJetError | None]:
        await go_on.wait()
        return await commit(commits)

    with monkeypatch.context() as patched:
        patched.setattr(runtime.storage, "commit", stuck)
        first = asyncio.create_task(start(client))
        await asyncio.sleep(0.05)
        second = asyncio.create_task(client.post("/executions", {"workflow_id": "story"}))
        await asyncio.sleep(0.05)
        runtime.journal.refuse_what_waits()
        refused = await second
        go_on.set()
        execution_id = await first

    assert (refused.status_code, refused.json["code"]) == (503, "storage_silent")
    assert (await client.get(f"/executions/{execution_id}", "wait=5")).json["status"] == "completed"
    assert len((await client.get("/executions")).json["executions"]) == 1


async def register(client: Client, nodes: dict[str, Any], path: str) -> None:
    edges = [dict(zip(("from", "to"), path.split(" > "), strict=True))]
    ir = {"workflow_id": "story", "version": "1.0.0", "nodes": nodes, "edges": edges}
    assert (await client.post("/workflows", {"ir": ir})).status_code == 201


async def start(client: Client) -> str:
    answer = await client.post("/executions", {"workflow_id": "story", "input": {"query": "x"}})
    execution_id: str = answer.json["execution_id"]
    return execution_id
