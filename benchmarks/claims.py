"""How quick a claim is in a long queue, on PostgreSQL: `python -m benchmarks.claims`.

Several processes claim, and settle what they claimed by commits that enqueue as much again, as workflows do: so the
backlog stays as long as it is. Each claim is timed; beside it, in turn, the commit that settles, and the raw limit: a
bare transaction that changes one row, found by its key.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import random
import sys
import tempfile
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import psycopg
from rich.console import Console
from rich.table import Table

from jamjet_kernel import plugins
from jamjet_kernel.core.progress import Status
from jamjet_kernel.ports import Commit, Head, Lease, Recorded, Storage, WorkItem
from jamjet_kernel.settings import Settings

from .machine import machine
from .on_postgres import throwaway_server

QUEUES = ("general", "model", "gpu", "tool")
TENANTS = ("acme", "bolt", "core", "dune", "echo")
PRIORITIES = 10
GOAL_MS = 20.0


@dataclass(frozen=True)
class Case:
    """What waits, and how it is claimed: `limit` items at a time, of one tenant or of all. `keys`: how many concurrency
    keys the items have among them, of which `at_once` may be at work."""

    name: str
    limit: int
    tenant: bool = False
    keys: int = 0
    at_once: int = 2
    blocked: int = 0


CASES = (
    Case("1 at a time", 1),
    Case("50 at a time", 50),
    Case("1 at a time, of one tenant", 1, tenant=True),
    Case("1 at a time, behind 100,000 of a full key", 1, blocked=100_000),
    Case("1 at a time, with 1,000 keys", 1, keys=1_000),
    Case("50 at a time, with 100,000 keys", 50, keys=100_000),
)


@dataclass(frozen=True)
class Times:
    """In milliseconds."""

    claims: Sequence[float]
    commits: Sequence[float]
    bare: Sequence[float]
    items: int


def main() -> None:
    asked = _arguments()
    console = Console(stderr=asked.json, width=None if sys.stdout.isatty() else 180)
    with tempfile.TemporaryDirectory(prefix="jamjet-benchmark-", dir=asked.folder) as name:
        folder = Path(name)
        on = machine(folder, "FULL")
        with throwaway_server(folder) if asked.postgres is None else nullcontext(asked.postgres) as url:
            cases = [case for case in CASES if asked.only is None or asked.only in case.name]
            rows = [_measured(case, url, asked, console) for case in cases]
    _show(console, on, asked, rows)
    if asked.json:
        print(json.dumps({"machine": on, "cases": rows}, indent=2))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.claims", description=sys.modules[__name__].__doc__)
    parser.add_argument("--items", type=int, default=100_000, help="that wait (100,000)")
    parser.add_argument("--processes", type=int, default=4, help="that claim (4)")
    parser.add_argument("--seconds", type=float, default=10.0, help="for each case (10)")
    parser.add_argument("--only", metavar="TEXT", help="the cases whose name has this in it")
    parser.add_argument(
        "--postgres", metavar="URL", help="a server on which databases may be made; else one is started"
    )
    parser.add_argument("--folder", help="where that keeps its data: choose the disk that you mean to measure")
    parser.add_argument("--json", action="store_true", help="write the figures as JSON, to stdout")
    return parser.parse_args()


def _measured(case: Case, server: str, asked: argparse.Namespace, console: Console) -> dict[str, Any]:
    with _database(server) as url, console.status(f"{case.name}: fill"):
        asyncio.run(_fill(url, case, asked.items))
        with console.status(f"{case.name}: claim"), multiprocessing.get_context("spawn").Pool(asked.processes) as pool:
            parts = pool.starmap(_work, [(url, case, n, asked.seconds) for n in range(asked.processes)])
        after = asyncio.run(_look(url, case, asked.items))
    return {
        **asdict(case),
        "claims": _spread(ms for part in parts for ms in part.claims),
        "commits": _spread(ms for part in parts for ms in part.commits),
        "bare": _spread(ms for part in parts for ms in part.bare),
        "items_per_second": sum(part.items for part in parts) / asked.seconds,
        **after,
    }


def _spread(times: Iterable[float]) -> dict[str, float]:
    ms = sorted(times)
    return {"count": len(ms), **{f"p{share}": ms[min(len(ms) - 1, len(ms) * share // 100)] for share in (50, 99, 100)}}


@contextmanager
def _database(server: str) -> Iterator[str]:
    name = f"jamjet_claims_{os.getpid()}_{time.monotonic_ns()}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')  # type: ignore[call-overload]  # a name of our own
        before, _, parameters = server.partition("?")
        yield f"{before.rpartition('/')[0]}/{name}" + (f"?{parameters}" if parameters else "")
        connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')  # type: ignore[call-overload]


def _opened(url: str) -> Storage:
    settings = Settings(database_url=url, hints="off")
    return plugins.open_storage(plugins.load(settings), settings)


# What waits


async def _fill(url: str, case: Case, count: int) -> None:
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE bare (number int PRIMARY KEY, count int NOT NULL)")
    storage = _opened(url)
    dice = random.Random(1)
    blocked = [_item(f"b{n}", dice, case, PRIORITIES, "full") for n in range(case.blocked)]
    items = [*blocked, *(_item(f"e{n}", dice, case, dice.randrange(PRIORITIES)) for n in range(count))]
    for start in range(0, len(items), 1000):
        refusals = await storage.commit([_start(item) for item in items[start : start + 1000]])
        assert not any(refusals), refusals
    for queue in QUEUES if case.blocked else ():
        await storage.work.claim("holder", queue, 1, 1)
    await storage.close()


def _item(execution_id: str, dice: random.Random, case: Case, priority: int, key: str | None = None) -> WorkItem:
    if case.keys:
        key = f"key-{dice.randrange(case.keys)}"
    return WorkItem(
        execution_id,
        "step",
        1,
        dice.choice(QUEUES),
        dice.randrange(10**6) if priority < PRIORITIES else 0,
        dice.choice(TENANTS),
        priority,
        concurrency_key=key,
        concurrency_limit=(case.at_once if case.keys else 1) if key else None,
    )


def _start(item: WorkItem) -> Commit:
    head = Head(item.execution_id, "claims", "1.0.0", Status.RUNNING, 1, 0)
    return Commit(item.tenant_id, head, 0, [Recorded(1, b'{"kind":"WorkflowStarted"}')], [item])


def _next(item: WorkItem, done: int) -> Commit:
    """The result of the item, and the next one like it."""
    head = Head(item.execution_id, "claims", "1.0.0", Status.RUNNING, done + 1, 0)
    following = replace(item, lease_owner=None, fence=(done + 1) << 20, available_at=time.time_ns() // 10**6)
    return Commit(
        item.tenant_id,
        head,
        done,
        [Recorded(done + 1, b'{"kind":"NodeCompleted"}')],
        [following],
        [item.run_id],
        [item.concurrency_key] if item.concurrency_key else [],
        Lease(item.run_id, item.fence),
    )


# The processes


def _work(url: str, case: Case, number: int, seconds: float) -> Times:
    return asyncio.run(_claim_and_settle(url, case, number, seconds))


async def _claim_and_settle(url: str, case: Case, number: int, seconds: float) -> Times:
    storage = _opened(url)
    claims, commits, bare, count = [], [], [], 0
    touch = _bare(url, number)
    tenant = TENANTS[number % len(TENANTS)] if case.tenant else None
    await asyncio.sleep(1.0)  # until the others are there too
    end = time.perf_counter() + seconds
    while (began := time.perf_counter()) < end:
        queue, now = QUEUES[(number + len(claims)) % len(QUEUES)], time.time_ns() // 10**6
        items = await storage.work.claim(f"w{number}", queue, now, case.limit, tenant_id=tenant)
        claimed = time.perf_counter()
        refusals = await storage.commit([_next(item, (item.fence >> 20) or 1) for item in items])
        assert not any(refusals), refusals
        settled = time.perf_counter()
        await asyncio.to_thread(next, touch)
        claims.append((claimed - began) * 1000)
        commits.append((settled - claimed) * 1000)
        bare.append((time.perf_counter() - settled) * 1000)
        count += len(items)
    await storage.close()
    touch.close()
    return Times(claims, commits, bare, count)


def _bare(url: str, number: int) -> Generator[None, None, None]:
    with psycopg.connect(url) as connection:
        connection.execute("INSERT INTO bare VALUES (%s, 0)", [number])
        connection.commit()
        while True:
            connection.execute("UPDATE bare SET count = count + 1 WHERE number = %s", [number])
            connection.commit()
            yield


async def _look(url: str, case: Case, count: int) -> dict[str, float]:
    storage = _opened(url)
    due, counted = [], []
    for _ in range(10):  # each of its reading connections is new at first
        began = time.perf_counter()
        await storage.work.next_due(QUEUES[0], time.time_ns() // 10**6)
        due.append((time.perf_counter() - began) * 1000)
    for _ in range(10):
        began = time.perf_counter()
        assert await storage.work.backlog(10 * count) >= count // 2
        counted.append((time.perf_counter() - began) * 1000)
    await storage.close()
    return {"next_due_ms": median(due), "backlog_ms": median(counted)}


# The figures


def _show(console: Console, on: dict[str, Any], asked: argparse.Namespace, rows: Sequence[dict[str, Any]]) -> None:
    console.print("\n" + ", ".join(f"{name} {value}" for name, value in on.items()), style="dim", highlight=False)
    title = f"{asked.items:,} items wait; {asked.processes} processes claim and settle; milliseconds"
    table = Table(title=title, title_justify="left")
    table.add_column("claims")
    for name in ("p50", "p99", "goal", "bare p50", "p99", "commit p50", "p99", "items/s", "next_due", "backlog"):
        table.add_column(name, justify="right")
    for row in rows:
        claims, bare, commits = row["claims"], row["bare"], row["commits"]
        met = "[green]met[/]" if claims["p99"] <= GOAL_MS else "[red]missed[/]"
        table.add_row(
            row["name"],
            *(f"{claims[share]:.1f}" for share in ("p50", "p99")),
            f"p99 ≤ {GOAL_MS:g} {met}",
            *(f"{times[share]:.1f}" for times in (bare, commits) for share in ("p50", "p99")),
            f"{row['items_per_second']:,.0f}",
            f"{row['next_due_ms']:.1f}",
            f"{row['backlog_ms']:.1f}",
        )
    console.print(table)


if __name__ == "__main__":
    main()
