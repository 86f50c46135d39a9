"""Who lost a piece of work does not bring its result: that of whoever has it by now is the one that counts.

With the fences taken away (`JAMJET_TEST_UNFENCED`) the first of these tests must fail, and the second one sees to that.
"""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from chaos_load import Caller, python
from chaos_ordeal import SEED
from chaos_runtimes import LEASE, Runtimes, named
from chaos_witness import calls, verdict, watch
from scenario_site import workflow

pytestmark = pytest.mark.slow

HELD = 2 * LEASE + 1
"""Seconds: whoever takes the work over is still at it when the stopped process goes on."""


@pytest.fixture
def runtimes(tmp_path: Path, blank_postgres_url: str) -> Iterator[Runtimes]:
    runtimes = Runtimes(tmp_path, named(blank_postgres_url, ["one", "two"]))
    yield runtimes
    runtimes.kill()


async def test_the_late_result_of_a_process_that_stopped_is_refused(
    runtimes: Runtimes, blank_postgres_url: str
) -> None:
    one, two = runtimes.all
    runtimes.start()
    async with Caller([one], random.Random(SEED)) as at_one, Caller([two], random.Random(SEED)) as at_two:
        await at_one.is_up(one)
        await at_two.is_up(two)
        watch(blank_postgres_url)
        ir = workflow({"hold": python("hold")}, "hold > end", workflow_id="held")
        await at_one.ask("POST", "/workflows", {"ir": ir})
        body = {"workflow_id": "held", "input": {"seconds": HELD}}
        held = [(await at_one.ask("POST", "/executions", body))["execution_id"] for _ in range(10)]
        await _begun(runtimes, one.pid, len(held))
        ends_at = time.monotonic() + HELD

        one.stop()
        await _begun(runtimes, two.pid, len(held))
        await asyncio.sleep(ends_at - time.monotonic() + 0.1)
        one.go_on()

        for execution_id in held:
            while (await at_two.ask("GET", f"/executions/{execution_id}"))["status"] == "running":
                await asyncio.sleep(0.1)
        await asyncio.to_thread(runtimes.end)
    figures = verdict(blank_postgres_url, runtimes)
    assert figures.taken_over == figures.calls_repeated == len(held)


def test_without_fences_that_test_fails() -> None:
    test = f"{__file__}::{test_the_late_result_of_a_process_that_stopped_is_refused.__name__}"
    environment = {**os.environ, "JAMJET_TEST_UNFENCED": "1"}

    run = subprocess.run(
        [sys.executable, "-m", "pytest", test, "-p", "no:cacheprovider"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )

    assert run.returncode == pytest.ExitCode.TESTS_FAILED, run.stdout
    assert "and its work was held by" in run.stdout


async def _begun(runtimes: Runtimes, pid: int, count: int) -> None:
    async with asyncio.timeout(HELD * 3):
        while sum(call.pid == pid for call in calls(runtimes.effects)) < count:
            await asyncio.sleep(0.05)
