"""Workers over REST that die, sleep or are told to stop, and runtimes that go away under them. Real processes."""

from __future__ import annotations

import asyncio
import random
import signal
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from scenario_server import Client, KilledServer
from scenario_site import workflow
from scenario_worker import WorkerProcess

LEASE = 1.0


class Place:
    """Runtimes of one database, and workers of theirs."""

    def __init__(self, folder: Path, stack: ExitStack, database_url: str | None = None) -> None:
        self._folder = folder
        self._stack = stack
        self._database_url = database_url
        self.marker = folder / "marker"

    def server(self, lease: float = LEASE, **settings: object) -> KilledServer:
        server = KilledServer(self._folder, self._database_url, lease_seconds=lease, **settings)
        self._stack.callback(server.kill)
        server.start()
        return server

    def worker(self, server: KilledServer, name: str, **options: object) -> WorkerProcess:
        worker = WorkerProcess(self._folder, server.url, name, **options)  # type: ignore[arg-type]  # as they are called
        self._stack.callback(worker.kill)
        return worker

    def naps(self, seconds: float, function: str = "nap", **node: object) -> dict[str, Any]:
        given = {"seconds": seconds, "marker": str(self.marker)}
        return {
            "type": "python_fn", "function": f"scenario_steps:{function}", "queue": "remote", "input_mapping": given,
            **node,
        }  # fmt: skip

    async def begun(self, times: int = 1) -> list[int]:
        """The processes that a function has begun in."""
        async with asyncio.timeout(20):
            while not self.marker.exists() or self.marker.read_text().count("\n") < times:
                await asyncio.sleep(0.01)
        return [int(pid) for pid in self.marker.read_text().split()]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with ExitStack() as stack:
        yield Place(tmp_path, stack)


@pytest.fixture
def shared(tmp_path: Path, postgres_url: str) -> Iterator[Place]:
    with ExitStack() as stack:
        yield Place(tmp_path, stack, postgres_url)


@pytest.fixture
async def at() -> AsyncIterator[Any]:
    """A client of a server, once that answers."""
    clients: list[Client] = []

    async def client_of(server: KilledServer) -> Client:
        client = Client(server.url)
        await client.__aenter__()
        clients.append(client)
        await client.ask("GET", "/ready")
        return client

    yield client_of
    for client in clients:
        await client.__aexit__()


async def start(client: Client, node: dict[str, Any]) -> str:
    await client.ask("POST", "/workflows", {"ir": workflow({"a": node}, "a > end")})
    execution_id: str = (await client.ask("POST", "/executions", {"workflow_id": "story"}))["execution_id"]
    return execution_id


async def ended(client: Client, execution_id: str, status: str = "completed") -> dict[str, Any]:
    execution: dict[str, Any] = await client.ask("GET", f"/executions/{execution_id}?wait=20")
    assert execution["status"] == status, execution
    return execution


async def log_of(client: Client, execution_id: str) -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = (await client.ask("GET", f"/executions/{execution_id}/events"))["events"]
    return events


async def who(client: Client, execution_id: str) -> list[str]:
    """The workers that took the node, in order."""
    started = [event["data"] for event in await log_of(client, execution_id) if event["kind"] == "NodeStarted"]
    return [data["worker_id"] for data in started]


async def test_the_work_of_a_killed_worker_goes_to_another_after_its_lease(place: Place, at: Any) -> None:
    server = place.server()
    client = await at(server)
    first = place.worker(server, "first")
    execution_id = await start(client, place.naps(0.4))
    await place.begun()

    first.kill()
    place.worker(server, "second")

    execution = await ended(client, execution_id)
    assert execution["nodes"]["a"]["attempt"] == 1
    assert await who(client, execution_id) == ["first", "second"]


async def test_a_workflow_says_how_soon_its_work_goes_to_another(place: Place, at: Any) -> None:
    server = place.server(lease=300)  # by itself, it looks every 100 seconds
    client = await at(server)
    workers = {worker.pid: worker for worker in (place.worker(server, name) for name in ("one", "two"))}
    await asyncio.sleep(1.2)  # the second one's arrival was a reason to look
    ir = workflow({"a": place.naps(0.4)}, "a > end") | {"timeouts": {"heartbeat_interval": 0.5}}
    await client.ask("POST", "/workflows", {"ir": ir})
    execution_id = (await client.ask("POST", "/executions", {"workflow_id": "story"}))["execution_id"]
    (pid,) = await place.begun()

    first = workers.pop(pid)
    first.kill()

    (second,) = workers.values()
    await ended(client, execution_id)
    assert await who(client, execution_id) == [first.name, second.name]


async def test_a_worker_that_slept_beyond_its_lease_changes_nothing(place: Place, at: Any) -> None:
    server = place.server()
    client = await at(server)
    first = place.worker(server, "first")
    execution_id = await start(client, place.naps(0.5))
    (pid, *_) = await place.begun()
    assert pid == first.pid

    first.signal(signal.SIGSTOP)
    second = place.worker(server, "second")
    execution = await ended(client, execution_id)
    first.signal(signal.SIGCONT)

    await first.says("not ours any more", "stopping a of")
    assert execution["state"] == {"pid": second.pid}
    results = [event for event in await log_of(client, execution_id) if event["kind"] == "NodeCompleted"]
    assert len(results) == 1
    # It lives, and goes on with other work.
    second.kill()
    other = (await client.ask("POST", "/executions", {"workflow_id": "story"}))["execution_id"]
    assert (await ended(client, other))["state"] == {"pid": first.pid}


async def test_a_runtime_that_was_restarted_gets_the_result(place: Place, at: Any) -> None:
    server = place.server(lease=30)
    client = await at(server)
    worker = place.worker(server, "first")
    execution_id = await start(client, place.naps(0.5))
    await place.begun()

    server.kill()
    await asyncio.sleep(0.7)  # the function returns meanwhile
    server.start()

    await ended(client, execution_id)
    assert await who(client, execution_id) == ["first"]
    await worker.says("answers again")


async def test_a_function_whose_execution_is_cancelled_is_stopped(place: Place, at: Any) -> None:
    server = place.server()
    client = await at(server)
    place.worker(server, "first")
    execution_id = await start(client, place.naps(60, "nap_until_cancelled"))
    await place.begun()

    await client.ask("POST", f"/executions/{execution_id}/cancel")

    async with asyncio.timeout(20):
        while not place.marker.with_suffix(".cancelled").exists():
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_worker_that_is_told_to_stop_finishes_what_it_can(place: Place, at: Any, number: int) -> None:
    server = place.server(lease=60)
    client = await at(server)
    first = place.worker(server, "first", grace=10)
    execution_id = await start(client, place.naps(0.5))
    await place.begun()

    first.signal(number)

    assert first.wait() == 0
    assert (await ended(client, execution_id))["state"] == {"pid": first.pid}
    assert "Traceback" not in first.log()


@pytest.mark.parametrize("function", ["nap", "nap_in_thread"])
async def test_what_a_worker_cannot_finish_it_gives_back_at_once(place: Place, at: Any, function: str) -> None:
    server = place.server(lease=60)
    client = await at(server)
    first = place.worker(server, "first", grace=0.2)
    execution_id = await start(client, place.naps(1.5, function))
    await place.begun()

    first.signal(signal.SIGTERM)

    assert first.wait() == 0
    second = place.worker(server, "second")
    execution = await ended(client, execution_id)
    assert execution["state"] == {"pid": second.pid}
    assert execution["nodes"]["a"]["attempt"] == 1


async def test_a_worker_that_is_killed_while_it_waits_is_handed_nothing(place: Place, at: Any) -> None:
    """With leases this long, whatever was handed to the dead one would be missing."""
    server = place.server(lease=600)
    client = await at(server)
    first = place.worker(server, "first")
    await asyncio.sleep(0.5)  # until it waits

    first.kill()
    second = place.worker(server, "second")

    started = [await start(client, place.naps(0)) for _ in range(3)]

    for execution_id in started:
        assert (await ended(client, execution_id))["state"] == {"pid": second.pid}


async def test_a_runtime_that_stops_keeps_no_worker_waiting(place: Place, at: Any) -> None:
    server = place.server(lease=600)
    client = await at(server)
    worker = place.worker(server, "first")

    assert server.stop() == 0
    server.start()

    execution_id = await start(client, place.naps(0))
    assert (await ended(client, execution_id))["state"] == {"pid": worker.pid}
    assert "Traceback" not in server.log()


# Two runtimes on PostgreSQL


async def test_a_worker_is_served_by_any_process(shared: Place, at: Any) -> None:
    one, two = shared.server(), shared.server()
    at_one, at_two = await at(one), await at(two)
    first = shared.worker(two, "first")
    execution_id = await start(at_one, shared.naps(0.3))
    (pid, *_) = await shared.begun()
    assert pid == first.pid

    first.kill()
    two.kill()
    second = shared.worker(one, "second")

    assert (await ended(at_one, execution_id))["state"] == {"pid": second.pid}
    assert await who(at_one, execution_id) == ["first", "second"]
    listed = {worker["worker_id"] for worker in (await at_one.ask("GET", "/workers"))["workers"]}
    assert "second" in listed
    assert at_two is not at_one


async def test_twenty_workers_do_five_hundred_items_once_each(shared: Place, at: Any) -> None:
    """They claim at one process and complete at the other."""
    one, two = shared.server(lease=30), shared.server(lease=30)
    clients = [await at(one), await at(two)]
    fan = {
        "type": "map", "items": "range(10) | list",
        "body": {"type": "tool", "fn": "scenario_steps:nothing", "queue": "remote"},
    }  # fmt: skip
    done: Counter[tuple[str, str]] = Counter()

    async def work(number: int) -> None:
        dice = random.Random(number)
        while sum(done.values()) < 500:
            here, there = dice.sample(clients, 2)
            body = {"worker_id": f"w{number}", "queue_types": ["remote"], "max": dice.randint(2, 7), "wait": 1}
            claimed = await here.ask("POST", "/work-items/claim", body)
            for item in claimed.get("work_items", ()):
                done[item["execution_id"], item["node_id"]] += 1
                result = {"output": item["payload"]["input"], "lease_fence": item["lease_fence"]}
                await there.ask("POST", f"/work-items/{item['id']}/complete", result)

    workers = asyncio.gather(*map(work, range(20)))
    first = await start(clients[0], fan)
    started = [clients[n % 2].ask("POST", "/executions", {"workflow_id": "story"}) for n in range(49)]
    executions = [first, *(answer["execution_id"] for answer in await asyncio.gather(*started))]
    async with asyncio.timeout(100):
        await workers

    for execution_id in executions:
        assert (await ended(clients[1], execution_id))["state"]["a"] == list(range(10))
    assert (len(done), set(done.values())) == (500, {1})
