"""GET /health"""

from __future__ import annotations

from http_support import Client

from jamjet_kernel.runtime import Runtime


async def test_the_runtime_tells_that_it_is_there(client: Client, runtime: Runtime) -> None:
    answer = await client.get("/health")

    assert answer.status_code == 200
    assert answer.json == {"status": "ok", "version": runtime.version}


async def test_a_runtime_that_stops_says_so(client: Client, runtime: Runtime) -> None:
    runtime.ready = False

    answer = await client.get("/health")

    assert (answer.status_code, answer.json["status"]) == (503, "unavailable")
