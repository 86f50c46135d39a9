"""Python functions that the workflows of the scenarios name."""

from __future__ import annotations

import asyncio
import os
import random
import threading
import time
from pathlib import Path

from jamjet_kernel import NodeContext, NodeFailed

released = threading.Event()
"""What `block` waits for. A thread cannot be cancelled, so a test sets it in the end."""


def block() -> str:
    released.wait(20)
    return "released"


async def block_once(marker: str) -> str:
    """Waits for ever, in the first process that gets here."""
    if os.path.exists(marker):
        return "gone on"
    with open(marker, "x"):
        pass
    await asyncio.sleep(3600)
    return "never"


def burn(seconds: float) -> dict[str, int]:
    """Keeps a CPU busy and never lets go of the GIL for long."""
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        pass
    return {"pid": os.getpid()}


async def count(n: int = 0) -> dict[str, int]:
    await asyncio.sleep(random.random() / 200)
    return {"n": n + 1}


def count_in_thread(n: int = 0) -> dict[str, int]:
    return {"n": n + 1}


async def square(value: int) -> int:
    await asyncio.sleep(random.random() / 200)
    return value * value


async def third_time_lucky(context: NodeContext) -> dict[str, int]:
    if context.attempt < 3:
        raise NodeFailed(f"attempt {context.attempt} fails", error_class="io_error")
    return {"attempt": context.attempt}


async def nap(seconds: float, marker: str) -> dict[str, int]:
    """Says by the marker that it has begun."""
    with open(marker, "a") as file:
        file.write(f"{os.getpid()}\n")
    await asyncio.sleep(seconds)
    return {"pid": os.getpid()}


def nap_in_thread(seconds: float, marker: str) -> dict[str, int]:
    with open(marker, "a") as file:
        file.write(f"{os.getpid()}\n")
    time.sleep(seconds)
    return {"pid": os.getpid()}


async def nap_until_cancelled(seconds: float, marker: str) -> None:
    try:
        await nap(seconds, marker)
    except asyncio.CancelledError:
        Path(marker).with_suffix(".cancelled").touch()
        raise
