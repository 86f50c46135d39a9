"""This process among those that share the storage: its lease, and what becomes of its work when it loses it."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import socket
from collections.abc import Callable, Mapping
from typing import Any

from ..errors import StorageError
from ..ports import Storage, Worker
from .world import World

log = logging.getLogger("jamjet.membership")

FOR_EVER = 100 * 366 * 86_400_000
"""Of a process that owns the storage alone, nobody looks whether it lives."""

_MISSED = 1.5
"""Times as long as between two looks, and one was missed."""


class Membership:
    """`about` tells what the process is doing now; `evicted` is called when all that it held is others' by now, `met`
    with each process that is seen for the first time."""

    def __init__(
        self,
        storage: Storage,
        world: World,
        *,
        version: str,
        lease_seconds: float,
        about: Callable[[], Mapping[str, Any]],
        evicted: Callable[[], None],
        met: Callable[[Worker], None],
    ) -> None:
        self._storage = storage
        self._world = world
        self._version = version
        self._about = about
        self._evicted = evicted
        self._greet = met
        self._started_at = world.now()
        self._lease_ms = FOR_EVER if storage.exclusive else round(lease_seconds * 1000)
        self._joining: asyncio.Task[None] | None = None
        self._lease = lease_seconds * 1000
        self._looked_at = self._spare_until = world.stopwatch()
        self.pause = lease_seconds / 3
        self.next_end = math.inf
        self.worker_id = world.new_id("worker")
        self.others = 0
        self._met: set[str] = set()

    @property
    def worker(self) -> Worker:
        return Worker(
            worker_id=self.worker_id,
            kind="runtime",
            host=socket.gethostname(),
            pid=os.getpid(),
            version=self._version,
            started_at=self._started_at,
            details=self._about(),
        )

    async def join(self) -> None:
        await self._storage.workers.join(self.worker, self._lease_ms)
        if self._storage.exclusive:
            await self._storage.workers.bury(all_but=self.worker_id)
        else:
            await self._count_others()

    async def look(self) -> bool:
        """Prolongs the lease, and buries those that are dead. Whether somebody has gone, and left what he held.

        From then on, `next_end` is how many seconds the first of all leases has left."""
        one_left = False
        if not self._storage.exclusive:
            if not await self._storage.workers.heartbeat(self.worker, self._lease_ms):
                await self.rejoin(self.worker_id)
            one_left = await self._count_others()
        dead = [] if self._was_away() else await self._storage.workers.bury()
        for worker_id in dead:
            log.warning("the process %s is dead; what it was doing is taken over", worker_id)
        next_end = await self._storage.workers.next_end()
        self.next_end = math.inf if next_end is None else next_end / 1000
        return one_left or bool(dead)

    def _was_away(self) -> bool:
        """Until just now, and missed a look. So may have the others, where the storage was away: all get as long to
        come back, but no longer than a lease."""
        now = self._world.stopwatch()
        away = now - self._looked_at
        if away > _MISSED * self.pause * 1000:
            self._spare_until = max(self._spare_until, now + min(away, self._lease))
        self._looked_at = now
        return now < self._spare_until

    async def prove(self) -> None:
        """That the storage takes something down. Raises `StorageError`."""
        await self._storage.workers.heartbeat(self.worker, self._lease_ms)

    async def rejoin(self, lost: str) -> None:
        """Under a new name: as `lost`, it was taken for dead."""
        if self._joining is None or self._joining.done():
            # By itself: who asks for it may be among those that are told to stop.
            self._joining = asyncio.create_task(self._rejoin(lost))
        await asyncio.shield(self._joining)

    async def _rejoin(self, lost: str) -> None:
        if self.worker_id == lost:
            log.warning("this process, %s, was taken for dead: it begins anew, others go on with its work", lost)
            self._evicted()
            self.worker_id = self._world.new_id("worker")
            await self.join()

    async def leave(self) -> None:
        """What is not done is free: others take it at once, or the next start does."""
        try:
            await self._storage.workers.leave(self.worker)
        except StorageError as error:
            log.warning("could not say goodbye, so others take over only when the lease has ended: %s", error)

    async def page(self, tenant_id: str) -> list[Worker]:
        """All that live; of this process, what it does at this moment."""
        found = await self._storage.workers.page(tenant_id)
        return [self._now(worker) if worker.worker_id == self.worker_id else worker for worker in found]

    def _now(self, worker: Worker) -> Worker:
        seen = self._world.now() if self._storage.exclusive else worker.last_seen
        return Worker(
            worker_id=worker.worker_id,
            kind=worker.kind,
            host=worker.host,
            pid=worker.pid,
            version=worker.version,
            started_at=worker.started_at,
            details=self._about(),
            last_seen=seen,
            expires_at=worker.expires_at,
        )

    async def _count_others(self) -> bool:
        """Whether one is not there any more."""
        # Only processes stand under the default tenant's eyes and every other's; a tenant's own workers are no matter.
        found = await self._storage.workers.page("")
        others = {worker.worker_id: worker for worker in found if worker.worker_id != self.worker_id}
        before, self._met = self._met, set(others)
        self.others = len(others)
        for worker_id in sorted(self._met - before):
            self._greet(others[worker_id])
        return not before <= self._met
