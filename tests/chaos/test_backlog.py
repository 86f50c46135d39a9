"""Two processes take what nobody holds, each as much as it has room for, and no piece of it twice."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from pathlib import Path

import pytest
from chaos_load import Caller, python
from chaos_ordeal import FAULTS, SEED
from chaos_runtimes import Runtimes, named
from chaos_witness import calls, verdict, watch
from scenario_site import workflow

pytestmark = pytest.mark.slow

ITEMS = 300 * FAULTS
AT_ONCE = 20


async def test_two_processes_claim_one_backlog_and_run_each_node_once(tmp_path: Path, blank_postgres_url: str) -> None:
    # With the default lease: nobody is to be taken for dead where a machine is slow.
    urls = named(blank_postgres_url, ["one", "two"])
    runtimes = Runtimes(tmp_path, urls, concurrency=str(AT_ONCE), lease_seconds="15")
    runtimes.start()
    try:
        async with Caller(runtimes.all, random.Random(SEED)) as caller:
            for process in runtimes.all:
                await caller.is_up(process)
            watch(blank_postgres_url)
            each = {"type": "map", "items": "state.items", "body": python("square"), "output_key": "all"}
            ir = workflow({"each": each}, "each > end", workflow_id="backlog")
            await caller.ask("POST", "/workflows", {"ir": ir})
            body = {"workflow_id": "backlog", "input": {"items": list(range(ITEMS // 3))}}
            executions = [(await caller.ask("POST", "/executions", body))["execution_id"] for _ in range(3)]
            for execution_id in executions:
                async with asyncio.timeout(300):
                    while (await caller.ask("GET", f"/executions/{execution_id}"))["status"] == "running":
                        await asyncio.sleep(0.1)
            await asyncio.to_thread(runtimes.end)
    finally:
        runtimes.kill()

    figures = verdict(blank_postgres_url, runtimes)
    called = calls(runtimes.effects)
    assert len(called) == len({call.key for call in called}) == ITEMS
    shares = Counter(call.pid for call in called)
    assert min(shares.values()) > ITEMS // 10, shares
    print(f"\n{ITEMS} items, {AT_ONCE} at once in each of two processes, shared {sorted(shares.values())}: {figures}")
