"""How long requests wait for what may come: until their time is over, or until the server stops."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Patience:
    def __init__(self) -> None:
        self._waiting: set[asyncio.Timeout] = set()
        self._is_over = False

    @asynccontextmanager
    async def of(self, seconds: float) -> AsyncIterator[None]:
        """Raises `TimeoutError` when it is over."""
        async with asyncio.timeout(0 if self._is_over else seconds) as limit:
            self._waiting.add(limit)
            try:
                yield
            finally:
                self._waiting.discard(limit)

    def end(self) -> None:
        """Whoever waits is answered as things are; so is who asks from now on."""
        self._is_over = True
        now = asyncio.get_running_loop().time()
        for limit in self._waiting:
            if not limit.expired():
                limit.reschedule(now)
