"""The figures of the server, a process of its own, beside a bare Falcon app on the same uvicorn."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Self

from . import workloads
from .client import Client, rate
from .figures import Figure, Goal
from .in_process import median_ms

ROOT = Path(__file__).parent.parent
CONNECTIONS = 16
TOKEN = "jam_benchmarkbenchmarkbenchmarkbenchmarkbenchm"
STARTED = {"workflow_id": "three-steps", "input": {"x": 1}}


class OverHttp:
    """`commit_latency` answers the milliseconds that bare SQLite takes for three steps."""

    def __init__(self, folder: Path, commit_latency: Callable[[], Awaitable[float]], *, quick: bool) -> None:
        self._folder = folder
        self._commit_latency = commit_latency
        self._latencies = 100 if quick else 200
        self._seconds = 2.0 if quick else 4.0
        self._idle_seconds = 5.0 if quick else 10.0
        self._idle: dict[str, float] = {}

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._port, self._server = stack.enter_context(started(server(self._folder / "server.db")))
            self._path = self._prepare(self._port, TOKEN)
            open_to_all = server(self._folder / "open.db", "--no-auth")
            self._open_port, _ = stack.enter_context(started(open_to_all))
            self._open_path = self._prepare(self._open_port, None)
            self._bare_port, self._bare = stack.enter_context(started(_bare(self._answer())))
            self._stack = stack.pop_all()
        return self

    def _prepare(self, port: int, token: str | None) -> str:
        """The path of an execution that has ended."""
        with Client(port, token) as client:
            client.post("/workflows", {"ir": workloads.three_steps()})
            return f"/executions/{_run(client)}"

    def _answer(self) -> Path:
        """The file with the answer that the bare app gives too."""
        content = self._folder / "answer.json"
        with Client(self._port, TOKEN) as client:
            content.write_bytes(client.get(self._path))
        return content

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def figures(self) -> list[Figure]:
        figures = [
            Figure(
                "3 steps over HTTP, start to result",
                "ms",
                self._latency,
                "2 bare Falcon requests + the rows, bare SQLite",
                self._bare_latency,
                Goal("<=", 6.0),
            ),
            Figure(
                "GET /executions/{id}",
                "requests/s",
                lambda: self._rate(self._port, self._path, TOKEN),
                "the same bytes, bare Falcon",
                lambda: self._rate(self._bare_port, self._path),
                Goal(">=", 0.5, "ratio"),
            ),
            Figure(
                "GET /executions/{id} with a token",
                "µs",
                lambda: self._microseconds(self._port, self._path, TOKEN),
                "authentication off",
                lambda: self._microseconds(self._open_port, self._open_path),
                Goal("<=", 1.15, "ratio"),
            ),
            Figure(
                "process start to first 200", "s", self._to_ready, "bare Falcon", self._bare_to_ready, Goal("<=", 1.0)
            ),
        ]
        if Path("/proc/self/task").exists():
            figures.append(Figure("idle server", "% of a CPU", self._idle_share, "bare Falcon", self._bare_idle_share))
        return figures

    # Start to result

    async def _latency(self) -> float:
        with Client(self._port, TOKEN) as client:
            return await median_ms(lambda: asyncio.to_thread(_run, client), self._latencies)

    async def _bare_latency(self) -> float:
        with Client(self._bare_port) as client:
            requests = await median_ms(lambda: asyncio.to_thread(_ask_twice, client, self._path), self._latencies)
        return requests + await self._commit_latency()

    # Requests a second

    async def _rate(self, port: int, path: str, token: str | None = None) -> float:
        return await rate(port, path, connections=CONNECTIONS, seconds=self._seconds, token=token)

    async def _microseconds(self, port: int, path: str, token: str | None = None) -> float:
        """Of a request, on a server that has nothing else to do."""
        return 1e6 / await self._rate(port, path, token)

    # Start to ready

    async def _to_ready(self) -> float:
        file = self._folder / f"started-{time.monotonic_ns()}.db"
        return await asyncio.to_thread(_ready_within, server(file))

    async def _bare_to_ready(self) -> float:
        return await asyncio.to_thread(_ready_within, _bare(self._folder / "answer.json"))

    # Idle

    async def _idle_share(self) -> float:
        """Of both at once: nothing is asked of either."""
        await asyncio.sleep(1)
        processes = {"ours": self._server.pid, "bare": self._bare.pid}
        before = {name: _cpu_seconds(pid) for name, pid in processes.items()}
        await asyncio.sleep(self._idle_seconds)
        for name, pid in processes.items():
            self._idle[name] = (_cpu_seconds(pid) - before[name]) / self._idle_seconds * 100
        return self._idle["ours"]

    async def _bare_idle_share(self) -> float:
        return self._idle["bare"]


def _run(client: Client) -> str:
    execution_id: str = client.post("/executions", STARTED)["execution_id"]
    answer = client.get(f"/executions/{execution_id}?wait=30")
    assert b'"status":"completed"' in answer, answer
    return execution_id


def _ask_twice(client: Client, path: str) -> None:
    client.post(path, STARTED)
    client.get(path)


Command = Callable[[int], list[str]]
"""For a port."""


def server(database: Path | str, *more: str) -> Command:
    beside = Path(sys.executable).parent / "jamjet-server"
    script = str(beside) if beside.exists() else shutil.which("jamjet-server")
    assert script, "jamjet-server is not installed here"
    return lambda port: [script, "--port", str(port), "--database-url", str(database), *more]


def _bare(content: Path) -> Command:
    return lambda port: [sys.executable, "-m", "benchmarks.bare_falcon", str(port), str(content)]


@contextmanager
def started(command: Command, **environment: str) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    port = _free_port()
    # From the project's folder, where the workflows' functions are.
    process = subprocess.Popen(
        command(port),
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        env={**os.environ, "RUST_LOG": "warning", "JAMJET_BOOTSTRAP_TOKEN": TOKEN, **environment},
    )
    try:
        _wait_until_ready(process, port)
        yield port, process
    finally:
        process.terminate()
        process.wait(timeout=30)


def _ready_within(command: Command) -> float:
    began = time.perf_counter()
    with started(command):
        return time.perf_counter() - began


def _wait_until_ready(process: subprocess.Popen[bytes], port: int) -> None:
    give_up = time.monotonic() + 30
    while time.monotonic() < give_up and process.poll() is None:
        with suppress(OSError, ValueError), Client(port) as client:
            client.get("/health")
            return
        time.sleep(0.002)
    raise RuntimeError(f"{process.args!r} does not answer")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _cpu_seconds(pid: int) -> float:
    """Of all its threads, to the nanosecond; /proc/PID/stat counts hundredths of a second."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9
