"""What this process holds: by the storage, and by what it knows of.

The two differ where an answer was lost on its way: a claim, or a commit, may be true all the same. Then the storage has
leased to this process what it does not know of, and nobody else takes that while the process lives. So after a failure
the two are compared.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, TypeAlias

from ..errors import StorageError
from ..ports import Delivery, Timer, WorkItem

if TYPE_CHECKING:
    from .runtime import Runtime

log = logging.getLogger("jamjet.inventory")

PAUSE = 1.0
"""Seconds between two looks: what was on its way at the first one is known at the second."""

Held: TypeAlias = WorkItem | Delivery | Timer


class Inventory:
    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._is_in_doubt = asyncio.Event()

    def doubt(self) -> None:
        """An answer was lost."""
        self._is_in_doubt.set()

    async def run(self) -> None:
        while not self._runtime.storage.exclusive:  # an own file does not answer into the void
            await self._is_in_doubt.wait()
            self._is_in_doubt.clear()
            await asyncio.sleep(PAUSE)
            try:
                await self._compare()
            except StorageError as error:
                log.debug("cannot look what this process holds: %s", error)
                self.doubt()

    async def _compare(self) -> None:
        first = await self._unknown()
        if not first:
            return
        await asyncio.sleep(PAUSE)
        found = [held for held in await self._unknown() if held in first]
        if found and not self._runtime.is_draining:
            log.info("%d pieces of work are taken up, of which this process did not know that it has them", len(found))
            for held in found:
                self._take_up(held)

    async def _unknown(self) -> list[Held]:
        runtime, worker_id = self._runtime, self._runtime.worker_id
        held: list[Held] = [
            *await runtime.storage.work.leased_to(worker_id),
            *await runtime.storage.work.deliveries_leased_to(worker_id),
            *await runtime.storage.timers.leased_to(worker_id),
        ]
        return [each for each in held if not self._knows(each)]

    def _knows(self, held: Held) -> bool:
        match held:
            case WorkItem():
                return self._runtime.has_begun(held)
            case Delivery():
                return self._runtime.deliveries.has(held)
            case Timer():
                return self._runtime.has_set(held)

    def _take_up(self, held: Held) -> None:
        match held:
            case WorkItem():
                self._runtime.start_work(held)
            case Delivery():
                self._runtime.deliveries.send(held)
            case Timer():
                self._runtime.set_timer(held)
