"""GET /health, GET /ready"""

from __future__ import annotations

import asyncio

import pytest
from http_support import Client

from jamjet_kernel import Settings, StorageError
from jamjet_kernel.runtime import Runtime


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"stall_seconds": 0.2})


async def test_the_runtime_tells_that_it_is_there(client: Client, runtime: Runtime) -> None:
    health, ready = await client.get("/health"), await client.get("/ready")

    assert (health.status_code, ready.status_code) == (200, 200)
    assert health.json == {"status": "ok", "version": runtime.version}
    assert ready.json == {"status": "ready", "version": runtime.version}


async def test_a_runtime_that_starts_lives_and_is_not_ready(client: Client, runtime: Runtime) -> None:
    runtime.ready = False

    health, ready = await client.get("/health"), await client.get("/ready")

    assert (health.status_code, ready.status_code) == (200, 503)
    assert ready.json["reason"] == "it is starting"


async def test_a_runtime_that_is_about_to_stop_lives_and_is_not_ready(client: Client, runtime: Runtime) -> None:
    runtime.drain()

    health, ready = await client.get("/health"), await client.get("/ready")

    assert (health.status_code, ready.status_code) == (200, 503)
    assert ready.json == {"status": "not_ready", "version": runtime.version, "reason": "it is about to stop"}


async def test_while_its_database_is_away_it_lives_and_is_not_ready(
    client: Client, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(runtime.membership, "look", _refuses)
        await _until(client, 503)
        health, ready, listed = [await client.get(path) for path in ("/health", "/ready", "/executions")]

    assert health.status_code == 200
    assert ready.json["reason"] == "connection refused"
    assert listed.status_code == 200, "what can be answered is"
    await _until(client, 200)


async def test_while_its_database_does_not_answer_requests_do_not_queue_for_it(
    client: Client, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(runtime.membership, "look", _hangs)
        await _until(client, 503)
        health, ready, listed = [await client.get(path) for path in ("/health", "/ready", "/executions")]

    assert health.status_code == 200
    assert ready.json["reason"] == "the database did not answer within 0.2 s"
    assert (listed.status_code, listed.headers["Retry-After"]) == (503, "1")
    assert listed.json["code"] == "storage_silent"
    await _until(client, 200)


async def _refuses() -> bool:
    raise StorageError("connection refused")


async def _hangs() -> bool:
    await asyncio.Event().wait()
    return False


async def _until(client: Client, status: int) -> None:
    """Who asks whether it is ready makes it look."""
    async with asyncio.timeout(20):
        while (await client.get("/ready")).status_code != status:
            await asyncio.sleep(0.05)
