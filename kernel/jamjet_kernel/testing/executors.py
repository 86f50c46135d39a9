"""What every node executor promises, as a pytest class for plugin authors.

    class TestMyExecutor(ExecutorContract):
        @pytest.fixture
        def executor(self): return MyExecutor()

        @pytest.fixture
        def good_call(self): return NodeCall("exec_1", "node", 1, MyConfig(...), {"n": 1}, "key")

A `failing_call` (a call that must fail) is worth giving too; without it the test of failures is skipped.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from pydantic import BaseModel, ValidationError

from ..errors import NodeFailed, RateLimited
from ..ports import NodeCall, NodeExecutor, NodeResult

LONGEST_BLOCK = 0.25
"""Seconds in which nothing else may get its turn; far above what a busy machine takes by itself."""
CANCEL_WITHIN = 5.0


class ExecutorContract:
    @pytest.fixture
    def failing_call(self) -> NodeCall | None:
        return None

    def test_it_is_an_executor_with_a_kind(self, executor: NodeExecutor) -> None:
        assert isinstance(executor, NodeExecutor)
        assert isinstance(executor.kind, str)
        assert executor.kind.isidentifier()

    def test_its_config_is_a_model_that_forbids_unknown_fields(
        self, executor: NodeExecutor, good_call: NodeCall
    ) -> None:
        assert issubclass(executor.config, BaseModel)
        assert isinstance(good_call.config, executor.config)

        said = good_call.config.model_dump(by_alias=True, exclude_unset=True)
        with pytest.raises(ValidationError, match="no_such_field"):
            executor.config.model_validate({**said, "no_such_field": 1})

    @pytest.mark.asyncio
    async def test_it_answers_a_node_result(self, executor: NodeExecutor, good_call: NodeCall) -> None:
        result = await executor.execute(good_call)

        assert isinstance(result, NodeResult)
        assert result.state_patch is None or isinstance(result.state_patch, dict)

    @pytest.mark.asyncio
    async def test_calls_at_the_same_time_do_not_disturb_each_other(
        self, executor: NodeExecutor, good_call: NodeCall
    ) -> None:
        calls = [replace(good_call, node_id=f"{good_call.node_id}_{n}") for n in range(5)]

        results = await asyncio.gather(*map(executor.execute, calls))

        assert all(isinstance(result, NodeResult) for result in results)

    @pytest.mark.asyncio
    async def test_it_does_not_block_the_event_loop(self, executor: NodeExecutor, good_call: NodeCall) -> None:
        running = asyncio.ensure_future(executor.execute(good_call))

        assert await _longest_gap(running) < LONGEST_BLOCK

    @pytest.mark.asyncio
    async def test_it_can_be_cancelled(self, executor: NodeExecutor, good_call: NodeCall) -> None:
        running = asyncio.ensure_future(executor.execute(good_call))
        await asyncio.sleep(0)

        running.cancel()
        done, _ = await asyncio.wait([running], timeout=CANCEL_WITHIN)

        assert done, f"still running {CANCEL_WITHIN} s after it was cancelled"
        assert running.cancelled() or running.exception() is None

    @pytest.mark.asyncio
    async def test_its_failures_are_node_failed_or_rate_limited(
        self, executor: NodeExecutor, failing_call: NodeCall | None
    ) -> None:
        if failing_call is None:
            pytest.skip("the fixture failing_call is not given")
        with pytest.raises((NodeFailed, RateLimited)) as raised:
            await executor.execute(failing_call)

        assert str(raised.value)


async def _longest_gap(running: asyncio.Future[NodeResult]) -> float:
    loop = asyncio.get_running_loop()
    longest, last = 0.0, loop.time()
    while not running.done():
        await asyncio.sleep(0.005)
        longest, last = max(longest, loop.time() - last), loop.time()
    await running
    return longest
