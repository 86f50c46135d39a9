"""The clocks of two machines differ: leases are by the database's, and hold."""

from __future__ import annotations

import asyncio

from scenario_site import ME, Ahead, Probe, begin, ended, probe, workflow

from jamjet_kernel import Settings
from jamjet_kernel.core.progress import Status
from jamjet_kernel.runtime import open_runtime

MINUTES = 10 * 60_000


async def test_nobody_is_taken_for_dead_because_of_its_clock(postgres_url: str) -> None:
    settings = Settings(database_url=postgres_url, auth="off", shutdown_grace=0, lease_seconds=0.6, poll_seconds=0.1)
    ir = workflow({"wait": {"type": "wait", "condition": "timer", "duration": "1s"}, "a": probe("a")}, "wait > a > end")
    async with (
        open_runtime(settings, extra_plugins=[Probe()]) as right,
        open_runtime(settings, extra_plugins=[Probe()], world=Ahead(MINUTES)) as fast,
    ):
        ids = {right.worker_id, fast.worker_id}
        executions = [await begin(runtime, ir) for runtime in (right, fast)]

        for runtime, execution in zip((right, fast), executions, strict=True):
            assert (await asyncio.wait_for(ended(runtime, execution), 10)).head.status is Status.COMPLETED

        await asyncio.sleep(1)
        assert {right.worker_id, fast.worker_id} == ids
        assert {worker.worker_id for worker in await right.workers(ME)} == ids
