"""An event loop whose clock stands still while there is something to do, and jumps when there is not."""

from __future__ import annotations

import asyncio
import random
import selectors
from typing import Any

STARTED_AT = 1_700_000_000_000


class VirtualLoop(asyncio.SelectorEventLoop):
    """Hours of waiting take no time, and a run with the same seed is the same run.

    For what runs on the loop alone: it does not wait for threads.
    """

    def __init__(self) -> None:
        self.virtual_time = 0.0
        super().__init__(_Selector(self))

    def time(self) -> float:
        return self.virtual_time


class _Selector(selectors.DefaultSelector):
    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None:
            ready = super().select(5)
            assert ready, "everybody waits, and nothing will ever happen"
            return ready
        ready = super().select(0)
        if not ready and timeout > 0:
            self._loop.virtual_time += timeout
        return ready


class VirtualWorld:
    def __init__(self, loop: VirtualLoop, dice: random.Random) -> None:
        self._loop = loop
        self._dice = dice
        self._ids = 0

    def now(self) -> int:
        return STARTED_AT + round(self._loop.time() * 1000)

    def stopwatch(self) -> float:
        return self._loop.time() * 1000

    def new_id(self, prefix: str) -> str:
        self._ids += 1
        return f"{prefix}_{self._ids:08}"

    def chance(self) -> float:
        return self._dice.random()
