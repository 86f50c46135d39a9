"""A function behaves on the cluster as it does in the runtime's process."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from ray_calls import Caller, Emitted

from jamjet_compute_ray import open_compute
from jamjet_kernel import NodeFailed, NodeResult, RateLimited, Settings

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest.mark.parametrize(
    ("function", "input", "wanted"),
    [
        ("add", {"a": 1, "b": 2, "more": 3}, 3),
        ("add_sync", {"a": 1}, 11),
        ("positional", {"a": 1, "b": 2, "c": 3}, 6),
        ("whole", [1, 2], [1, 2]),
        ("whole", None, None),
        ("limited", 7, 7),
        ("keywords", {"a": 1, "x": 2}, {"a": 1, "rest": {"x": 2}}),
        ("item", {"item": {"name": "bolt", "count": "3"}}, "3 bolt"),
        ("looks_sync", {"a": 4}, 4),
        ("Tools.double", {"n": 4}, 8),
        ("adder", {"a": 4}, 5),
        ("model", {"name": "bolt"}, {"name": "bolt", "count": 1}),
        ("whole", {"n": 2**70, "text": "ü\ud83d\ude00".encode("utf-16", "surrogatepass").decode("utf-16")}, None),
    ],
)
@pytest.mark.parametrize("isolation", ["thread", "process"])
async def test_parameters_are_bound_and_results_come_back(
    caller: Caller, function: str, input: Any, wanted: Any, isolation: str
) -> None:
    made = await caller(f"sample:{function}", input, isolation=isolation)

    assert made == (input if function == "whole" else wanted)


async def test_a_node_result_comes_back_as_it_is(caller: Caller) -> None:
    assert await caller("sample:result") == NodeResult(1, {"x": 2})


async def test_the_context_tells_the_attempt(caller: Caller) -> None:
    logger = logging.getLogger("jamjet.node.x")
    deadline = asyncio.get_running_loop().time() + 100

    seen = await caller("sample:annotated_context", {"a": 1})
    left = await caller("ray_functions:time_left", deadline=deadline)

    assert seen == ["exec_1", "work", 2, "key", None, 1]
    assert 90 < left < 100
    assert await caller("ray_functions:time_left") is None
    assert await caller("sample:logs", logger=logger) == "jamjet.node.x"


@pytest.mark.parametrize("function", ["emits", "emits_sync"])
async def test_progress_is_recorded_when_emit_returns(caller: Caller, function: str) -> None:
    emitted = Emitted()

    assert await caller(f"sample:{function}", {"n": 3}, emit=emitted) == "done"

    assert emitted.events == [{"step": step} for step in range(3)]


@pytest.mark.parametrize("function", ["emits", "emits_sync"])
async def test_a_refused_emit_ends_the_function(caller: Caller, function: str) -> None:
    async def emit(data: Any) -> None:
        raise NodeFailed("the attempt is over", retryable=False)

    failed = await caller.failure(f"sample:{function}", {"n": 3}, emit=emit)

    assert (str(failed), failed.retryable) == ("the attempt is over", False)


async def test_without_a_runtime_there_is_nothing_to_emit_to(caller: Caller) -> None:
    failed = await caller.failure("sample:emits_sync", {"n": 1})

    assert str(failed) == "RuntimeError: emit() is not available here"


@pytest.mark.parametrize(
    ("function", "input", "message", "error_class", "retryable"),
    [
        ("add", {"x": 1}, "sample:add needs the parameter a; the input's keys are: x", "custom", False),
        ("ad", {}, "sample:ad: there is no 'ad' in sample; similar: add", "custom", False),
        ("no_json", {}, "the result is not JSON: function has no JSON form", "custom", False),
        ("raises", {"name": "value"}, "ValueError: no such city", "custom", True),
        ("raises_async", {"name": "timeout"}, "TimeoutError: slow", "timeout", True),
        ("raises", {"name": "reset"}, "ConnectionResetError: peer", "connection_reset", True),
        ("raises", {"name": "missing"}, "FileNotFoundError: [Errno 2] No such file: 'x.txt'", "io_error", True),
        ("raises", {"name": "exit"}, "SystemExit: 3", "custom", True),
        ("raises_async", {"name": "cancelled"}, "CancelledError", "custom", True),
        ("raises", {"name": "group"}, "OSError: disk", "io_error", True),
        ("raises", {"name": "failed"}, "on purpose", "server_error", False),
    ],
)
async def test_a_failure_is_told_as_it_would_be_here(
    caller: Caller, function: str, input: Any, message: str, error_class: str, retryable: bool
) -> None:
    failed = await caller.failure(f"sample:{function}", input)

    assert str(failed).startswith(message)
    assert (failed.error_class, failed.retryable) == (error_class, retryable)


async def test_a_failure_shows_the_users_frames(caller: Caller) -> None:
    failed = await caller.failure("sample:raises", {"name": "value"})

    (frame,) = failed.details["traceback"]
    assert frame.endswith("in raises: raise errors[name]")


async def test_the_other_sides_wish_to_wait_passes(caller: Caller) -> None:
    with pytest.raises(RateLimited, match="slow down") as limited:
        await caller("sample:raises", {"name": "limited"})

    assert limited.value.retry_after == 7


async def test_many_calls_run_at_once_and_none_gets_anothers_answer(caller: Caller) -> None:
    made = await asyncio.gather(*(caller("sample:add", {"a": n, "b": 0}) for n in range(100)))

    assert made == list(range(100))


async def test_a_large_input_comes_back(caller: Caller) -> None:
    text = "x" * 5_000_000

    assert await caller("sample:whole", {"state": text}) == text


async def test_only_functions_of_allowed_modules_are_called_on_the_cluster(cluster: Any) -> None:
    compute = open_compute(url=cluster.url_on_its_machines, settings=Settings(python_modules=("sample", "mine.*")))
    assert compute is not None
    caller = Caller(compute)

    for function in ("os:getcwd", "sample:run_anything"):
        failed = await caller.failure(function)
        assert "may not be called; JAMJET_PYTHON_MODULES allows: sample, mine.*" in str(failed)
        assert not failed.retryable
    assert await caller("sample:nothing") == "called"

    await compute.close()
