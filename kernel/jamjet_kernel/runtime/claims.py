"""Who waits for work over the wire, and how it comes to them: first come, first served.

All claims of this process go through one task. When there may be work it asks the storage in the name of those who
wait, in the order in which they came, and stops asking for a queue at the first who gets less than it would take: news
of one piece of work costs two statements, however many wait for it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field

from ..errors import JamJetError, StorageError
from ..ports import Storage, WorkItem
from ..settings import Settings
from .alarms import Alarms
from .patience import Patience
from .world import World

log = logging.getLogger("jamjet.claims")


@dataclass(eq=False, slots=True)
class Waiter:
    """A claim that is not answered yet; one that is patient waits until there is something."""

    tenant_id: str
    worker_id: str
    queues: tuple[str, ...]
    most: int
    lease_ms: int
    is_patient: bool
    answer: asyncio.Future[list[WorkItem]]
    found: list[WorkItem] = field(default_factory=list)

    @property
    def room(self) -> int:
        return 0 if self.answer.done() else self.most - len(self.found)


class Claims:
    """`give_back` takes what was leased to somebody who left before they learned of it."""

    def __init__(
        self,
        storage: Storage,
        settings: Settings,
        world: World,
        alarms: Alarms,
        patience: Patience,
        give_back: Callable[[list[WorkItem]], None],
    ) -> None:
        self._storage = storage
        self._settings = settings
        self._world = world
        self._alarms = alarms
        self._patience = patience
        self._give_back = give_back
        self._waiting: dict[Waiter, None] = {}
        self._listening: Counter[str] = Counter()
        self._stirred: set[str] = set()
        self._wake = asyncio.Event()

    def __len__(self) -> int:
        """How many wait."""
        return len(self._waiting)

    async def claim(
        self, tenant_id: str, worker_id: str, queues: Iterable[str], most: int, lease_ms: int, seconds: float
    ) -> list[WorkItem]:
        """At most that many items, leased to the worker; none when there was nothing in that time.

        Raises `StorageError`.
        """
        answer: asyncio.Future[list[WorkItem]] = asyncio.get_running_loop().create_future()
        waiter = Waiter(tenant_id, worker_id, tuple(queues), most, lease_ms, seconds > 0, answer)
        self._waiting[waiter] = None
        self._listening.update(waiter.queues)
        self._stir(waiter.queues)
        try:
            with suppress(TimeoutError):
                async with self._patience.of(seconds):
                    await asyncio.wait([answer])
            waiter.is_patient = False
            self._wake.set()
            return await answer
        except asyncio.CancelledError:
            if answer.done() and not answer.cancelled() and answer.exception() is None:
                self._give_back(answer.result())
            raise
        finally:
            answer.cancel()
            del self._waiting[waiter]
            self._listening.subtract(waiter.queues)

    # News

    def offer(self, item: WorkItem) -> None:
        """It was just committed, and nobody holds it."""
        if self._listening[item.queue] <= 0:
            return
        if item.available_at <= self._world.now():
            self._stir([item.queue])
        else:
            key = ("claims", item.queue, item.available_at)
            self._alarms.set(key, item.available_at, lambda: self._stir([item.queue]))

    def look_again(self) -> None:
        """There may be work in any queue."""
        self._stir([queue for queue, listeners in self._listening.items() if listeners > 0])

    def _stir(self, queues: Iterable[str]) -> None:
        self._stirred.update(queues)
        if self._stirred:
            self._wake.set()

    # The task

    async def run(self) -> None:
        """Looks without any news too, now and then: they may be lost."""
        while True:
            try:
                async with asyncio.timeout(self._settings.poll_seconds if self._waiting else None):
                    await self._wake.wait()
            except TimeoutError:
                self.look_again()
            self._wake.clear()
            if self._waiting:
                await self._serve()

    async def _serve(self) -> None:
        stirred, self._stirred = self._stirred, set()
        waiting = list(self._waiting)
        empty: set[tuple[str, str]] = set()
        try:
            for waiter in waiting:
                await self._ask(waiter, stirred, empty)
        except JamJetError as error:
            self._refuse(waiting, error)
        except Exception as error:  # a storage's bug must not end the task
            log.exception("the storage broke")
            self._refuse(waiting, StorageError(f"the storage broke: {error!r}"))

    async def _ask(self, waiter: Waiter, stirred: set[str], empty: set[tuple[str, str]]) -> None:
        if waiter.answer.done():
            return
        try:
            for queue in waiter.queues:
                place = (waiter.tenant_id, queue)
                if queue in stirred and place not in empty and (room := waiter.room):
                    found = await self._claim(waiter, queue, room)
                    waiter.found += found
                    if len(found) < room:
                        empty.add(place)
        finally:
            if waiter.answer.done():
                self._give_back(waiter.found)
            elif waiter.found:
                waiter.answer.set_result(waiter.found)
        if not waiter.answer.done() and not waiter.is_patient:
            waiter.answer.set_result([])

    async def _claim(self, waiter: Waiter, queue: str, room: int) -> list[WorkItem]:
        return await self._storage.work.claim(
            waiter.worker_id,
            queue,
            self._world.now(),
            room,
            tenant_id=waiter.tenant_id,
            lease_ms=waiter.lease_ms,
            queue_limit=self._settings.queue_limits.get(queue),
        )

    def _refuse(self, waiting: list[Waiter], error: JamJetError) -> None:
        for waiter in waiting:
            if not waiter.answer.done():
                waiter.answer.set_exception(error)
                waiter.answer.exception()  # one who left does not make it an unheard one
