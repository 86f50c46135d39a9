"""What becomes of calls while machines of the cluster come, go and die."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from processes import is_dead
from ray_calls import Caller, Emitted, begun, until
from ray_cluster import RayCluster, free_ports

from jamjet_compute_ray import open_compute
from jamjet_kernel import Settings

pytestmark = pytest.mark.asyncio(loop_scope="session")


# Placement


async def test_a_function_waits_for_a_machine_that_has_what_it_needs_and_follows_when_that_dies(
    caller: Caller, cluster: RayCluster, tmp_path: Path
) -> None:
    here = await caller("ray_functions:where")
    needs = {"num_cpus": 0.5, "red": 2}
    given = {"folder": str(tmp_path)}
    emitted = Emitted()
    call = asyncio.create_task(
        caller("ray_functions:begins_and_waits", given, resources=needs, idempotency_key="k-1", emit=emitted)
    )

    said = await until(lambda: emitted.said("waiting"))
    assert said == ["no machine of the Ray cluster has CPU: 0.5, red: 2"]
    assert not begun(tmp_path)

    await asyncio.to_thread(cluster.add, "first", red=3)
    await until(lambda: begun(tmp_path))
    assert await caller("ray_functions:where", resources={"num_cpus": 0.5, "red": 0.5}) != here

    await asyncio.to_thread(cluster.add, "second", red=2)
    await asyncio.to_thread(cluster.remove, "first")
    await until(lambda: len(begun(tmp_path)) == 2)
    (tmp_path / "go").touch()
    assert await call == ["k-1", "k-1"]
    (resubmitted,) = emitted.said("resubmitted")
    assert resubmitted.startswith("its process or machine died, once: ")


async def test_a_function_gets_what_it_asked_for(caller: Caller) -> None:
    given = await caller("ray_functions:resources", resources={"num_cpus": 0.5, "memory": 2**20})

    assert given == {"CPU": 0.5, "memory": 2**20}


async def test_a_function_that_nothing_can_run_may_be_cancelled(caller: Caller) -> None:
    call = asyncio.create_task(caller("ray_functions:where", resources={"num_gpus": 64}))
    await asyncio.sleep(0.2)

    call.cancel()

    with pytest.raises(asyncio.CancelledError):
        await call


async def test_a_request_that_ray_refuses_fails_the_node(caller: Caller) -> None:
    failed = await caller.failure("ray_functions:where", resources={"CPU": 1})

    assert str(failed).startswith("Ray refuses to run ray_functions:where")
    assert not failed.retryable


# Cancellation


@pytest.mark.parametrize("function", ["begins_and_tidies_up", "begins_and_waits_async"])
async def test_a_cancelled_function_is_told_to_stop(caller: Caller, function: str, tmp_path: Path) -> None:
    call = asyncio.create_task(caller(f"ray_functions:{function}", {"folder": str(tmp_path)}))
    await until(lambda: begun(tmp_path))

    call.cancel()

    with pytest.raises(asyncio.CancelledError):
        await call
    await until((tmp_path / "told to stop").exists)


async def test_a_cancelled_function_that_does_not_listen_is_killed(caller: Caller, tmp_path: Path) -> None:
    function = "ray_functions:begins_and_does_not_listen"
    call = asyncio.create_task(caller(function, {"folder": str(tmp_path)}))
    (line,) = await until(lambda: begun(tmp_path))
    pid = int(line.split()[1])

    call.cancel()

    with pytest.raises(asyncio.CancelledError):
        await call
    await until((tmp_path / "told to stop").exists)
    await until(lambda: is_dead(pid))


# Death


async def test_a_function_whose_process_dies_runs_again_under_its_key(caller: Caller, tmp_path: Path) -> None:
    emitted = Emitted()

    keys = await caller("ray_functions:dies_at_first", {"folder": str(tmp_path)}, idempotency_key="k-1", emit=emitted)

    assert keys == ["k-1", "k-1"]
    (said,) = emitted.said("resubmitted")
    assert said.startswith("its process or machine died, once: WorkerCrashedError")


async def test_a_function_whose_process_is_killed_runs_again(caller: Caller, tmp_path: Path) -> None:
    call = asyncio.create_task(caller("ray_functions:begins_and_waits", {"folder": str(tmp_path)}))
    (line,) = await until(lambda: begun(tmp_path))

    os.kill(int(line.split()[1]), signal.SIGKILL)
    await until(lambda: len(begun(tmp_path)) == 2)
    (tmp_path / "go").touch()

    assert await call == ["key", "key"]


async def test_a_function_that_kills_its_process_each_time_fails_in_the_end(caller: Caller, tmp_path: Path) -> None:
    failed = await caller.failure("ray_functions:dies_each_time", {"folder": str(tmp_path)})

    assert str(failed).startswith("the process or machine that ran ray_functions:dies_each_time died, 2 times in a row")
    assert (failed.error_class, failed.retryable) == ("io_error", True)
    assert failed.details == {"function": "ray_functions:dies_each_time", "deaths": 2}
    assert len(begun(tmp_path)) == 2


async def test_a_lost_cluster_is_connected_to_again_and_gets_its_calls_again(
    caller: Caller, cluster: RayCluster, tmp_path: Path
) -> None:
    """From elsewhere and from a machine of the cluster: there Ray ends the process that was connected."""
    inside = open_compute(url=cluster.url_on_its_machines, settings=Settings())
    assert inside is not None
    callers = {"elsewhere": caller, "inside": Caller(inside)}
    emitted = {name: Emitted() for name in callers}
    calls = []
    for name, each in callers.items():
        (tmp_path / name).mkdir()
        given = {"folder": str(tmp_path / name)}
        call = each("ray_functions:begins_and_waits", given, idempotency_key=name, emit=emitted[name])
        calls.append(asyncio.create_task(call))
    await until(lambda: all(begun(tmp_path / name) for name in callers))

    cluster.kill()
    ticks = await ticks_during(asyncio.to_thread(cluster.start_again))
    await until(lambda: all(len(begun(tmp_path / name)) == 2 for name in callers))
    for name in callers:
        (tmp_path / name / "go").touch()

    assert await asyncio.gather(*calls) == [["elsewhere"] * 2, ["inside"] * 2]
    assert all(each.said("resubmitted") for each in emitted.values())
    assert max(ticks) < 1, "the event loop must not wait for Ray"
    await inside.close()


async def test_a_call_waits_visibly_for_a_cluster_that_is_not_there(
    ray_environment: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jamjet_compute_ray.compute.PATIENCE", 1)
    (port,) = free_ports(1)
    url = f"ray://127.0.0.1:{port}"
    compute = open_compute(url=url, settings=Settings())
    assert compute is not None
    emitted = Emitted()
    call = asyncio.create_task(Caller(compute)("ray_functions:where", emit=emitted))

    (said,) = await until(lambda: emitted.said("waiting"))
    await asyncio.wait_for(compute.close(), 5)

    assert said == f"for the Ray cluster at {url}: it does not answer yet"
    with pytest.raises(asyncio.CancelledError):
        await call


# Help


async def ticks_during(work: Any) -> list[float]:
    """How long the event loop was busy with something else, each time."""
    loop = asyncio.get_running_loop()
    ticks: list[float] = []
    task = asyncio.ensure_future(work)
    while not task.done():
        before = loop.time()
        await asyncio.sleep(0.01)
        ticks.append(loop.time() - before)
    await task
    return ticks
