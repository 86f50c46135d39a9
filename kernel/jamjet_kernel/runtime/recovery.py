"""What nobody holds is taken up: work that was freed or never leased, deliveries, timers that are due soon.

Most work never comes by here: it is committed already leased to this process. Polling is the safety net; whoever
knows that there is something to take up says `wake`.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from ..errors import StorageError
from .alarms import HORIZON

if TYPE_CHECKING:
    from .runtime import Runtime

log = logging.getLogger("jamjet.recovery")

AT_ONCE = 50
"""Items of a claim: enough to be quick, and few enough that it takes no longer than a commit, and that other processes
get some of a backlog."""

PORTION = 1000


class Recovery:
    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._storage = runtime.storage
        self._settings = runtime.settings
        self._wake = asyncio.Event()
        self._all = True
        self._work_is_left = False
        self._queues = list(self._settings.queues)

    def wake(self) -> None:
        """There may be work that nobody holds."""
        self._wake.set()

    def wake_for_all(self) -> None:
        """Somebody died: there may be anything that nobody holds."""
        self._all = True
        self._wake.set()

    def room(self) -> None:
        """A piece of work has ended."""
        if self._work_is_left:
            self._wake.set()

    async def run(self) -> None:
        while True:
            await self._wait()
            await self.look()

    async def look(self) -> None:
        if self._runtime.is_draining:
            return
        try:
            if self._all:
                self._all = False
                await self._deliveries()
                await self.timers(self._runtime.world.now() + HORIZON)
            await self._work()
        except StorageError as error:
            self._all = True
            self._runtime.inventory.doubt()
            log.warning("cannot take up what nobody holds: %s", error)
            await asyncio.sleep(1)

    async def _wait(self) -> None:
        try:
            async with asyncio.timeout(None if self._storage.exclusive else self._settings.poll_seconds):
                await self._wake.wait()
        except TimeoutError:
            pass
        self._wake.clear()

    # Kind by kind

    async def _work(self) -> None:
        self._work_is_left = False
        for queue in list(self._queues):
            if await self._claim(queue):
                # It may have left no room for the others, which come first the next time.
                self._queues.remove(queue)
                self._queues.append(queue)

    async def _claim(self, queue: str) -> bool:
        """As much as there is room for; answers whether it got any."""
        runtime, taken = self._runtime, 0
        limit = self._settings.queue_limits.get(queue)
        while not runtime.is_draining and (room := min(runtime.worker.room, AT_ONCE)) > 0:
            now = runtime.world.now()
            items = await self._storage.work.claim(runtime.membership.worker_id, queue, now, room, queue_limit=limit)
            for item in items:
                runtime.start_work(item)
            taken += len(items)
            if len(items) < room:
                await self._wake_when_due(queue, now)
                return taken > 0
        self._work_is_left = True
        return taken > 0

    async def _wake_when_due(self, queue: str, now: int) -> None:
        due = await self._storage.work.next_due(queue, now)
        if due is not None:
            self._runtime.alarms.set(("queue", queue), due, self.wake)

    async def _deliveries(self) -> None:
        worker_id = self._runtime.membership.worker_id
        while found := await self._storage.work.claim_deliveries(worker_id, PORTION):
            for delivery in found:
                self._runtime.deliveries.send(delivery)

    async def timers(self, until: int) -> None:
        worker_id = self._runtime.membership.worker_id
        while not self._runtime.is_draining and (found := await self._storage.timers.claim(worker_id, until, PORTION)):
            for timer in found:
                self._runtime.set_timer(timer)
