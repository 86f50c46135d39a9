"""What all of these tests have in common: runtimes under load, something that happens to them, and a verdict."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from chaos_load import PATIENCE, Caller, Load
from chaos_runtimes import RuntimeProcess, Runtimes
from chaos_witness import Figures, rows_of_the_dead, verdict, watch

FAULTS = int(os.environ.get("JAMJET_KILLS", "5"))
"""In each test. `JAMJET_KILLS=100` is the longer run."""

SEED = int(os.environ.get("JAMJET_SEED", "1"))
"""Chooses the moments."""


@dataclass
class Ordeal:
    """`url` is the database's own, past any proxy."""

    url: str
    runtimes: Runtimes
    dice: random.Random
    caller: Caller
    load: Load
    figures: Figures | None = None

    def any(self) -> RuntimeProcess:
        return self.dice.choice(self.runtimes.all)

    def others(self, process: RuntimeProcess) -> list[RuntimeProcess]:
        return [other for other in self.runtimes.all if other is not process]

    async def moment(self, least: float, most: float) -> None:
        await asyncio.sleep(self.dice.uniform(least, most))

    async def all_are_up(self) -> None:
        for process in self.runtimes.all:
            await self.caller.is_up(process)

    async def nothing_is_held_by_the_dead(self) -> None:
        """While others still live: what a process left behind is free once its lease has ended."""
        async with asyncio.timeout(PATIENCE):
            while any(rows_of_the_dead(self.url)):
                await asyncio.sleep(0.1)


@asynccontextmanager
async def under_load(url: str, runtimes: Runtimes) -> AsyncIterator[Ordeal]:
    """What happens in the block happens under load; at its end everything must have come to what it should."""
    dice = random.Random(SEED)
    runtimes.start()
    async with Caller(runtimes.all, dice) as caller:
        ordeal = Ordeal(url, runtimes, dice, caller, Load(caller, dice))
        await ordeal.all_are_up()
        watch(url)
        await ordeal.load.register()
        async with ordeal.load.running():
            yield ordeal
        await ordeal.all_are_up()
        await ordeal.nothing_is_held_by_the_dead()
        await asyncio.to_thread(runtimes.end)
    ordeal.figures = verdict(url, runtimes, ordeal.load)
