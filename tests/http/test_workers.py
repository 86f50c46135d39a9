"""GET /workers"""

from __future__ import annotations

import os

from http_support import Client

from jamjet_kernel.runtime import Runtime


async def test_this_process_is_a_live_worker(client: Client, runtime: Runtime) -> None:
    answer = await client.get("/workers")

    (worker,) = answer.json["workers"]
    assert (worker["worker_id"], worker["pid"]) == (runtime.worker_id, os.getpid())
    assert worker["last_seen"].endswith("Z")
