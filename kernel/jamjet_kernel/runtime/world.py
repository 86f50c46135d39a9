"""What is undetermined: the clock, ids and chance. Injected, so that a simulation can bring its own."""

from __future__ import annotations

import random
import time
from typing import Protocol

import uuid_utils


class World(Protocol):
    def now(self) -> int:
        """Milliseconds since the epoch, UTC."""
        ...

    def stopwatch(self) -> float:
        """Milliseconds since some moment; never goes back."""
        ...

    def new_id(self, prefix: str) -> str: ...

    def chance(self) -> float:
        """Between 0 and 1."""
        ...


class RealWorld:
    def now(self) -> int:
        return time.time_ns() // 1_000_000

    def stopwatch(self) -> float:
        return time.perf_counter() * 1000

    def new_id(self, prefix: str) -> str:
        return f"{prefix}_{uuid_utils.uuid7().hex}"

    def chance(self) -> float:
        return random.random()
