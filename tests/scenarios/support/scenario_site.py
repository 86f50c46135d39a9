"""A database, the runtimes that are opened on it one after the other, and nodes that do what a test says."""

from __future__ import annotations

import asyncio
import itertools
import json
import sqlite3
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager, closing
from pathlib import Path
from typing import Any

from jamjet_kernel import NodeCall, NodeResult, Principal, Settings, hookimpl
from jamjet_kernel.core.definition import Strict
from jamjet_kernel.runtime import Runtime, View, open_runtime
from jamjet_kernel.runtime.world import RealWorld, World

ME = Principal()
HOUR = 3_600_000
PATIENCE = 20.0
"""Seconds after which a test gives up. Nothing waits that long when all is well."""


class ProbeConfig(Strict):
    do: str


class Probe:
    """A plugin whose node kind `probe` does what the test put under its name; else it answers the name."""

    kind = "probe"
    config = ProbeConfig

    def __init__(self) -> None:
        self.does: dict[str, Callable[[NodeCall], Awaitable[Any]]] = {}
        self.calls: list[NodeCall] = []

    @hookimpl
    def node_executors(self) -> Iterable[Probe]:
        return [self]

    async def execute(self, call: NodeCall) -> NodeResult:
        self.calls.append(call)
        do = self.does.get(call.config.do)
        return NodeResult(call.config.do if do is None else await do(call))

    def called(self, name: str) -> int:
        return sum(call.config.do == name for call in self.calls)


class Ahead(RealWorld):
    """The real world, some milliseconds later: what a runtime sees that was down for so long."""

    def __init__(self, milliseconds: int) -> None:
        self._milliseconds = milliseconds

    def now(self) -> int:
        return super().now() + self._milliseconds


class Site:
    def __init__(self, folder: Path) -> None:
        self.probe = Probe()
        self._databases = (folder / f"runtime-{count}.db" for count in itertools.count())
        self.database = next(self._databases)

    def open(
        self, *plugins: object, world: World | None = None, **settings: Any
    ) -> AbstractAsyncContextManager[Runtime]:
        chosen = Settings(database_url=str(self.database), **{"shutdown_grace": 0, "auth": "off", **settings})
        return open_runtime(chosen, world=world, extra_plugins=[self.probe, *plugins])

    def cut_power(self) -> None:
        """The next runtime finds what is on the disk now, whatever this one does from here on."""
        copy = next(self._databases)
        with closing(sqlite3.connect(self.database)) as source, closing(sqlite3.connect(copy)) as target:
            source.backup(target)
        self.database = copy

    def rows(self, table: str) -> list[Any]:
        with closing(sqlite3.connect(self.database)) as database:
            return database.execute(f"SELECT * FROM {table}").fetchall()


def probe(do: str, **more: Any) -> dict[str, Any]:
    return {"type": "probe", "do": do, **more}


def workflow(nodes: dict[str, Any], *edges: str, workflow_id: str = "story", **more: Any) -> dict[str, Any]:
    """Edges are written `a > b > end`."""
    pairs = [pair for path in edges for pair in itertools.pairwise(path.split(" > "))]
    listed = [{"from": source, "to": target} for source, target in pairs]
    return {"workflow_id": workflow_id, "version": "1.0.0", "nodes": nodes, "edges": listed} | more


async def begin(runtime: Runtime, ir: dict[str, Any], **input: Any) -> str:
    await runtime.register(ME, ir)
    return await runtime.start(ME, ir["workflow_id"], None, input)


async def ended(runtime: Runtime, execution_id: str) -> View:
    view = await runtime.wait(ME, execution_id, PATIENCE)
    assert view.progress.is_terminal, (
        f"still {view.head.status} after {PATIENCE} s: {await kinds(runtime, execution_id)}"
    )
    return view


async def log(runtime: Runtime, execution_id: str) -> list[dict[str, Any]]:
    return [json.loads(recorded.body) for recorded in await runtime.events(ME, execution_id)]


async def kinds(runtime: Runtime, execution_id: str) -> list[str]:
    return [event["kind"] for event in await log(runtime, execution_id)]


async def seen(runtime: Runtime, execution_id: str, kind: str, count: int = 1) -> dict[str, Any]:
    """The event, once there have been so many of its kind."""
    async with asyncio.timeout(PATIENCE):
        async for recorded in runtime.follow(ME, execution_id):
            event: dict[str, Any] = json.loads(recorded.body) if recorded else {}
            count -= event.get("kind") == kind
            if count == 0:
                return event
    raise AssertionError(f"{execution_id} ended without that {kind}: {await kinds(runtime, execution_id)}")
