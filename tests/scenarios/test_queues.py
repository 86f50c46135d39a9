"""Stories of work that has to wait: for more urgent work, for its queue, for others with the same key."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
from scenario_site import ME, PATIENCE, Probe, Site, begin, ended, probe, workflow

from jamjet_kernel import NodeCall, NodeFailed, Settings
from jamjet_kernel.core.progress import Status
from jamjet_kernel.runtime import Runtime, open_runtime


class Crowd:
    """Counts who is at work at the same time, by what the node is given."""

    def __init__(self, seconds: float = 0.02) -> None:
        self._seconds = seconds
        self._now: Counter[Any] = Counter()
        self.most: Counter[Any] = Counter()
        self.at_once = 0
        self.served: list[Any] = []

    async def __call__(self, call: NodeCall) -> str:
        name = call.input["who"] if isinstance(call.input, dict) else call.input
        self._now[name] += 1
        self.most[name] = max(self.most[name], self._now[name])
        self.at_once = max(self.at_once, self._now.total())
        await asyncio.sleep(self._seconds)
        self._now[name] -= 1
        self.served.append(name)
        return "done"


def gate() -> tuple[asyncio.Event, asyncio.Event, Callable[[NodeCall], Awaitable[str]]]:
    begun, open_ = asyncio.Event(), asyncio.Event()

    async def wait(call: NodeCall) -> str:
        begun.set()
        await open_.wait()
        return "done"

    return begun, open_, wait


def each(body: dict[str, Any]) -> dict[str, Any]:
    """For each of the names it is given."""
    return workflow({"each": {"type": "map", "items": "state.names", "body": body}}, "each > end")


def one_at_a_time(limit: int = 1, **more: Any) -> dict[str, Any]:
    return probe("serve", input_mapping="{{ item }}", concurrency={"key": "{{ item }}", "limit": limit}, **more)


# Keys


async def test_of_each_key_only_so_many_are_at_work_at_a_time(site: Site) -> None:
    crowd = site.probe.does["serve"] = Crowd()
    async with site.open() as runtime:
        execution = await begin(runtime, each(one_at_a_time(2)), names=["ada", "bob", "cid"] * 6)
        assert (await ended(runtime, execution)).head.status is Status.COMPLETED

    assert crowd.most == {"ada": 2, "bob": 2, "cid": 2}


async def test_executions_share_a_key_and_others_do_not_wait(site: Site) -> None:
    begun, open_, site.probe.does["serve"] = gate()
    limited = {"key": "{{ state.who }}", "limit": 1}
    ir = workflow({"a": probe("serve", concurrency=limited), "b": probe("b")}, "a > b > end")
    async with site.open() as runtime:
        first = await begin(runtime, ir, who="ada")
        await begun.wait()
        second, other = [await runtime.start(ME, "story", None, {"who": who}) for who in ("ada", "bob")]
        await asyncio.sleep(0.1)
        assert site.probe.called("serve") == 2
        open_.set()
        for execution in (first, second, other):
            assert (await ended(runtime, execution)).head.status is Status.COMPLETED


async def test_who_waits_for_another_attempt_leaves_its_place_to_others(site: Site) -> None:
    served: list[str] = []

    async def serve(call: NodeCall) -> str:
        served.append(f"{call.node_id}/{call.attempt}")
        if call.node_id == "each[0]" and call.attempt == 1:
            raise NodeFailed("not now", retryable=True)
        return "done"

    site.probe.does["serve"] = serve
    again = {"max_attempts": 2, "backoff": "fixed", "initial_delay": 0.4}
    async with site.open() as runtime:
        began = time.perf_counter()
        execution = await begin(runtime, each(one_at_a_time(retry_policy=again)), names=["ada"] * 3)
        assert (await ended(runtime, execution)).head.status is Status.COMPLETED

    assert served == ["each[0]/1", "each[1]/1", "each[2]/1", "each[0]/2"]
    assert time.perf_counter() - began < 2


async def test_a_cancelled_execution_leaves_its_place_to_others(site: Site) -> None:
    begun, open_, site.probe.does["serve"] = gate()
    ir = workflow({"a": probe("serve", concurrency={"key": "x"})}, "a > end")
    async with site.open() as runtime:
        first = await begin(runtime, ir)
        await begun.wait()
        second = await runtime.start(ME, "story", None, {})
        begun.clear()

        await runtime.cancel(ME, first)

        await asyncio.wait_for(begun.wait(), PATIENCE)
        open_.set()
        assert (await ended(runtime, second)).head.status is Status.COMPLETED


async def test_what_waited_for_its_key_goes_on_after_a_crash(site: Site) -> None:
    begun, _, site.probe.does["serve"] = gate()
    async with site.open() as runtime:
        execution = await begin(runtime, each(one_at_a_time()), names=["ada"] * 4)
        await begun.wait()
        site.cut_power()
    crowd = site.probe.does["serve"] = Crowd()

    async with site.open() as runtime:
        assert (await ended(runtime, execution)).head.status is Status.COMPLETED

    assert (crowd.most["ada"], len(crowd.served)) == (1, 4)
    assert site.rows("work_items") == []


# Queues


async def test_of_a_limited_queue_only_so_many_are_at_work_at_a_time(site: Site) -> None:
    crowd = site.probe.does["serve"] = Crowd()
    body = probe("serve", input_mapping="{{ item }}", queue="model")
    async with site.open(queues=("general", "model"), queue_limits={"model": 3}) as runtime:
        execution = await begin(runtime, each(body), names=["any"] * 15)
        assert (await ended(runtime, execution)).head.status is Status.COMPLETED

    assert crowd.most["any"] == 3


async def test_a_long_queue_leaves_room_for_another(site: Site) -> None:
    crowd = site.probe.does["serve"] = Crowd(0.01)
    begun, open_, site.probe.does["first"] = gate()
    long = each(probe("serve", input_mapping="{{ item }}"))
    short = workflow({"a": probe("serve", input_mapping="model", queue="model")}, "a > end", workflow_id="short")
    async with site.open(queues=("general", "model"), concurrency=1) as runtime:
        first = await begin(runtime, workflow({"a": probe("first")}, "a > end", workflow_id="first"))
        await begun.wait()
        executions = [first, await begin(runtime, long, names=["general"] * 30), await begin(runtime, short)]
        open_.set()
        for execution in executions:
            await ended(runtime, execution)

    assert crowd.served.index("model") < 20


# Priorities


async def test_the_most_urgent_execution_is_served_first(site: Site) -> None:
    crowd = Crowd(0.001)
    begun, open_, site.probe.does["first"] = gate()
    site.probe.does["serve"] = crowd
    ir = workflow({"a": probe("serve")}, "a > end")
    async with site.open(concurrency=1) as runtime:
        first = await begin(runtime, workflow({"a": probe("first")}, "a > end", workflow_id="first"))
        await begun.wait()
        await runtime.register(ME, ir)
        started = [
            await runtime.start(ME, "story", None, {"who": priority}, priority=priority)
            for priority in (0, -5, 7, 0, 3)
        ]
        open_.set()
        for execution in (first, *started):
            await ended(runtime, execution)

    assert crowd.served == [7, 3, 0, 0, -5]


async def test_children_and_forks_are_as_urgent_as_what_they_come_from(site: Site) -> None:
    async with site.open() as runtime:
        await runtime.register(ME, workflow({"a": probe("a")}, "a > end", workflow_id="child"))
        await runtime.register(ME, workflow({"sub": {"type": "subgraph", "workflow_ref": "child"}}, "sub > end"))
        execution = await runtime.start(ME, "story", None, {}, priority=9)
        await ended(runtime, execution)

        forked = await runtime.fork(ME, execution, sequence=1)

        children = await runtime.executions(ME, workflow_id="child")
        found = [(await runtime.execution(ME, head.execution_id)).progress.priority for head in children]
        assert found[0] == 9
        assert (await runtime.execution(ME, forked)).progress.priority == 9


# Among processes


@pytest.fixture(params=["on", "off"])
def hints(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def test_two_processes_keep_to_the_limits_together_and_wake_each_other(postgres_url: str, hints: str) -> None:
    async with AsyncExitStack() as stack:
        # With hints nobody should have to wait for the poll.
        poll = 60.0 if hints == "on" else 0.05
        (one, at_one), (_, at_two) = [
            await process(stack, postgres_url, hints=hints, poll_seconds=poll, concurrency=2) for _ in range(2)
        ]
        crowd = at_one.does["serve"] = at_two.does["serve"] = Crowd()
        body = one_at_a_time(2, queue="model")
        execution = await begin(one, each(body), names=["ada", "bob"] * 20)

        assert (await ended(one, execution)).head.status is Status.COMPLETED

    assert (max(crowd.most.values()), crowd.at_once) == (2, 3)
    assert min(at_one.called("serve"), at_two.called("serve")) > 2


async def process(stack: AsyncExitStack, url: str, **settings: Any) -> tuple[Runtime, Probe]:
    node = Probe()
    chosen = Settings(
        database_url=url,
        auth="off",
        shutdown_grace=0,
        queues=("general", "model"),
        queue_limits={"model": 3},
        **settings,
    )
    return await stack.enter_async_context(open_runtime(chosen, extra_plugins=[node])), node
