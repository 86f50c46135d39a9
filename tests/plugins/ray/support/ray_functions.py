"""Functions that the tests run on the cluster. They leave traces in files, which all machines of the tests share."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any

from jamjet_kernel import NodeContext


def where() -> str:
    """The id of the machine of the cluster."""
    import ray

    return str(ray.get_runtime_context().get_node_id())


def resources() -> dict[str, Any]:
    import ray

    return dict(ray.get_runtime_context().get_assigned_resources())


def square(n: int) -> int:
    return n * n


def begins_and_waits(folder: str, ctx: NodeContext) -> list[str]:
    """Notes each time that it begins; goes on when there is a file `go`. Answers under which keys it began."""
    begun = _note(folder, ctx.idempotency_key)
    while not (Path(folder) / "go").exists():
        time.sleep(0.02)
    return begun


async def begins_and_waits_async(folder: str, ctx: NodeContext) -> list[str]:
    begun = _note(folder, ctx.idempotency_key)
    try:
        while not (Path(folder) / "go").exists():
            await asyncio.sleep(0.02)
    except asyncio.CancelledError:
        (Path(folder) / "told to stop").touch()
        raise
    return begun


def begins_and_tidies_up(folder: str, ctx: NodeContext) -> None:
    _note(folder, ctx.idempotency_key)
    try:
        while True:
            time.sleep(0.02)
    except KeyboardInterrupt:
        (Path(folder) / "told to stop").touch()
        raise


def begins_and_does_not_listen(folder: str, ctx: NodeContext) -> None:
    _note(folder, ctx.idempotency_key)
    while True:
        try:
            time.sleep(0.02)
        except KeyboardInterrupt:
            (Path(folder) / "told to stop").touch()


def dies_at_first(folder: str, ctx: NodeContext) -> list[str]:
    begun = _note(folder, ctx.idempotency_key)
    if len(begun) == 1:
        os._exit(1)
    return begun


def dies_each_time(folder: str, ctx: NodeContext) -> None:
    _note(folder, ctx.idempotency_key)
    os._exit(1)


def time_left(ctx: NodeContext) -> float | None:
    return ctx.remaining()


def _note(folder: str, key: str) -> list[str]:
    notes = Path(folder) / "begun"
    with notes.open("a") as file:
        file.write(f"{key} {os.getpid()}\n")
    return [line.split()[0] for line in notes.read_text().splitlines()]
