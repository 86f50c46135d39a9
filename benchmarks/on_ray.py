"""What a call of a function costs on Ray, beside the same call here: `python -m benchmarks.on_ray`.

A cluster of this machine, reached in both ways: as one of its machines, and through Ray Client. The four take turns,
so that what else the machine does meets them all.
"""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from jamjet_compute_ray import open_compute as open_ray
from jamjet_kernel import Compute, NodeCall, Settings
from jamjet_kernel.nodes import open_compute as open_local

from .machine import machine

ROUNDS = 7
IN_A_ROW = 50
AT_ONCE = 200

QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
"""Everything on the loopback address, and nothing sent anywhere."""

CLUSTER = """
import sys
from ray.cluster_utils import Cluster
ports = {"gcs_server_port": int(sys.argv[1]), "ray_client_server_port": int(sys.argv[2])}
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False, **ports})
print("ready", flush=True)
sys.stdin.read()
cluster.shutdown()
cluster.remove_node(cluster.head_node)
"""


async def main() -> None:
    os.environ.update(QUIET)
    inside, client = _free_port(), _free_port()
    with _cluster(inside, client):
        settings = Settings(processes=2)
        ways = {
            "a thread": (_opened(open_local("local", settings)), "thread"),
            "a process": (_opened(open_local("local", settings)), "process"),
            "Ray, on a machine of the cluster": (_opened(open_ray(f"ray:127.0.0.1:{inside}", settings)), "thread"),
            "Ray, through Ray Client": (_opened(open_ray(f"ray://127.0.0.1:{client}", settings)), "thread"),
        }
        try:
            await _show(ways)
        finally:
            for compute, _ in ways.values():
                await compute.close()


async def _show(ways: Mapping[str, tuple[Compute, str]]) -> None:
    one: dict[str, list[float]] = {name: [] for name in ways}
    many: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, way in ways.items():
            # Ray ends workers that idle while those of another driver are busy; they start again here.
            await _at_once(*way)
            one[name].append(await _in_a_row(*way))
            many[name].append(AT_ONCE / await _at_once(*way))
    console = Console()
    console.print(", ".join(f"{key} {value}" for key, value in machine(Path.cwd(), "-").items()), style="dim")
    table = Table(title=f"Medians of {ROUNDS} rounds (smallest – largest)", title_justify="left")
    for column in ("a sync function in", "one call, ms", f"{AT_ONCE} at once, calls/s"):
        table.add_column(column)
    for name in ways:
        table.add_row(name, _spread(one[name]), _spread(many[name]))
    console.print(table)


async def _in_a_row(compute: Compute, isolation: str) -> float:
    """Milliseconds a call, the median."""
    took = []
    for _ in range(IN_A_ROW):
        began = time.perf_counter()
        await _call(compute, isolation)
        took.append((time.perf_counter() - began) * 1000)
    return median(took)


async def _at_once(compute: Compute, isolation: str) -> float:
    began = time.perf_counter()
    await asyncio.gather(*(_call(compute, isolation) for _ in range(AT_ONCE)))
    return time.perf_counter() - began


async def _call(compute: Compute, isolation: str) -> Any:
    node = NodeCall("exec_1", "node", 1, None, {}, "exec_1:node:0")
    return await compute.call("operator:neg", {"a": 1}, isolation=isolation, node=node)


def _opened(compute: Compute | None) -> Compute:
    assert compute is not None
    return compute


@contextmanager
def _cluster(inside: int, client: int) -> Iterator[None]:
    with tempfile.TemporaryFile() as log:
        pipe = subprocess.PIPE
        process = subprocess.Popen(
            [sys.executable, "-c", CLUSTER, str(inside), str(client)], stdin=pipe, stdout=pipe, stderr=log, text=True
        )
        assert process.stdin is not None
        assert process.stdout is not None
        assert any(line.strip() == "ready" for line in process.stdout), "the cluster does not start"
        yield
        process.stdin.close()
        process.wait(60)


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _spread(values: list[float]) -> str:
    return f"{median(values):.2f} ({min(values):.2f} – {max(values):.2f})"


if __name__ == "__main__":
    asyncio.run(main())
