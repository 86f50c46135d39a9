"""One look for all who ask at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Gathering(Generic[K, V]):
    """While one look is under way, the next one gathers: whoever asks gets what was stored when it asked or later.

    `look` answers what it finds of the keys, in one go.
    """

    def __init__(self, look: Callable[[Sequence[K]], Awaitable[Mapping[K, V]]]) -> None:
        self._look = look
        self._asked: dict[K, asyncio.Future[V | None]] = {}
        self._looking: asyncio.Task[None] | None = None

    async def get(self, key: K) -> V | None:
        """None: there is nothing of that key. Raises what `look` does."""
        if key not in self._asked:
            self._asked[key] = asyncio.get_running_loop().create_future()
        answer = self._asked[key]
        if self._looking is None:
            self._looking = asyncio.create_task(self._answer())
        return await asyncio.shield(answer)

    async def _answer(self) -> None:
        while self._asked:
            asked, self._asked = self._asked, {}
            try:
                found = await self._look(list(asked))
            except Exception as error:  # whatever it is, nobody may wait for ever
                for answer in asked.values():
                    answer.set_exception(error)
                    answer.exception()  # it is not unheard where nobody waits any more
            else:
                for key, answer in asked.items():
                    answer.set_result(found.get(key))
        self._looking = None


def each(look: Callable[[K], Awaitable[V | None]]) -> Callable[[Sequence[K]], Awaitable[Mapping[K, V]]]:
    """Looks for several at a time what can be looked for one by one only."""

    async def look_for(keys: Sequence[K]) -> Mapping[K, V]:
        found = await asyncio.gather(*map(look, keys))
        return {key: value for key, value in zip(keys, found, strict=True) if value is not None}

    return look_for
