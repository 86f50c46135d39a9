"""Executions in memory.

A running execution's progress stays here, so a step costs no read. `progress` is what was decided last, `committed`
what is durable; only the second is shown or acted on. Correctness does not lean on any of it: each commit compares
the stored sequence, and who loses forgets its copy and loads again.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import reduce
from itertools import islice
from typing import TypeAlias

from ..core import events as ev
from ..core import progress as core
from ..core.graph import Graph
from ..core.progress import Progress
from ..errors import NotFound
from ..ports import Head, Loaded, Storage
from .gathering import Gathering
from .workflows import WorkflowCache

Key: TypeAlias = tuple[str, str]
"""(tenant_id, execution_id)"""


@dataclass(slots=True, eq=False)
class Live:
    tenant_id: str
    execution_id: str
    graph: Graph
    progress: Progress
    committed: Progress
    head: Head
    in_flight: int = 0
    #: A commit of this copy was refused: what was decided after it is void, even if a sequence should fit again.
    is_stale: bool = False
    answer: bytes | None = None
    watchers: set[asyncio.Future[None]] = field(default_factory=set)

    def watch(self) -> asyncio.Future[None]:
        """Resolves at the next commit."""
        watcher: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.watchers.add(watcher)
        watcher.add_done_callback(self.watchers.discard)
        return watcher

    def commit(self, progress: Progress, head: Head) -> None:
        self.committed, self.head, self.answer = progress, head, None
        for watcher in tuple(self.watchers):
            if not watcher.done():
                watcher.set_result(None)

    async def becomes_durable(self, progress: Progress) -> bool:
        """Answers once it is known. False: a commit of this copy was refused."""
        while self.committed.sequence < progress.sequence and not self.is_stale:
            await self.watch()
        return not self.is_stale

    @property
    def is_idle(self) -> bool:
        return not self.in_flight and not self.watchers


def replay(loaded: Loaded) -> Progress:
    """What the stored log adds up to."""
    begun = core.decode(loaded.snapshot.body) if loaded.snapshot else Progress()
    return reduce(core.evolve, (ev.decode(recorded.body) for recorded in loaded.events), begun)


class LiveExecutions:
    """At most `limit` of them; those in use stay, whatever the limit."""

    def __init__(self, storage: Storage, workflows: WorkflowCache, limit: int) -> None:
        self._storage = storage
        self._workflows = workflows
        self._limit = limit
        self._lives: OrderedDict[Key, Live] = OrderedDict()
        self._loading: dict[Key, asyncio.Task[Live]] = {}
        self._sequences = Gathering(storage.executions.sequences)

    def __len__(self) -> int:
        return len(self._lives)

    def peek(self, tenant_id: str, execution_id: str) -> Live | None:
        return self._lives.get((tenant_id, execution_id))

    async def get(self, tenant_id: str, execution_id: str) -> Live:
        """Raises `NotFound`."""
        key = (tenant_id, execution_id)
        while (live := self._lives.get(key)) is None:
            # Two loads of one execution would race each other for every commit.
            if (task := self._loading.get(key)) is None:
                task = self._loading[key] = asyncio.create_task(self._load(tenant_id, execution_id))
                task.add_done_callback(lambda _: self._loading.pop(key, None))
            loaded = await asyncio.shield(task)
            if self._is_the_one(loaded):
                return loaded
        self._lives.move_to_end(key)
        return live

    async def current(self, tenant_id: str, execution_id: str) -> Live:
        """As it is stored now, whoever moved it on. Raises `NotFound`."""
        live = await self.get(tenant_id, execution_id)
        if await self.is_current(live) and self._is_the_one(live):
            return live
        self.forget(live)
        return await self.get(tenant_id, execution_id)

    def _is_the_one(self, live: Live) -> bool:
        """There is one copy at a time, which everybody watches. Whoever waited asks again whether it still is that one;
        where it only had to make room, it comes back."""
        return not live.is_stale and self._lives.setdefault(_key(live), live) is live

    async def is_current(self, live: Live) -> bool:
        """False: another process moved it on."""
        return self._storage.exclusive or not _has_moved(live, await self._sequences.get(_key(live)) or 0)

    async def refresh(self, concerns: Callable[[Key], bool] = lambda key: True) -> None:
        """Drops the copies that somebody watches and that are not what is stored, so that who watches looks again."""
        watched = {key: live for key, live in self._lives.items() if live.watchers and concerns(key)}
        keys = list(watched)
        for start in range(0, len(keys), _AT_ONCE):
            chunk = keys[start : start + _AT_ONCE]
            for key, sequence in (await self._storage.executions.sequences(chunk)).items():
                if _has_moved(watched[key], sequence):
                    self.forget(watched[key])

    def clear(self) -> None:
        """This process has nothing of its own any more."""
        for live in list(self._lives.values()):
            self.forget(live)

    def add(self, live: Live) -> None:
        self._lives[_key(live)] = live
        if len(self._lives) > self._limit:
            self._evict()

    def release(self, live: Live) -> None:
        """Nothing is in flight of it just now: it goes where there are too many."""
        if len(self._lives) > self._limit and live.is_idle and self._lives.get(_key(live)) is live:
            del self._lives[_key(live)]

    def forget(self, live: Live) -> None:
        """The copy is not what is stored."""
        live.is_stale = True
        if self._lives.get(_key(live)) is live:
            del self._lives[_key(live)]
        live.commit(live.committed, live.head)

    async def _load(self, tenant_id: str, execution_id: str) -> Live:
        loaded = await self._storage.executions.load(tenant_id, execution_id)
        if loaded is None:
            raise NotFound(f"execution {execution_id}")
        head = loaded.head
        graph = await self._workflows.get(tenant_id, head.workflow_id, head.workflow_version)
        progress = replay(loaded)
        assert progress.sequence == head.sequence, f"the log of {execution_id} ends before its head"
        live = Live(tenant_id, execution_id, graph, progress, progress, head)
        self.add(live)
        return live

    def _evict(self) -> None:
        """Those that were not used for longest, a tenth at a time, but not the newest."""
        excess = len(self._lives) - max(1, self._limit * 9 // 10)
        newest = next(reversed(self._lives))
        idle = (key for key, live in self._lives.items() if live.is_idle and key != newest)
        for key in list(islice(idle, excess)):
            del self._lives[key]


_AT_ONCE = 500


def _key(live: Live) -> Key:
    return (live.tenant_id, live.execution_id)


def _has_moved(live: Live, stored: int) -> bool:
    """What this process has on its way may be there already, and its answer not yet. Nor is a copy old that became
    newer while it was looked."""
    return stored > live.progress.sequence or (stored > live.committed.sequence and not live.in_flight)


def head_of(progress: Progress) -> Head:
    return Head(
        execution_id=progress.execution_id,
        workflow_id=progress.workflow_id,
        workflow_version=progress.workflow_version,
        status=progress.status,
        sequence=progress.sequence,
        created_at=progress.started_at,
        completed_at=progress.ended_at,
        parent_execution_id=progress.parent.execution_id if progress.parent else None,
    )
