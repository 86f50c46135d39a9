"""What is to happen later: timers and work that is not due yet.

The storage holds all of it; in memory are only the next minutes, refilled now and then. Nothing polls faster.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
from collections.abc import Awaitable, Callable, Hashable, Iterable

from .world import World

log = logging.getLogger("jamjet.alarms")

HORIZON = 120_000
"""Milliseconds that are looked ahead; the refill comes twice in that time."""


class Alarms:
    """Calls what was set, once its time has come. `refill` answers what is due before a time."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._heap: list[tuple[int, int, Hashable]] = []
        self._calls: dict[Hashable, tuple[int, Callable[[], None]]] = {}
        self._count = 0
        self._wake = asyncio.Event()

    def set(self, key: Hashable, at: int, call: Callable[[], None]) -> None:
        """Setting a key again replaces what it had."""
        self._calls[key] = (at, call)
        self._count += 1
        heapq.heappush(self._heap, (at, self._count, key))
        if self._heap[0][2] == key:
            self._wake.set()

    def __contains__(self, key: Hashable) -> bool:
        return key in self._calls

    def cancel(self, key: Hashable) -> None:
        self._calls.pop(key, None)

    def clear(self) -> None:
        self._calls.clear()

    async def run(self, refill: Callable[[int], Awaitable[None]]) -> None:
        refilled_at = 0
        while True:
            now = self._world.now()
            if now - refilled_at >= HORIZON // 2:
                refilled_at = now
                await self._refill(refill, now)
            for call in list(self._due(now)):
                call()
            await self._sleep(min(self._next(), refilled_at + HORIZON // 2) - self._world.now())

    async def _refill(self, refill: Callable[[int], Awaitable[None]], now: int) -> None:
        try:
            await refill(now + HORIZON)
        except Exception:  # the next refill is a minute away; nothing is lost until then but time
            log.exception("could not look for timers that are due")

    def _due(self, now: int) -> Iterable[Callable[[], None]]:
        while self._heap and self._heap[0][0] <= now:
            at, _, key = heapq.heappop(self._heap)
            if key in self._calls and self._calls[key][0] == at:
                yield self._calls.pop(key)[1]

    def _next(self) -> int:
        return self._heap[0][0] if self._heap else 2**62

    async def _sleep(self, milliseconds: int) -> None:
        self._wake.clear()
        try:
            async with asyncio.timeout(max(0, milliseconds) / 1000):
                await self._wake.wait()
        except TimeoutError:
            pass
