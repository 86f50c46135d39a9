"""Stories of what fails for good."""

from __future__ import annotations

from typing import Any

from scenario_site import ME, Site, begin, ended, probe, workflow

from jamjet_kernel import NodeCall, NodeFailed
from jamjet_kernel.core.progress import Status
from jamjet_kernel.runtime import Runtime


async def breaks(call: NodeCall) -> Any:
    raise NodeFailed(f"broken\x00 {call.node_id}", retryable=True)


async def letters(runtime: Runtime) -> list[tuple[str, str, int]]:
    found = await runtime.dead_letters(ME)
    return [(letter.execution_id, letter.run_id, letter.attempts) for letter in found]


async def test_each_of_several_failures_is_a_dead_letter_and_one_requeue_takes_all(site: Site) -> None:
    site.probe.does["bad"] = breaks
    nodes = {
        "p": {"type": "parallel", "branches": ["a", "b", "c"]},
        "a": probe("bad"),
        "b": probe("bad", retry_policy={"max_attempts": 2, "initial_delay": 0.01}, queue="slow"),
        "c": probe("good"),
    }
    async with site.open(queues=("general", "slow")) as runtime:
        execution = await begin(runtime, workflow(nodes, "p > a > end", "p > b > end", "p > c > end"))
        assert (await ended(runtime, execution)).head.status is Status.FAILED
        assert await letters(runtime) == [(execution, "a", 1), (execution, "b", 2)]
        (slow,) = await runtime.dead_letters(ME, queue="slow")
        assert (slow.error, slow.workflow_id) == ("broken\ufffd b", "story")

        del site.probe.does["bad"]
        await runtime.requeue(ME, execution, "b")

        assert (await ended(runtime, execution)).head.status is Status.COMPLETED
        assert await letters(runtime) == []
        assert site.probe.called("good") == 1


async def test_what_fails_again_is_a_dead_letter_again(site: Site) -> None:
    site.probe.does["bad"] = breaks
    body = {"type": "map", "items": "[1, 2]", "max_concurrency": 1, "body": probe("bad")}
    async with site.open() as runtime:
        execution = await begin(runtime, workflow({"each": body}, "each > end"))
        for _ in range(2):
            await ended(runtime, execution)
            assert await letters(runtime) == [(execution, "each[0]", 1)]
            await runtime.retry(ME, execution)


async def test_what_is_cancelled_or_runs_on_has_no_dead_letter(site: Site) -> None:
    site.probe.does["bad"] = breaks
    nodes = {"p": {"type": "parallel"}, "a": probe("bad"), "w": {"type": "wait", "condition": "timer", "duration": 60}}
    async with site.open() as runtime:
        execution = await begin(runtime, workflow(nodes, "p > a > end", "p > w > end"))
        while site.probe.called("bad") == 0 or (await runtime.execution(ME, execution)).progress.busy:
            await (await runtime.lives.get("default", execution)).watch()
        assert await letters(runtime) == []

        await runtime.cancel(ME, execution)

        assert await letters(runtime) == []


async def test_the_failure_of_a_child_is_its_parents(site: Site) -> None:
    site.probe.does["bad"] = breaks
    sub = {"type": "subgraph", "workflow_ref": "child"}
    async with site.open() as runtime:
        await runtime.register(ME, workflow({"a": probe("bad")}, "a > end", workflow_id="child"))
        handled = workflow({"sub": {**sub, "on_error": "b"}, "b": probe("b")}, "sub > end", "b > end")
        assert (await ended(runtime, await begin(runtime, handled))).head.status is Status.COMPLETED
        assert await letters(runtime) == []

        execution = await begin(runtime, workflow({"sub": sub}, "sub > end", workflow_id="parent"))
        await ended(runtime, execution)
        assert await letters(runtime) == [(execution, "sub", 1)]
        del site.probe.does["bad"]
        await runtime.requeue(ME, execution, "sub")

        assert (await ended(runtime, execution)).head.status is Status.COMPLETED
        assert await letters(runtime) == []
