"""Whole workflows whose functions run on the cluster."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from processes import is_dead
from ray_calls import PATIENCE, begun, until
from ray_cluster import FUNCTIONS, RayCluster, free_ports

from jamjet_kernel import Principal, Settings
from jamjet_kernel.authoring import compile_text
from jamjet_kernel.core.progress import Status
from jamjet_kernel.plugins import load_kinds
from jamjet_kernel.runtime import Runtime, View, open_runtime

pytestmark = pytest.mark.asyncio(loop_scope="session")

ME = Principal()
KINDS = load_kinds(Settings(plugins=("nodes",)))


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def runtime(cluster: RayCluster, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Runtime]:
    database = tmp_path_factory.mktemp("ray") / "runtime.db"
    settings = Settings(database_url=str(database), compute=cluster.url_on_its_machines, shutdown_grace=0, auth="off")
    async with open_runtime(settings) as opened:
        yield opened


async def test_a_map_of_a_hundred_items_runs_on_the_cluster(runtime: Runtime) -> None:
    ir = compiled("""
        workflow: {id: squares, version: 1.0.0}
        nodes:
          squares:
            type: map
            items: state.numbers
            body:
              type: python_fn
              function: "ray_functions:square"
              input: {n: "{{ item }}"}
              resources: {num_cpus: 0.5}
            next: tool
          tool: {type: tool, fn: "ray_functions:resources", arguments: {}, resources: {num_cpus: 0.25}, next: end}
          end: {type: end}
        """)

    ended = await run(runtime, ir, numbers=list(range(100)))

    assert ended.head.status is Status.COMPLETED
    assert ended.progress.state["squares"] == [n * n for n in range(100)]
    assert ended.progress.state["CPU"] == 0.25


async def test_a_node_that_takes_too_long_is_stopped_on_the_cluster(runtime: Runtime, tmp_path: Path) -> None:
    ir = compiled("""
        workflow: {id: late, version: 1.0.0}
        nodes:
          work: {type: python_fn, function: "ray_functions:begins_and_tidies_up", timeout: 3s, next: end}
          end: {type: end}
        """)

    ended = await run(runtime, ir, folder=str(tmp_path))

    assert ended.head.status is Status.FAILED
    assert ended.progress.error is not None
    assert ended.progress.error.message == "took longer than 3 s"
    await until((tmp_path / "told to stop").exists)


async def test_a_cancelled_execution_stops_its_function(runtime: Runtime, tmp_path: Path) -> None:
    execution_id = await begin(runtime, one("begins_and_tidies_up", "cancelled"), folder=str(tmp_path))
    await until(lambda: begun(tmp_path))

    await runtime.cancel(ME, execution_id)

    await until((tmp_path / "told to stop").exists)


async def test_functions_go_on_when_a_runtime_is_killed_and_started_again(cluster: RayCluster, tmp_path: Path) -> None:
    """Its driver goes with it, and so does the function that it ran; the next life runs it under the same key."""
    (port,) = free_ports(1)
    execution_id = None
    for life in (1, 2):
        server = serve(cluster, port, tmp_path)
        try:
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=10, trust_env=False) as client:
                await answering(client)
                if execution_id is None:
                    await client.post("/workflows", json={"ir": one("begins_and_waits", "killed")})
                    given = {"workflow_id": "killed", "input": {"folder": str(tmp_path)}}
                    execution_id = (await client.post("/executions", json=given)).json()["execution_id"]
                await until(lambda life=life: len(begun(tmp_path)) == life)
                if life == 1:
                    continue
                (tmp_path / "go").touch()
                answer = await client.get(f"/executions/{execution_id}?wait=20")
                while (status := answer.json()["status"]) == "running":
                    await asyncio.sleep(0.1)
                    answer = await client.get(f"/executions/{execution_id}")
        finally:
            server.send_signal(signal.SIGKILL)
            server.wait()

    first, second = begun(tmp_path)
    key = f"{execution_id}:work:0"
    assert status == "completed"
    assert [first.split()[0], second.split()[0]] == [key, key]
    await until(lambda: is_dead(int(first.split()[1])))


async def test_a_cluster_of_its_own_comes_and_goes_with_a_runtime(
    ray_environment: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the code of a folder, but for the runtime's secrets there."""
    (tmp_path / "sent.py").write_text("import os, pathlib\ndef files(): return os.getpid(), sorted(os.listdir())\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JAMJET_RAY_RUNTIME_ENV", json.dumps({"working_dir": "."}))
    monkeypatch.setenv("JAMJET_RAY_INIT", json.dumps({"num_cpus": 1, "object_store_memory": 100_000_000}))

    async with open_runtime(Settings(compute="ray:local", shutdown_grace=0, auth="off")) as runtime:
        assert (tmp_path / ".jamjet" / "signing.key").exists()
        seen = await run(runtime, one("files", "files", module="sent"))
        await begin(runtime, one("begins_and_tidies_up", "stopped"), folder=str(tmp_path))
        await until(lambda: begun(tmp_path))

    pid, files = seen.progress.state["work"]
    assert files == ["sent.py"]
    assert (tmp_path / "told to stop").exists()
    await until(lambda: is_dead(pid))


# Workflows


def one(function: str, workflow_id: str, module: str = "ray_functions") -> dict[str, Any]:
    node = {"type": "python_fn", "function": f"{module}:{function}"}
    return {"workflow_id": workflow_id, "version": "1.0.0", "nodes": {"work": node}, "start_node": "work", "edges": []}


def compiled(text: str) -> dict[str, Any]:
    return compile_text(text, "w.yaml", KINDS)


async def begin(runtime: Runtime, ir: dict[str, Any], **input: Any) -> str:
    await runtime.register(ME, ir)
    return await runtime.start(ME, ir["workflow_id"], None, input)


async def run(runtime: Runtime, ir: dict[str, Any], **input: Any) -> View:
    execution_id = await begin(runtime, ir, **input)
    return await runtime.wait(ME, execution_id, PATIENCE)


# A server of its own


def serve(cluster: RayCluster, port: int, folder: Path) -> subprocess.Popen[bytes]:
    environment = {
        **os.environ,
        "DATABASE_URL": str(folder / "runtime.db"),
        "JAMJET_AUTH": "off",
        "JAMJET_COMPUTE": cluster.url_on_its_machines,
        "PYTHONPATH": os.pathsep.join(map(str, FUNCTIONS)),
    }
    command = [Path(sys.executable).parent / "jamjet-server", "--port", str(port)]
    with (folder / "log").open("ab") as log:
        return subprocess.Popen(command, env=environment, stdout=log, stderr=log)


async def answering(client: httpx.AsyncClient) -> None:
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                await client.get("/health")
                return
            except httpx.TransportError:
                await asyncio.sleep(0.05)
