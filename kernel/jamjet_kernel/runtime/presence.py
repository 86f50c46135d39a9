"""Remote workers that show themselves: by a claim, by a heartbeat."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..errors import Invalid, Problem
from ..ports import Principal, Storage, Worker, WorkItem
from .world import World

KIND = "remote"

_OF_A_PROCESS = re.compile(r"worker_[0-9a-f]{32}")
_REMEMBERED = 10_000


@dataclass(frozen=True, slots=True)
class Claimant:
    """What a remote worker says of itself."""

    worker_id: str
    queues: Sequence[str]
    host: str | None = None
    pid: int | None = None
    version: str | None = None
    concurrency: int | None = None


@dataclass(frozen=True, slots=True)
class _Seen:
    """A worker as it was written down, when that was, and until when it counts as alive."""

    worker: Worker
    at: int
    until: int


class Presence:
    """Writes them down no more often than it takes to keep them alive."""

    def __init__(self, storage: Storage, world: World, lease_ms: int) -> None:
        self._storage = storage
        self._world = world
        self._lease_ms = lease_ms
        self._seen: dict[tuple[str, str], _Seen] = {}

    async def claims(self, principal: Principal, claimant: Claimant, seconds: float) -> None:
        """It asks for work, and will be silent for so long."""
        details: dict[str, Any] = {"queues": list(claimant.queues)}
        if claimant.concurrency is not None:
            details["concurrency"] = claimant.concurrency
        worker = Worker(
            worker_id=claimant.worker_id,
            kind=KIND,
            host=claimant.host or principal.address or "",
            pid=claimant.pid or 0,
            version=claimant.version or "",
            started_at=self._world.now(),
            details=details,
            tenant_id=principal.tenant_id,
        )
        await self._see(worker, round(seconds * 1000))

    async def beats(self, principal: Principal, worker_id: str, seconds: float) -> None:
        """It is at work, and its next heartbeat is due within that time."""
        await self._see(await self._known(principal, worker_id), round(seconds * 1000) - self._lease_ms)

    async def hangs_up(self, principal: Principal, worker_id: str) -> None:
        """It does not wait any more for what it asked for: is it alive?"""
        seen = self._seen.pop((principal.tenant_id, worker_id), None)
        if seen is not None:
            await self._see(seen.worker, 0)

    async def _known(self, principal: Principal, worker_id: str) -> Worker:
        if seen := self._seen.get((principal.tenant_id, worker_id)):
            return seen.worker
        for worker in await self._storage.workers.page(principal.tenant_id):
            if worker.worker_id == worker_id and worker.kind == KIND:
                return worker
        now = self._world.now()
        host = principal.address or ""
        return Worker(worker_id, KIND, host, 0, "", now, {"queues": []}, principal.tenant_id)

    async def _see(self, worker: Worker, silence: int) -> None:
        key = (worker.tenant_id, worker.worker_id)
        now = self._world.now()
        until = now + silence + self._lease_ms
        if (seen := self._seen.get(key)) is not None:
            is_fresh = now - seen.at < self._lease_ms // 3 and until - seen.until < self._lease_ms // 3
            if is_fresh and seen.worker.details == worker.details:
                return
            until = max(until, seen.until)
        self._seen[key] = _Seen(worker, now, until)
        await self._storage.workers.see(worker, until - now)
        if len(self._seen) > _REMEMBERED:
            self._seen = {key: seen for key, seen in self._seen.items() if seen.until > now}

    async def with_work(self, tenant_id: str, workers: Sequence[Worker]) -> list[Worker]:
        """The remote ones with what they are at."""
        if not any(worker.kind == KIND for worker in workers):
            return list(workers)
        held = await self._storage.work.held(tenant_id)
        return [_at_work(worker, held) if worker.kind == KIND else worker for worker in workers]


def check_name(worker_id: str) -> None:
    """Raises `Invalid` where it could be taken for a process of the runtime."""
    if is_of_a_process(worker_id):
        raise Invalid([Problem("worker_id", "is what processes of the runtime are called; choose another name")])


def is_of_a_process(worker_id: str | None) -> bool:
    return worker_id is not None and _OF_A_PROCESS.fullmatch(worker_id) is not None


def _at_work(worker: Worker, held: Sequence[WorkItem]) -> Worker:
    own = [item for item in held if item.lease_owner == worker.worker_id]
    work = [{"execution_id": item.execution_id, "node_id": item.run_id, "attempt": item.attempt} for item in own]
    return replace(worker, details={**worker.details, "running": len(own), "work": work})
