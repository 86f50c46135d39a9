"""Runtime processes die and stop at any moment, again and again, while they work; and nothing is lost.

`JAMJET_KILLS=100` lets that many things happen in each test instead of the few of every day; `JAMJET_SEED=17` chooses
the moments. `-s` shows the figures.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psycopg
import pytest
from chaos_ordeal import FAULTS, Ordeal, under_load
from chaos_runtimes import LEASE, RuntimeProcess, Runtimes, named

pytestmark = pytest.mark.slow

NAMES = ["one", "two", "three"]
IDLE_LIMIT = 5.0
"""The `idle_in_transaction_session_timeout` of a runtime's connections."""


@pytest.fixture
def runtimes(tmp_path: Path, blank_postgres_url: str) -> Iterator[Runtimes]:
    runtimes = Runtimes(tmp_path, named(blank_postgres_url, NAMES))
    yield runtimes
    runtimes.kill()


async def test_nothing_is_lost_however_often_processes_are_killed(runtimes: Runtimes, blank_postgres_url: str) -> None:
    async with under_load(blank_postgres_url, runtimes) as ordeal:
        for _ in range(FAULTS):
            await ordeal.moment(0.2, 2.0)
            victim = ordeal.any()
            if ordeal.dice.random() < 0.8:  # the others are still starting
                await ordeal.caller.is_up(victim)
            victim.kill()
            victim.start()

    print(f"\n{FAULTS} kills: {ordeal.figures}")


async def test_nothing_is_lost_when_processes_stop_for_longer_than_their_lease(
    runtimes: Runtimes, blank_postgres_url: str
) -> None:
    async with under_load(blank_postgres_url, runtimes) as ordeal:
        for _ in range(FAULTS):
            await ordeal.moment(0.2, 1.0)
            stopped = ordeal.dice.sample(runtimes.all, ordeal.dice.choice((1, 1, 2)))
            for process in stopped:
                process.stop()
            await ordeal.moment(LEASE * 1.2, LEASE * 2.5)
            for process in stopped:
                process.go_on()

    assert ordeal.figures is not None
    assert ordeal.figures.buried
    print(f"\n{FAULTS} stops: {ordeal.figures}")


async def test_a_process_that_stops_in_the_middle_of_a_commit_does_not_hold_up_the_others_for_long(
    runtimes: Runtimes, blank_postgres_url: str
) -> None:
    stalls = []
    async with under_load(blank_postgres_url, runtimes) as ordeal:
        for _ in range(max(1, FAULTS // 5)):
            victim = ordeal.any()
            await _stop_in_a_commit(victim, ordeal)
            witness = ordeal.dice.choice(ordeal.others(victim))
            stalls.append(await _time_to_commit(witness, ordeal))
            victim.go_on()
            await ordeal.moment(0.5, 2.0)

    assert max(stalls) < IDLE_LIMIT + 2
    shown = ", ".join(f"{stall:.2f}" for stall in sorted(stalls))
    print(f"\n{len(stalls)} stops in a commit, the others waited {shown} s: {ordeal.figures}")


@pytest.mark.parametrize("hints", ["off"])
async def test_nothing_is_lost_without_hints(tmp_path: Path, blank_postgres_url: str, hints: str) -> None:
    """Whatever can happen to a process, being told to end included."""
    runtimes = Runtimes(tmp_path, named(blank_postgres_url, NAMES), hints=hints)
    try:
        async with under_load(blank_postgres_url, runtimes) as ordeal:
            for _ in range(FAULTS):
                await ordeal.moment(0.2, 1.0)
                await _befall(ordeal)
    finally:
        runtimes.kill()

    print(f"\n{FAULTS} kills, stops and ends without hints: {ordeal.figures}")


async def _befall(ordeal: Ordeal) -> None:
    process = ordeal.any()
    await ordeal.caller.is_up(process)
    match ordeal.dice.choice(("kill", "stop", "end")):
        case "kill":
            process.kill()
            process.start()
        case "stop":
            process.stop()
            await ordeal.moment(LEASE, LEASE * 2)
            process.go_on()
        case "end":
            assert await asyncio.to_thread(process.end) == 0, process.log()[-4000:]
            process.start()


async def _stop_in_a_commit(process: RuntimeProcess, ordeal: Ordeal) -> None:
    """Stops it and lets it go on, until it is stopped where it holds the audit log's end: all others wait for that."""
    with psycopg.connect(ordeal.url, autocommit=True) as connection:
        async with asyncio.timeout(60):
            while True:
                process.stop()
                await asyncio.sleep(0.05)  # what it has sent is done by then
                if _holds_the_audit_log(connection, process):
                    return
                process.go_on()
                await ordeal.moment(0, 0.03)


def _holds_the_audit_log(connection: psycopg.Connection, process: RuntimeProcess) -> bool:
    sessions = connection.execute(
        "SELECT 1 FROM pg_stat_activity JOIN pg_locks USING (pid)"
        " WHERE application_name = %s AND state = 'idle in transaction'"
        " AND relation = 'audit_chains'::regclass AND mode = 'RowShareLock'",
        [process.name],
    )
    return sessions.fetchone() is not None


async def _time_to_commit(process: RuntimeProcess, ordeal: Ordeal) -> float:
    async with httpx.AsyncClient(base_url=process.url, timeout=30, trust_env=False) as client:
        began = time.monotonic()
        body = {"workflow_id": "chain", "input": {"n": 0, "request": f"probe-{began}"}}
        answer = await client.post("/executions", json=body)
        took = time.monotonic() - began
    assert answer.status_code == 201, answer.text
    ordeal.load.started_by_a_probe(body, answer.json()["execution_id"])
    return took
