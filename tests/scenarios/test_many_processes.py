"""Stories of several runtimes on one PostgreSQL database, in one process so that each can be stopped at will."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
from scenario_site import ME, PATIENCE, Probe, begin, ended, kinds, probe, seen, workflow

from jamjet_kernel import NodeCall, Settings, StorageError
from jamjet_kernel.core.progress import Status
from jamjet_kernel.runtime import Runtime, open_runtime

LEASE = 0.6


class Cluster:
    """Runtimes of one database; each has its own probe, so that a test sees who did what."""

    def __init__(self, url: str, stack: AsyncExitStack, **settings: Any) -> None:
        self.url = url
        self._stack = stack
        self._settings = settings

    async def runtime(self, **settings: Any) -> tuple[Runtime, Probe]:
        node = Probe()
        defaults = {"auth": "off", "shutdown_grace": 0, "lease_seconds": LEASE, "poll_seconds": 0.1}
        chosen = Settings(database_url=self.url, **{**defaults, **self._settings, **settings})
        return await self._stack.enter_async_context(open_runtime(chosen, extra_plugins=[node])), node


@pytest.fixture(params=["on", "off"])
async def cluster(
    postgres_url: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Cluster]:
    monkeypatch.setenv("JAMJET_HINTS", request.param)
    async with AsyncExitStack() as stack:
        yield Cluster(postgres_url, stack)


def gate() -> tuple[asyncio.Event, asyncio.Event, Callable[[NodeCall], Awaitable[str]]]:
    begun, open_ = asyncio.Event(), asyncio.Event()

    async def wait(call: NodeCall) -> str:
        begun.set()
        await open_.wait()
        return "done"

    return begun, open_, wait


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.01)


async def test_what_starts_on_one_is_approved_on_another_and_followed_on_a_third(cluster: Cluster) -> None:
    (one, _), (two, at_two), (three, _) = [await cluster.runtime() for _ in range(3)]
    ir = workflow({"ask": {"type": "human_approval"}, "go": probe("go")}, "ask > go > end")

    execution = await begin(one, ir)
    followed = asyncio.create_task(seen(three, execution, "WorkflowCompleted"))
    await seen(one, execution, "ApprovalRequested")
    (asked,) = await two.approvals(ME)
    await two.approve(ME, execution, decision="approved", node_id=asked.node_id)

    await asyncio.wait_for(followed, 5)
    assert at_two.called("go") == 1
    for runtime in (one, two, three):
        assert (await runtime.execution(ME, execution)).head.status is Status.COMPLETED


async def test_a_registered_version_is_the_latest_everywhere_at_once(cluster: Cluster) -> None:
    (one, _), (two, _) = [await cluster.runtime() for _ in range(2)]
    for version in ("1.0.0", "1.1.0"):
        await one.register(ME, workflow({"a": probe("a")}, "a > end") | {"version": version})

        execution = await two.start(ME, "story", None, {})

        assert (await ended(one, execution)).head.workflow_version == version


async def test_the_work_of_a_process_that_stops_for_too_long_goes_on_elsewhere_and_its_result_is_refused(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    (one, at_one), (two, at_two) = [await cluster.runtime() for _ in range(2)]
    execution, open_ = await _held_up(one, at_one)
    begun_again, open_again, at_two.does["long"] = gate()

    _pause(one, monkeypatch)
    await asyncio.wait_for(begun_again.wait(), 10)
    open_.set()  # the stopped process wakes up, in the middle of what is another's by now
    await until(lambda: not one.worker.running)
    await asyncio.sleep(0.2)
    assert (await two.execution(ME, execution)).head.status is Status.RUNNING
    open_again.set()

    assert (await ended(two, execution)).head.status is Status.COMPLETED
    assert (await kinds(two, execution)).count("NodeCompleted") == 1


async def test_work_is_taken_over_when_the_lease_ends_however_seldom_others_look(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, at_one = await cluster.runtime(lease_seconds=1.5)
    _, at_two = await cluster.runtime(lease_seconds=90)  # it looks every 30 seconds
    execution, _ = await _held_up(one, at_one)
    begun_again, open_again, at_two.does["long"] = gate()

    _pause(one, monkeypatch)

    await asyncio.wait_for(begun_again.wait(), 15)
    open_again.set()
    assert (await ended(one, execution)).head.status is Status.COMPLETED


async def test_a_process_that_was_taken_for_dead_begins_anew(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    (one, at_one), (two, _) = [await cluster.runtime() for _ in range(2)]
    earlier = one.worker_id
    _pause(one, monkeypatch)
    await until_buried(two, earlier)

    execution = await begin(one, workflow({"a": probe("a")}, "a > end"))

    assert (await ended(one, execution)).head.status is Status.COMPLETED
    assert at_one.called("a") == 1
    assert one.worker_id != earlier
    assert {worker.worker_id for worker in await two.workers(ME)} == {one.worker_id, two.worker_id}


async def test_a_start_succeeds_on_a_process_that_is_taken_for_dead_meanwhile(cluster: Cluster) -> None:
    one, _ = await cluster.runtime(lease_seconds=60)
    execution = await begin(one, workflow({"a": probe("a")}, "a > end"))
    await ended(one, execution)

    starts = []
    for number in range(60):  # some of them wait for the commit before theirs to end
        starts.append(asyncio.create_task(one.start(ME, "story", None, {})))
        await asyncio.sleep(0.002)
        if number % 20 == 10:
            await _evict(one)
    executions = await asyncio.gather(*starts)
    await _evict(one)  # what was still on its way under an earlier name is found

    for execution in executions:
        await ended(one, execution)


async def test_who_waits_sees_the_end_though_the_copy_was_dropped_while_it_was_looked_at(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, at_one = await cluster.runtime()
    execution, open_ = await _held_up(one, at_one)

    async def dropped_meanwhile(_: object) -> bool:
        one.lives.clear()
        return True

    with monkeypatch.context() as race:
        race.setattr(one.lives, "is_current", dropped_meanwhile)
        waiting = asyncio.create_task(ended(one, execution))
        await asyncio.sleep(0.1)
    open_.set()

    assert (await waiting).head.status is Status.COMPLETED


async def test_nobody_is_taken_for_dead_because_the_storage_was_away(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = [await cluster.runtime() for _ in range(2)]
    (one, at_one), (two, at_two) = both
    execution, open_ = await _held_up(one, at_one)
    named = {runtime.worker_id for runtime, _ in both}

    async def away(*_: object) -> bool:
        raise StorageError("the connection is lost")

    with monkeypatch.context() as outage:
        for runtime, _ in both:
            outage.setattr(runtime.storage.workers, "heartbeat", away)
        await asyncio.sleep(LEASE * 2)
    await asyncio.sleep(LEASE)
    open_.set()

    assert (await ended(two, execution)).head.status is Status.COMPLETED
    assert (at_one.called("long"), at_two.called("long")) == (1, 0)
    assert {worker.worker_id for worker in await one.workers(ME)} == named


async def test_who_missed_a_look_gives_the_others_as_long_to_come_back(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    (one, _), (two, _) = [await cluster.runtime(lease_seconds=60) for _ in range(2)]
    now = one.world.stopwatch()
    monkeypatch.setattr(one.world, "stopwatch", lambda: now)

    async def is_there() -> bool:
        """And its lease is over."""
        return await two.storage.workers.heartbeat(two.membership.worker, -1)

    for after in (35_000, 20_000, 20_000):
        assert await is_there()
        now += after
        await one.membership.look()

    assert not await is_there()


async def test_work_goes_on_though_the_answer_to_its_claim_was_lost(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, at_one = await cluster.runtime(concurrency=1, lease_seconds=60)
    first, open_ = await _held_up(one, at_one)
    second = await begin(one, workflow({"b": probe("b")}, "b > end", workflow_id="waiting"))

    lost = _lose_an_answer(one.storage.work, "claim", monkeypatch)
    open_.set()

    for execution in (first, second):
        assert (await ended(one, execution)).head.status is Status.COMPLETED
    assert lost
    assert (at_one.called("long"), at_one.called("b")) == (1, 1)


async def test_timers_and_children_go_on_though_the_answers_to_their_claims_were_lost(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    (one, _), (two, _) = [await cluster.runtime() for _ in range(2)]
    nodes = {"wait": {"type": "wait", "condition": "timer", "duration": "2s"}, "a": probe("a")}
    await one.register(ME, workflow({"b": probe("b")}, "b > end", workflow_id="child"))
    timed = await begin(one, workflow(nodes, "wait > a > end", workflow_id="timed"))
    _pause(one, monkeypatch)
    monkeypatch.setattr(one.deliveries, "send", lambda _: None)
    one.alarms.clear()
    sub = {"sub": {"type": "subgraph", "workflow_ref": "child"}}
    parent = await begin(one, workflow(sub, "sub > end", workflow_id="parent"))

    lost = _lose_an_answer(two.storage.work, "claim_deliveries", monkeypatch)
    lost_too = _lose_an_answer(two.storage.timers, "claim", monkeypatch)

    for execution in (timed, parent):
        assert (await ended(two, execution)).head.status is Status.COMPLETED
    assert lost
    assert lost_too


async def test_what_a_commit_leased_is_done_though_its_answer_was_lost(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, at_one = await cluster.runtime(lease_seconds=60)
    await one.register(ME, workflow({"a": probe("a"), "b": probe("b")}, "a > b > end"))

    lost = _lose_an_answer(one.storage, "commit", monkeypatch)
    with pytest.raises(StorageError):
        await one.start(ME, "story", None, {})
    (execution,) = await one.executions(ME)

    assert lost
    assert (await ended(one, execution.execution_id)).head.status is Status.COMPLETED
    assert (at_one.called("a"), at_one.called("b")) == (1, 1)


async def test_a_timer_fires_once_whoever_is_there(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    (one, _), (two, _), (three, _) = [await cluster.runtime() for _ in range(3)]
    ir = workflow({"wait": {"type": "wait", "condition": "timer", "duration": "2s"}, "a": probe("a")}, "wait > a > end")
    executions = [await begin(one, ir) for _ in range(5)]

    _pause(one, monkeypatch)
    one.alarms.clear()  # dead before they are due

    for execution in executions:
        await ended(two, execution)
        assert (await kinds(three, execution)).count("TimerFired") == 1


async def test_who_stops_hands_its_work_over(cluster: Cluster) -> None:
    two, at_two = await cluster.runtime(lease_seconds=60)
    async with AsyncExitStack() as stack:
        one, at_one = await Cluster(cluster.url, stack).runtime(lease_seconds=60)
        execution, _ = await _held_up(one, at_one)

    assert (await ended(two, execution)).head.status is Status.COMPLETED
    assert at_two.called("long") == 1


async def test_a_backlog_is_shared(cluster: Cluster) -> None:
    (one, at_one), (_, at_two) = [await cluster.runtime(concurrency=4) for _ in range(2)]

    async def slow(call: NodeCall) -> int:
        await asyncio.sleep(0.05)
        return 1

    at_one.does["slow"] = at_two.does["slow"] = slow
    ir = workflow({"each": {"type": "map", "items": "state.items", "body": probe("slow")}}, "each > end")
    execution = await begin(one, ir, items=list(range(40)))

    assert (await ended(one, execution)).head.status is Status.COMPLETED
    assert at_one.called("slow") + at_two.called("slow") == 40
    assert min(at_one.called("slow"), at_two.called("slow")) > 5


async def test_a_child_ends_in_its_parent_whoever_ran_it(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    (one, at_one), (two, at_two) = [await cluster.runtime() for _ in range(2)]
    begun, _, at_one.does["inner"] = gate()
    await one.register(ME, workflow({"a": probe("inner")}, "a > end", workflow_id="child"))
    parent = workflow({"sub": {"type": "subgraph", "workflow_ref": "child"}, "b": probe("b")}, "sub > b > end")
    execution = await begin(one, parent)
    await begun.wait()

    _pause(one, monkeypatch)

    assert (await ended(two, execution)).head.status is Status.COMPLETED
    assert (at_two.called("inner"), at_two.called("b")) == (1, 1)


async def test_a_pause_elsewhere_holds_what_nobody_began(cluster: Cluster) -> None:
    (one, at_one), (two, at_two) = [await cluster.runtime() for _ in range(2)]
    begun, open_, at_one.does["first"] = gate()
    execution = await begin(one, workflow({"a": probe("first"), "b": probe("second")}, "a > b > end"))
    await begun.wait()

    await two.pause(ME, execution)
    open_.set()
    await seen(two, execution, "NodeCompleted")
    await asyncio.sleep(0.3)
    assert at_one.called("second") + at_two.called("second") == 0
    await two.resume(ME, execution)

    assert (await ended(one, execution)).head.status is Status.COMPLETED
    assert at_one.called("second") + at_two.called("second") == 1


async def _held_up(runtime: Runtime, at_it: Probe) -> tuple[str, asyncio.Event]:
    """An execution whose node has begun there, and what lets it end."""
    begun, open_, at_it.does["long"] = gate()
    execution = await begin(runtime, workflow({"a": probe("long")}, "a > end"))
    await begun.wait()
    return execution, open_


def _pause(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    """It gives no sign of life any more, as if it were stopped."""

    async def never() -> bool:
        await asyncio.Event().wait()
        return False

    monkeypatch.setattr(runtime.membership, "look", never)
    monkeypatch.setattr(runtime.recovery, "look", never)


def _lose_an_answer(port: object, method: str, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The next answer that tells of something is lost on its way; it is put into the list."""
    lost: list[Any] = []
    act = getattr(port, method)

    async def once(*arguments: Any, **named: Any) -> Any:
        answer = await act(*arguments, **named)
        if answer and not lost:
            lost.append(answer)
            raise StorageError("whether it was stored is not known")
        return answer

    monkeypatch.setattr(port, method, once)
    return lost


async def _evict(runtime: Runtime) -> None:
    """As if its lease had ended, somebody had buried it, and it came to see that."""
    worker = runtime.membership.worker
    await runtime.storage.workers.leave(worker)
    await runtime.membership.rejoin(worker.worker_id)  # where a commit that was refused did not see to it


async def until_buried(runtime: Runtime, worker_id: str) -> None:
    async with asyncio.timeout(PATIENCE):
        while any(worker.worker_id == worker_id for worker in await runtime.workers(ME)):
            await asyncio.sleep(0.05)
        await runtime.storage.workers.bury()  # so far it is only left out there
        while any(row.lease_owner == worker_id for row in await runtime.storage.work.pending()):
            await asyncio.sleep(0.05)
