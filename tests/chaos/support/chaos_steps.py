"""The functions that workflows name here. Each call tells when it begins and ends, in a file of all processes."""

from __future__ import annotations

import asyncio
import os
import random
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from jamjet_kernel import NodeContext, NodeFailed


@contextmanager
def effect(context: NodeContext) -> Iterator[dict[str, Any]]:
    """What happens in the world, whatever becomes of the result. A result carries the call that made it."""
    call = uuid.uuid4().hex
    _tell("begin", call, context)
    yield {"call": call}
    _tell("end", call, context)


def _tell(what: str, call: str, context: NodeContext) -> None:
    line = f"{what} {call} {context.idempotency_key} {context.attempt} {os.getpid()} {time.time():.3f}\n"
    # One write to a file that is open for appending is not torn by another process's.
    descriptor = os.open(os.environ["CHAOS_EFFECTS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)


async def count(context: NodeContext, n: int = 0) -> dict[str, Any]:
    with effect(context) as made:
        await asyncio.sleep(random.random() / 5)
        return {"n": n + 1, **made}


def square(context: NodeContext, value: int) -> dict[str, Any]:
    with effect(context) as made:
        time.sleep(random.random() / 50)
        return {"square": value * value, **made}


async def third_time_lucky(context: NodeContext) -> dict[str, Any]:
    with effect(context) as made:
        if context.attempt < 3:
            raise NodeFailed(f"attempt {context.attempt} fails", error_class="io_error")
        return {"attempt": context.attempt, **made}


async def hold(context: NodeContext, seconds: float) -> dict[str, Any]:
    with effect(context) as made:
        await asyncio.sleep(seconds)
        return {"held": seconds, **made}
