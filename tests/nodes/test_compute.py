"""Python functions on the loop, on threads and in processes."""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import Any

import pytest
from processes import is_dead

from jamjet_kernel.errors import NodeFailed, RateLimited
from jamjet_kernel.nodes.compute import LocalCompute
from jamjet_kernel.ports import NodeCall, NodeResult


def node(**fields: Any) -> NodeCall:
    given: dict[str, Any] = {"config": None, "input": {}, "idempotency_key": "key", **fields}
    return NodeCall("exec_1", "work", 2, **given)


async def call(
    compute: LocalCompute, function: str, input: Any = None, isolation: str = "thread", **fields: Any
) -> Any:
    return await compute.call(f"sample:{function}", input, isolation=isolation, node=node(**fields))


async def failure(compute: LocalCompute, function: str, input: Any = None, isolation: str = "thread") -> NodeFailed:
    with pytest.raises(NodeFailed) as raised:
        await call(compute, function, input, isolation)
    return raised.value


@pytest.fixture(params=["thread", "process"])
def isolation(request: pytest.FixtureRequest) -> str:
    return str(request.param)


# Binding


@pytest.mark.parametrize(
    ("function", "input", "wanted"),
    [
        ("add", {"a": 1, "b": 2, "more": 3}, 3),
        ("add", {"a": 1}, 11),
        ("add", 5, 15),
        ("add_sync", {"a": 1, "b": 2}, 3),
        ("positional", {"a": 1}, 111),
        ("positional", {"a": 1, "b": 2, "c": 3}, 6),
        ("whole", {"x": 1}, {"x": 1}),
        ("whole", {"state": {"x": 1}, "y": 2}, {"x": 1}),
        ("whole", [1, 2], [1, 2]),
        ("whole", None, None),
        ("whole_by_any_name", {"x": 1}, {"x": 1}),
        ("limited", {"x": 1}, 5),
        ("limited", 7, 7),
        ("limited", None, 5),
        ("keywords", {"a": 1, "x": 2}, {"a": 1, "rest": {"x": 2}}),
        ("nothing", {"x": 1}, "called"),
        ("nothing", 5, "called"),
        ("item", {"item": {"name": "bolt", "count": "3"}}, "3 bolt"),
        ("item", {"name": "bolt"}, "1 bolt"),
        ("items", {"items": [{"name": "bolt"}]}, ["bolt"]),
        ("odd_annotation", {"a": 1, "item": {"name": "bolt"}}, "1 bolt"),
        ("looks_sync", {"a": 4}, 4),
        ("Tools.double", {"n": 4}, 8),
        ("adder", {"a": 4}, 5),
    ],
)
async def test_parameters_are_bound_from_the_input(
    compute: LocalCompute, function: str, input: Any, wanted: Any
) -> None:
    assert await call(compute, function, input) == wanted


@pytest.mark.parametrize(
    ("function", "input", "message"),
    [
        ("add", {"x": 1, "b": 2}, "sample:add needs the parameter a; the input's keys are: b, x"),
        ("add_sync", {}, "sample:add_sync needs the parameter a; the input's keys are: none"),
        ("keywords", {"x": 1}, "sample:keywords needs the parameter a; the input's keys are: x"),
        ("odd_annotation", [1], "sample:odd_annotation takes a, item: give it an object with these keys"),
        ("odd_annotation", None, "sample:odd_annotation needs the parameters a, item"),
        ("item", {"item": {"count": "many"}}, "item.name: Field required; item.count: Input should be"),
        ("yields", {}, "sample:yields yields; a node's function returns its result"),
    ],
)
async def test_an_input_that_does_not_fit_says_what_is_missing_and_is_not_retried(
    compute: LocalCompute, function: str, input: Any, message: str
) -> None:
    failed = await failure(compute, function, input)

    assert str(failed).startswith(message)
    assert not failed.retryable


async def test_a_context_is_given_by_annotation(compute: LocalCompute) -> None:
    seen = await call(compute, "annotated_context", {"a": 1}, deadline=12.5)

    assert seen == ["exec_1", "work", 2, "key", 12.5, 1]


async def test_a_context_is_given_by_name_unless_the_input_has_that_key(compute: LocalCompute) -> None:
    assert await call(compute, "named_context", {"a": 1}) == "NodeContext"
    assert await call(compute, "named_context", {"ctx": 1}) == "int"
    assert await call(compute, "context_as_data", {"context": "x"}) == "x"


# Finding


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("samples:add", "there is no module 'samples'; similar: sample"),
        ("json.decode:x", "there is no module 'json.decode'; similar: json.decoder"),
        ("sample.deep:add", "there is no module 'sample.deep'"),
        ("broken:x", "the module 'broken' cannot be imported: RuntimeError: no licence"),
        ("sample:ad", "sample:ad: there is no 'ad' in sample; similar: add"),
        ("sample:Tools.zzz", "sample:Tools.zzz: there is no 'zzz' in Tools; there are: double"),
        ("sample:number", "sample:number is a int, not a function"),
    ],
)
async def test_a_function_that_is_not_there_is_named_with_what_resembles_it(
    compute: LocalCompute, function: str, message: str
) -> None:
    with pytest.raises(NodeFailed) as raised:
        await compute.call(function, {}, isolation="thread", node=node())

    assert str(raised.value).startswith(message)
    assert not raised.value.retryable


@pytest.mark.parametrize("function", ["os:getcwd", "sample:run_anything", "sample:os.getcwd"])
async def test_only_functions_of_allowed_modules_are_called(function: str, isolation: str) -> None:
    compute = LocalCompute(threads=1, processes=1, python_modules=["sample", "mine.*"])

    with pytest.raises(NodeFailed, match=r"may not be called; JAMJET_PYTHON_MODULES allows: sample, mine\.\*"):
        await compute.call(function, {}, isolation=isolation, node=node())

    assert await call(compute, "nothing", {}, isolation) == "called"
    await compute.close()


# Failing


@pytest.mark.parametrize(
    ("name", "message", "error_class"),
    [
        ("value", "ValueError: no such city", "custom"),
        ("empty", "ValueError", "custom"),
        ("timeout", "TimeoutError: slow", "timeout"),
        ("reset", "ConnectionResetError: peer", "connection_reset"),
        ("refused", "ConnectionRefusedError: closed", "io_error"),
        ("missing", "FileNotFoundError: [Errno 2] No such file: 'x.txt'", "io_error"),
        ("exit", "SystemExit: 3", "custom"),
        ("interrupt", "KeyboardInterrupt", "custom"),
        ("group", "OSError: disk", "io_error"),
    ],
)
@pytest.mark.parametrize("function", ["raises", "raises_async"])
async def test_an_exception_becomes_a_failure_of_its_class(
    compute: LocalCompute, function: str, name: str, message: str, error_class: str, isolation: str
) -> None:
    failed = await failure(compute, function, {"name": name}, isolation)

    assert (str(failed), failed.error_class, failed.retryable) == (message, error_class, True)


@pytest.mark.parametrize("name", ["stop", "cancelled"])
@pytest.mark.parametrize("function", ["raises", "raises_async"])
async def test_an_exception_that_means_something_to_the_loop_fails_the_attempt_alone(
    compute: LocalCompute, function: str, name: str, isolation: str
) -> None:
    assert (await failure(compute, function, {"name": name}, isolation)).error_class == "custom"


async def test_a_failure_shows_the_users_frames(compute: LocalCompute, isolation: str) -> None:
    failed = await failure(compute, "raises", {"name": "value"}, isolation)

    frames = failed.details["traceback"]
    assert len(frames) == 1
    assert "sample.py" in frames[0]
    assert frames[0].endswith("in raises: raise errors[name]")


async def test_what_a_function_raises_on_purpose_passes(compute: LocalCompute, isolation: str) -> None:
    failed = await failure(compute, "raises", {"name": "failed"}, isolation)
    with pytest.raises(RateLimited, match="slow down") as limited:
        await call(compute, "raises", {"name": "limited"}, isolation)

    assert (str(failed), failed.retryable, failed.error_class, failed.details) == (
        "on purpose",
        False,
        "server_error",
        {"a": 1},
    )
    assert limited.value.retry_after == 7


# Threads and the loop


async def test_a_node_result_comes_back_as_it_is(compute: LocalCompute, isolation: str) -> None:
    assert await call(compute, "result", {}, isolation) == NodeResult(1, {"x": 2})


async def test_a_sync_function_runs_on_a_thread_of_its_own_pool(compute: LocalCompute) -> None:
    assert (await call(compute, "thread_name")).startswith("jamjet-function")


async def test_context_variables_carry_over_into_threads(compute: LocalCompute) -> None:
    await call(compute, "nothing")
    from sample import request_id

    request_id.set("r-1")

    assert await call(compute, "reads_contextvar") == "r-1"


async def test_the_loop_goes_on_while_a_sync_function_waits(compute: LocalCompute) -> None:
    await call(compute, "nothing")
    import sample

    sample.started.clear()
    sample.go_on.clear()
    waiting = asyncio.create_task(call(compute, "waits_for_go"))
    while not sample.started.is_set():
        await asyncio.sleep(0)
    sample.go_on.set()

    assert await waiting == "gone on"


async def test_cancelling_passes_through(compute: LocalCompute) -> None:
    await call(compute, "nothing")
    running = asyncio.create_task(call(compute, "waits_forever"))
    await asyncio.sleep(0)

    running.cancel()

    with pytest.raises(asyncio.CancelledError):
        await running


async def test_a_cancelled_sync_function_does_not_hold_up_its_caller(compute: LocalCompute) -> None:
    await call(compute, "nothing")
    import sample

    sample.started.clear()
    sample.go_on.clear()
    running = asyncio.create_task(call(compute, "waits_for_go"))
    await asyncio.to_thread(sample.started.wait, 5)

    running.cancel()

    with pytest.raises(asyncio.CancelledError):
        await running
    sample.go_on.set()


@pytest.mark.parametrize("function", ["emits", "emits_sync"])
async def test_emitted_progress_is_recorded_when_emit_returns(compute: LocalCompute, function: str) -> None:
    recorded: list[tuple[Any, str]] = []

    async def emit(data: Any) -> None:
        await asyncio.sleep(0)
        recorded.append((data, threading.current_thread().name))

    assert await call(compute, function, {"n": 3}, emit=emit) == "done"

    home = threading.current_thread().name
    assert recorded == [({"step": step}, home) for step in range(3)]


async def test_a_refused_emit_ends_the_function(compute: LocalCompute) -> None:
    async def emit(data: Any) -> None:
        raise NodeFailed("the attempt is over", retryable=False)

    with pytest.raises(NodeFailed, match="the attempt is over"):
        await call(compute, "emits_sync", {"n": 3}, emit=emit)


# Processes


@pytest.mark.parametrize("function", ["pid", "pid_async"])
async def test_isolation_process_runs_in_another_process(compute: LocalCompute, function: str) -> None:
    first = await call(compute, function, {}, "process")
    second = await call(compute, function, {}, "process")

    assert first == second != os.getpid()


async def test_processes_run_side_by_side(compute: LocalCompute) -> None:
    pids = await asyncio.gather(*(call(compute, "pid", {}, "process") for _ in range(4)))

    assert len(set(pids)) == 2


async def test_a_process_knows_the_attempt_but_cannot_emit(compute: LocalCompute) -> None:
    seen = await call(compute, "annotated_context", {"a": 1}, "process")
    failed = await failure(compute, "emits_sync", {"n": 1}, "process")

    assert seen == ["exec_1", "work", 2, "key", None, 1]
    assert str(failed) == "RuntimeError: emit() is not available to work here; it needs isolation: thread"


async def test_a_process_has_a_logger_of_the_same_name(compute: LocalCompute) -> None:
    logger = logging.getLogger("jamjet.node.x")

    assert await call(compute, "logs", {}, "process", logger=logger) == "jamjet.node.x"


@pytest.mark.parametrize("function", ["dies", "dies_by_signal"])
async def test_a_process_that_dies_fails_its_attempt_and_nobody_elses(
    compute: LocalCompute, function: str, tmp_path: Path
) -> None:
    neighbour = asyncio.create_task(call(compute, "tells_and_hangs", {"path": str(tmp_path / "pid")}, "process"))
    await _pid_in(tmp_path / "pid")

    failed = await failure(compute, function, {}, "process")

    assert (failed.error_class, failed.retryable) == ("io_error", True)
    assert str(failed) == f"the process that ran sample:{function} died without an answer"
    assert await call(compute, "add", {"a": 1}, "process") == 11
    assert not neighbour.done()
    neighbour.cancel()
    with pytest.raises(asyncio.CancelledError):
        await neighbour


async def test_a_cancelled_process_call_kills_its_process(compute: LocalCompute, tmp_path: Path) -> None:
    hanging = call(compute, "tells_and_hangs", {"path": str(tmp_path / "pid")}, "process")
    running = asyncio.create_task(hanging)
    pid = await _pid_in(tmp_path / "pid")

    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running

    await _gone(pid)
    assert await call(compute, "add", {"a": 1}, "process") == 11


async def test_a_result_that_cannot_travel_is_a_failure(compute: LocalCompute) -> None:
    failed = await failure(compute, "no_json", {}, "process")

    assert str(failed).startswith("the result is not JSON: function has no JSON form")
    assert not failed.retryable


async def test_closing_ends_the_processes(tmp_path: Path) -> None:
    compute = LocalCompute(threads=1, processes=2)
    idle = await call(compute, "pid", {}, "process")
    busy = asyncio.create_task(call(compute, "tells_and_hangs", {"path": str(tmp_path / "pid")}, "process"))
    pid = await _pid_in(tmp_path / "pid")

    await compute.close()

    with pytest.raises(NodeFailed):
        await busy
    await _gone(pid)
    await _gone(idle)


async def test_processes_end_with_a_runtime_that_is_killed(tmp_path: Path) -> None:
    script = textwrap.dedent("""
        import asyncio, sys
        from jamjet_kernel.nodes.compute import LocalCompute
        from jamjet_kernel.ports import NodeCall

        async def main():
            compute = LocalCompute(threads=1, processes=1)
            node = NodeCall("e", "n", 1, None, {}, "k")
            print(await compute.call("sample:pid", {}, isolation="process", node=node), flush=True)
            await asyncio.Event().wait()

        if __name__ == "__main__":
            asyncio.run(main())
    """)
    (tmp_path / "runtime.py").write_text(script)
    paths = os.pathsep.join(sys.path)
    command = [sys.executable, str(tmp_path / "runtime.py")]
    runtime = subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": paths})
    assert runtime.stdout is not None
    pid = int(await asyncio.to_thread(runtime.stdout.readline))

    runtime.send_signal(signal.SIGKILL)
    runtime.wait()
    runtime.stdout.close()

    await _gone(pid)


async def _pid_in(path: Path) -> int:
    return int(await _until(lambda: path.exists() and path.read_text()))


async def _gone(pid: int) -> None:
    await _until(functools.partial(is_dead, pid))


async def _until(condition: Any) -> Any:
    async with asyncio.timeout(20):
        while not (found := condition()):
            await asyncio.sleep(0.01)
    return found
