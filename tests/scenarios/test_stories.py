"""Stories of a runtime that stops and goes on: nothing is lost, nothing happens twice, nothing starts over."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import pytest
import scenario_steps
from scenario_checks import sound
from scenario_site import HOUR, ME, Ahead, Site, begin, ended, kinds, probe, seen, workflow

from jamjet_kernel import NodeCall
from jamjet_kernel.core.progress import Status
from jamjet_kernel.ports import Delivery
from jamjet_kernel.runtime import Once


class Gate:
    """A behaviour that says when it has begun, and goes on when the test lets it."""

    def __init__(self, answer: Any = "done") -> None:
        self.begun = asyncio.Event()
        self.open = asyncio.Event()
        self.answer = answer

    async def __call__(self, call: NodeCall) -> Any:
        self.begun.set()
        await self.open.wait()
        return self.answer


def subgraph(workflow_id: str) -> dict[str, Any]:
    return {"type": "subgraph", "workflow_ref": workflow_id}


def ends(events: list[str]) -> str:
    return events[-1]


# The process dies, and another one goes on


async def test_a_node_that_ran_when_the_process_died_is_run_again(site: Site) -> None:
    gate = site.probe.does["second"] = Gate()
    async with site.open() as runtime:
        nodes = {name: probe(name) for name in ("first", "second", "third")}
        execution = await begin(runtime, workflow(nodes, "first > second > third > end"))
        await gate.begun.wait()
        site.cut_power()

    gate.open.set()
    async with site.open() as runtime:
        view = await ended(runtime, execution)

    assert view.head.status is Status.COMPLETED
    assert [site.probe.called(name) for name in ("first", "second", "third")] == [1, 2, 1]
    assert len({call.idempotency_key for call in site.probe.calls if call.config.do == "second"}) == 1
    sound(site.database)


async def test_a_retry_delay_goes_on_over_a_restart(site: Site) -> None:
    async def fail_once(call: NodeCall) -> str:
        if call.attempt == 1:
            raise ConnectionError("not yet")
        return "at last"

    site.probe.does["flaky"] = fail_once
    policy = {"max_attempts": 2, "backoff": "fixed", "initial_delay": "1h", "max_delay": "1h"}
    async with site.open() as runtime:
        nodes = {"a": probe("flaky", retry_policy=policy)}
        execution = await begin(runtime, workflow(nodes, "a > end"))
        await seen(runtime, execution, "RetryScheduled")
        site.cut_power()

    async with site.open(world=Ahead(HOUR // 2)) as runtime:
        assert (await runtime.execution(ME, execution)).progress.run("a").attempt == 2
        site.cut_power()
    assert site.probe.called("flaky") == 1
    async with site.open(world=Ahead(HOUR + 1000)) as runtime:
        view = await ended(runtime, execution)

    assert view.progress.state == {"a": "at last"}
    assert site.probe.called("flaky") == 2
    sound(site.database)


async def test_a_timer_that_became_due_while_nobody_was_there_fires_at_the_start(site: Site) -> None:
    nodes = {"wait": {"type": "wait", "condition": "timer", "duration": "48h"}, "after": probe("after")}
    async with site.open() as runtime:
        execution = await begin(runtime, workflow(nodes, "wait > after > end"))
        await seen(runtime, execution, "WorkflowPaused")
        site.cut_power()

    async with site.open(world=Ahead(47 * HOUR)) as runtime:
        assert (await runtime.execution(ME, execution)).head.status is Status.PAUSED
        site.cut_power()
    async with site.open(world=Ahead(49 * HOUR)) as runtime:
        view = await ended(runtime, execution)

    assert view.head.status is Status.COMPLETED
    assert site.probe.called("after") == 1
    sound(site.database)


async def test_thousands_of_timers_that_became_due_while_nobody_was_there_fire_at_the_start(site: Site) -> None:
    nodes = {"wait": {"type": "wait", "condition": "timer", "duration": "2h"}}
    async with site.open() as runtime:
        await runtime.register(ME, workflow(nodes, "wait > end"))
        waiting = await asyncio.gather(*(runtime.start(ME, "story", None, {}) for _ in range(2500)))
        site.cut_power()

    async with site.open(world=Ahead(3 * HOUR)) as runtime:
        for execution in waiting:
            await ended(runtime, execution)

    assert not site.rows("timers")


async def test_an_approval_is_answered_after_a_restart(site: Site) -> None:
    nodes = {"review": {"type": "human_approval", "description": "Pay {{ state.amount }}?"}, "pay": probe("pay")}
    async with site.open() as runtime:
        execution = await begin(runtime, workflow(nodes, "review > pay > end"), amount=5)
        await seen(runtime, execution, "WorkflowPaused")
        site.cut_power()

    async with site.open() as runtime:
        [asked] = await runtime.approvals(ME)
        await runtime.approve(ME, execution, decision="approved", user_id="ada")
        view = await ended(runtime, execution)

    assert (asked.node_id, asked.description) == ("review", "Pay 5?")
    assert view.progress.state == {"amount": 5, "pay": "pay"}
    sound(site.database)


async def test_of_a_map_only_what_was_missing_runs_again(site: Site) -> None:
    gate = Gate()

    async def square(call: NodeCall) -> int:
        if call.input >= 2:
            await gate(call)
        return call.input**2

    site.probe.does["square"] = square
    fan = {"type": "map", "items": "state.numbers", "body": probe("square"), "max_concurrency": 2, "output_key": "all"}
    async with site.open() as runtime:
        execution = await begin(runtime, workflow({"fan": fan}, "fan > end"), numbers=[0, 1, 2, 3, 4, 5])
        await seen(runtime, execution, "NodeCompleted", 2)
        await gate.begun.wait()
        site.cut_power()
    before = [call.input for call in site.probe.calls]
    site.probe.calls.clear()

    gate.open.set()
    async with site.open() as runtime:
        view = await ended(runtime, execution)

    assert set(before) <= {0, 1, 2, 3}
    assert sorted(call.input for call in site.probe.calls) == [2, 3, 4, 5]
    assert view.progress.state["all"] == [0, 1, 4, 9, 16, 25]
    sound(site.database)


async def test_a_child_execution_goes_on_after_a_restart_and_tells_its_parent(site: Site) -> None:
    gate = site.probe.does["inner"] = Gate({"found": 42})
    async with site.open() as runtime:
        await runtime.register(ME, workflow({"inner": probe("inner")}, "inner > end", workflow_id="child"))
        nodes = {"sub": {"type": "subgraph", "workflow_ref": "child"}, "after": probe("after")}
        execution = await begin(runtime, workflow(nodes, "sub > after > end"))
        await gate.begun.wait()
        site.cut_power()

    gate.open.set()
    async with site.open() as runtime:
        view = await ended(runtime, execution)

    assert view.progress.state == {"found": 42, "after": "after"}
    assert len(sound(site.database)) == 2
    assert not site.rows("deliveries")


async def test_workflows_that_start_each_other_come_to_an_end(site: Site) -> None:
    to_ping, to_pong = {"call": subgraph("ping")}, {"call": subgraph("pong")}
    async with site.open() as runtime:
        await runtime.register(ME, workflow({"leaf": probe("leaf")}, workflow_id="ping", version="0.9.0"))
        await runtime.register(ME, workflow(to_ping, workflow_id="pong"))
        view = await ended(runtime, await begin(runtime, workflow(to_pong, workflow_id="ping")))

    assert view.progress.error is not None
    assert view.progress.error.message.startswith("child executions nest 32 levels deep at most")
    executions = sound(site.database)
    assert len(executions) == 33
    assert max(len(execution.execution_id) for execution in executions) == 58


async def test_a_child_whose_parent_was_cancelled_meanwhile_does_not_start(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    late: list[Delivery] = []
    async with site.open() as runtime:
        monkeypatch.setattr(runtime.deliveries, "send", late.append)
        await runtime.register(ME, workflow({"inner": probe("inner")}, workflow_id="child"))
        execution = await begin(runtime, workflow({"sub": subgraph("child")}))
        await runtime.cancel(ME, execution)
        monkeypatch.undo()
        for delivery in late:
            runtime.deliveries.send(delivery)
        while site.rows("deliveries"):
            await asyncio.sleep(0.01)

    assert [found.execution_id for found in sound(site.database)] == [execution]
    assert len(late) == 2


async def test_a_paused_execution_stays_paused_over_a_restart(site: Site) -> None:
    gate = site.probe.does["a"] = Gate()
    async with site.open() as runtime:
        execution = await begin(runtime, workflow({"a": probe("a"), "b": probe("b")}, "a > b > end"))
        await gate.begun.wait()
        await runtime.pause(ME, execution)
        gate.open.set()
        await seen(runtime, execution, "NodeCompleted")
        site.cut_power()

    async with site.open() as runtime:
        other = await begin(runtime, workflow({"c": probe("c")}, workflow_id="other"))
        await ended(runtime, other)
        assert (await runtime.execution(ME, execution)).head.status is Status.PAUSED
        assert site.probe.called("b") == 0
        await runtime.resume(ME, execution)
        view = await ended(runtime, execution)

    assert view.head.status is Status.COMPLETED
    assert site.probe.called("b") == 1
    sound(site.database)


async def test_a_pause_and_a_resume_reach_the_children_of_children(site: Site) -> None:
    gate = site.probe.does["a"] = Gate()
    async with site.open() as runtime:
        await runtime.register(ME, workflow({"a": probe("a"), "b": probe("b")}, "a > b", workflow_id="inner"))
        await runtime.register(ME, workflow({"sub": subgraph("inner")}, workflow_id="outer"))
        execution = await begin(runtime, workflow({"sub": subgraph("outer")}))
        await gate.begun.wait()
        await runtime.pause(ME, execution)
        inner = (await runtime.executions(ME, workflow_id="inner"))[0].execution_id
        await seen(runtime, inner, "WorkflowPaused")
        gate.open.set()
        await seen(runtime, inner, "NodeCompleted")
        site.cut_power()

    async with site.open() as runtime:
        assert site.probe.called("b") == 0
        await runtime.resume(ME, execution)
        await ended(runtime, execution)

    assert {found.progress.status for found in sound(site.database)} == {Status.COMPLETED}
    assert site.probe.called("b") == 1


async def test_an_execution_is_paused_while_the_children_of_its_children_wait(site: Site) -> None:
    nodes = {"ask": {"type": "human_approval"}, "b": probe("b")}
    gate = site.probe.does["b"] = Gate()
    async with site.open() as runtime:
        await runtime.register(ME, workflow(nodes, "ask > b", workflow_id="inner"))
        await runtime.register(ME, workflow({"sub": subgraph("inner")}, workflow_id="outer"))
        execution = await begin(runtime, workflow({"sub": subgraph("outer")}))
        await seen(runtime, execution, "WorkflowPaused")
        site.cut_power()

    async with site.open() as runtime:
        assert (await runtime.execution(ME, execution)).head.status is Status.PAUSED
        [asked] = await runtime.approvals(ME)
        await runtime.approve(ME, asked.execution_id, decision="approved")
        await seen(runtime, execution, "WorkflowResumed")
        assert (await runtime.execution(ME, execution)).head.status is Status.RUNNING
        gate.open.set()
        view = await ended(runtime, execution)

    assert view.head.status is Status.COMPLETED
    sound(site.database)


async def test_a_graceful_stop_waits_for_what_runs_and_leaves_the_rest_for_the_next_start(site: Site) -> None:
    quick, slow = Gate("quick"), Gate("slow")
    site.probe.does |= {"quick": quick, "slow": slow}
    nodes = {
        "fork": {"type": "parallel", "branches": ["quick", "slow"]},
        "quick": probe("quick"),
        "slow": probe("slow"),
    }
    async with site.open(shutdown_grace=0.3) as runtime:
        execution = await begin(runtime, workflow(nodes, "quick > end", "slow > end"))
        await quick.begun.wait()
        await slow.begun.wait()
        asyncio.get_running_loop().call_later(0.05, quick.open.set)

    slow.open.set()
    async with site.open() as runtime:
        view = await ended(runtime, execution)

    assert view.progress.state == {"quick": "quick", "slow": "slow"}
    assert (site.probe.called("quick"), site.probe.called("slow")) == (1, 2)
    sound(site.database)


async def test_two_thousand_executions_go_on_after_a_restart(site: Site) -> None:
    gate = site.probe.does["a"] = Gate()
    async with site.open(concurrency=5000) as runtime:
        await runtime.register(ME, workflow({"a": probe("a"), "b": probe("b")}, "a > b > end"))
        executions = await asyncio.gather(*(runtime.start(ME, "story", None, {}) for _ in range(2000)))
        site.cut_power()

    gate.open.set()
    async with site.open() as runtime:
        for execution in executions:
            await ended(runtime, execution)

    assert {execution.progress.status for execution in sound(site.database)} == {Status.COMPLETED}


# Somebody asks for something, and something else happens at the same time


async def test_a_result_that_comes_after_the_cancel_is_refused(site: Site) -> None:
    stubborn = asyncio.Event()
    returned = asyncio.Event()

    async def go_on_regardless(call: NodeCall) -> str:
        try:
            await stubborn.wait()
        except asyncio.CancelledError:
            returned.set()
        return "too late"

    site.probe.does["a"] = go_on_regardless
    async with site.open() as runtime:
        execution = await begin(runtime, workflow({"a": probe("a"), "b": probe("b")}, "a > b > end"))
        await seen(runtime, execution, "NodeScheduled")
        while not site.probe.calls:
            await asyncio.sleep(0)
        await runtime.cancel(ME, execution, reason="enough")
        await returned.wait()

    [cancelled] = sound(site.database)
    assert cancelled.progress.status is Status.CANCELLED
    assert cancelled.progress.state == {}
    assert site.probe.called("b") == 0


async def test_a_node_that_runs_while_its_execution_is_paused_and_resumed_is_not_disturbed(site: Site) -> None:
    gate = site.probe.does["a"] = Gate()
    async with site.open() as runtime:
        execution = await begin(runtime, workflow({"a": probe("a")}, "a > end"))
        await gate.begun.wait()
        await runtime.pause(ME, execution)
        await runtime.resume(ME, execution)
        gate.open.set()
        view = await ended(runtime, execution)

    assert view.head.status is Status.COMPLETED
    assert site.probe.called("a") == 1


async def test_executions_that_are_cancelled_as_they_start_hold_no_place(site: Site) -> None:
    async with site.open(concurrency=2) as runtime:
        await runtime.register(ME, workflow({"a": probe("a")}, "a > end"))

        async def start_and_cancel() -> None:
            execution = await runtime.start(ME, "story", None, {})
            await runtime.cancel(ME, execution)

        site.probe.does["a"] = Gate()
        await asyncio.gather(*(start_and_cancel() for _ in range(200)))
        site.probe.does.clear()
        view = await ended(runtime, await runtime.start(ME, "story", None, {}))

    assert view.head.status is Status.COMPLETED
    sound(site.database)


async def test_a_branch_that_loses_before_it_began_holds_no_place(site: Site) -> None:
    branches = [f"b{count}" for count in range(8)]
    nodes = {
        "fork": {"type": "parallel", "branches": branches},
        **{branch: probe(branch) for branch in branches},
        "first": {"type": "join", "wait_for": branches, "merge_strategy": "first"},
    }
    async with site.open(concurrency=2) as runtime:
        await runtime.register(ME, workflow(nodes, "first > end"))
        for _ in range(20):
            view = await ended(runtime, await runtime.start(ME, "story", None, {}))
            assert view.head.status is Status.COMPLETED
        assert runtime.worker.running == 0

    sound(site.database)


async def test_parallel_branches_that_end_at_once_are_all_collected(site: Site) -> None:
    gate = Gate()
    branches = [f"b{count}" for count in range(40)]
    site.probe.does |= dict.fromkeys(branches, gate)
    nodes = {
        "fork": {"type": "parallel", "branches": branches},
        **{branch: probe(branch) for branch in branches},
        "join": {"type": "join", "wait_for": branches},
        "after": probe("after"),
    }
    async with site.open() as runtime:
        execution = await begin(runtime, workflow(nodes, "join > after > end"))
        while len(site.probe.calls) < len(branches):
            await asyncio.sleep(0)
        gate.open.set()
        view = await ended(runtime, execution)

    assert view.progress.run("join").output == ["done"] * 40
    assert site.probe.called("after") == 1
    sound(site.database)


async def test_starts_with_one_idempotency_key_at_the_same_time_start_one_execution(site: Site) -> None:
    async with site.open() as runtime:
        await runtime.register(ME, workflow({"a": probe("a")}, "a > end"))
        once = Once("key-1", "fingerprint")

        answers = await asyncio.gather(*(runtime.start(ME, "story", None, {}, once=once) for _ in range(50)))
        await ended(runtime, answers[0])

    assert len(set(answers)) == 1
    assert len(sound(site.database)) == 1


async def test_the_same_approval_sent_twice_at_the_same_time_is_accepted_twice_and_counts_once(site: Site) -> None:
    async with site.open() as runtime:
        execution = await begin(runtime, workflow({"review": {"type": "human_approval"}}, "review > end"))
        await seen(runtime, execution, "ApprovalRequested")
        once = Once("key-1", "fingerprint")

        await asyncio.gather(*(runtime.approve(ME, execution, decision="approved", once=once) for _ in range(10)))
        await ended(runtime, execution)

    assert (await_kinds := [type(event).__name__ for event in sound(site.database)[0].events])
    assert await_kinds.count("ApprovalReceived") == 1


async def test_an_event_that_comes_before_its_wait_is_kept_for_it(site: Site) -> None:
    gate = site.probe.does["a"] = Gate()
    wait = {"type": "wait", "condition": "external_event", "correlation_key": "paid-{{ state.order }}"}
    async with site.open() as runtime:
        nodes = {"a": probe("a"), "paid": wait}
        execution = await begin(runtime, workflow(nodes, "a > paid > end"), order=7)
        await gate.begun.wait()
        await runtime.external_event(ME, execution, correlation_key="paid-7", payload={"amount": 500})
        site.cut_power()

    gate.open.set()
    async with site.open() as runtime:
        view = await ended(runtime, execution)

    assert view.progress.state["amount"] == 500
    sound(site.database)


async def test_an_execution_that_is_not_in_memory_any_more_goes_on_correctly(site: Site) -> None:
    gate = site.probe.does["a"] = Gate()
    review = {"type": "human_approval"}
    async with site.open(live_executions=1) as runtime:
        nodes = {"a": probe("a"), "review": review, "b": probe("b")}
        await runtime.register(ME, workflow(nodes, "a > review > b > end"))
        executions = await asyncio.gather(*(runtime.start(ME, "story", None, {}) for _ in range(20)))
        gate.open.set()
        for execution in executions:
            await seen(runtime, execution, "ApprovalRequested")
        assert len(runtime.lives) <= 1
        await asyncio.gather(*(runtime.approve(ME, execution, decision="approved") for execution in executions))
        for execution in executions:
            await ended(runtime, execution)

    assert {execution.progress.status for execution in sound(site.database)} == {Status.COMPLETED}
    assert site.probe.called("b") == 20


# What nodes do


async def test_a_function_that_blocks_its_thread_does_not_block_the_runtime(site: Site) -> None:
    scenario_steps.released.clear()
    blocking = {"a": {"type": "python_fn", "function": "scenario_steps:block"}}
    async with site.open() as runtime:
        held = await begin(runtime, workflow(blocking, "a > end"))
        await seen(runtime, held, "NodeScheduled")

        free = await begin(runtime, workflow({"b": probe("b")}, "b > end", workflow_id="other"))
        await ended(runtime, free)

        assert not (await runtime.execution(ME, held)).progress.is_terminal
        scenario_steps.released.set()
        assert (await ended(runtime, held)).progress.state == {"a": "released"}


async def test_a_function_that_keeps_a_cpu_busy_runs_in_a_process_of_its_own(site: Site) -> None:
    nodes = {
        "a": {
            "type": "python_fn",
            "function": "scenario_steps:burn",
            "isolation": "process",
            "input_mapping": {"seconds": 0.5},
        }
    }
    async with site.open() as runtime:
        busy = await begin(runtime, workflow(nodes, "a > end"))
        await seen(runtime, busy, "NodeScheduled")

        await ended(runtime, await begin(runtime, workflow({"b": probe("b")}, "b > end", workflow_id="other")))

        view = await ended(runtime, busy)
    assert view.progress.state["pid"] != os.getpid()


async def test_a_node_that_takes_too_long_is_stopped_and_tried_again(site: Site) -> None:
    async def hang_once(call: NodeCall) -> str:
        if call.attempt == 1:
            await asyncio.Event().wait()
        return "in time"

    site.probe.does["slow"] = hang_once
    policy = {"max_attempts": 2, "backoff": "fixed", "initial_delay": 0, "retryable_on": ["timeout"]}
    async with site.open() as runtime:
        nodes = {"a": probe("slow", retry_policy=policy, node_timeout_secs=0.05)}
        execution = await begin(runtime, workflow(nodes, "a > end"))
        view = await ended(runtime, execution)
        failed = await seen(runtime, execution, "NodeFailed")

    assert view.progress.state == {"a": "in time"}
    assert failed["error"]["error_class"] == "timeout"


async def test_a_rate_limit_parks_the_node_over_a_restart_and_costs_no_attempt(site: Site) -> None:
    from jamjet_kernel import RateLimited

    async def limited_twice(call: NodeCall) -> int:
        if site.probe.called("ask") < 3:
            raise RateLimited(0 if site.probe.called("ask") == 1 else 3600)
        return call.attempt

    site.probe.does["ask"] = limited_twice
    async with site.open() as runtime:
        execution = await begin(runtime, workflow({"a": probe("ask")}, "a > end"))
        await seen(runtime, execution, "NodeParked", 2)
        site.cut_power()

    async with site.open(world=Ahead(HOUR + 1000)) as runtime:
        view = await ended(runtime, execution)

    assert view.progress.state == {"a": 1}
    sound(site.database)


async def test_a_node_that_cancels_itself_has_failed(site: Site) -> None:
    async def give_up(call: NodeCall) -> str:
        raise asyncio.CancelledError

    site.probe.does["a"] = give_up
    async with site.open() as runtime:
        view = await ended(runtime, await begin(runtime, workflow({"a": probe("a")}, "a > end")))

    assert view.head.status is Status.FAILED


@pytest.mark.parametrize("value", [float("nan"), {"x": [float("inf")]}])
async def test_a_number_that_json_does_not_have_fails_its_node(site: Site, value: Any) -> None:
    async def answer(call: NodeCall) -> Any:
        return value

    site.probe.does["a"] = answer
    async with site.open() as runtime:
        execution = await begin(runtime, workflow({"a": probe("a", output_key="r")}, "a > end"), r=5)
        view = await ended(runtime, execution)

    assert view.head.status is Status.FAILED
    assert "NaN and infinity" in str(view.progress.error)
    assert view.progress.state["r"] == 5


async def test_a_result_that_is_nested_too_deep_fails_its_node(site: Site) -> None:
    async def deep(call: NodeCall) -> dict[str, Any]:
        made: dict[str, Any] = {}
        for _ in range(700):
            made = {"in": made}
        return made

    site.probe.does["a"] = deep
    async with site.open() as runtime:
        view = await ended(runtime, await begin(runtime, workflow({"a": probe("a"), "b": probe("b")}, "a > b > end")))

    assert view.head.status in (Status.FAILED, Status.COMPLETED)
    sound(site.database)


async def test_plugins_are_told_each_committed_event_once_and_in_order(site: Site) -> None:
    from collections.abc import Sequence

    from jamjet_kernel import Event, hookimpl

    class Observer:
        def __init__(self) -> None:
            self.told: list[tuple[str, str]] = []

        @hookimpl
        def events_recorded(self, execution_id: str, events: Sequence[Event]) -> None:
            self.told += [(execution_id, type(event).__name__) for event in events]

    class Broken:
        @hookimpl
        def events_recorded(self) -> None:
            raise RuntimeError("I am broken")

    observer = Observer()
    async with site.open(observer) as runtime:
        await runtime.register(ME, workflow({"a": probe("a"), "b": probe("b")}, "a > b > end"))
        executions = await asyncio.gather(*(runtime.start(ME, "story", None, {}) for _ in range(5)))
        for execution in executions:
            await ended(runtime, execution)
            told = [kind for told_of, kind in observer.told if told_of == execution]
            assert told == await kinds(runtime, execution)
    async with site.open(Broken()) as runtime:
        view = await ended(runtime, await runtime.start(ME, "story", None, {}))

    assert view.head.status is Status.COMPLETED
