"""Calls of functions, as a worker would make them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jamjet_kernel import Compute, NodeCall, NodeFailed

PATIENCE = 60.0


class Caller:
    def __init__(self, compute: Compute) -> None:
        self.compute = compute

    async def __call__(self, function: str, input: Any = None, *, isolation: str = "thread", **fields: Any) -> Any:
        resources = fields.pop("resources", None)
        given: dict[str, Any] = {"config": None, "input": {}, "idempotency_key": "key", **fields}
        node = NodeCall("exec_1", "work", 2, **given)
        async with asyncio.timeout(PATIENCE):
            return await self.compute.call(function, input, isolation=isolation, resources=resources, node=node)

    async def failure(self, function: str, input: Any = None, **fields: Any) -> NodeFailed:
        with pytest.raises(NodeFailed) as raised:
            await self(function, input, **fields)
        return raised.value


class Emitted:
    """Progress, as an execution's log would have it."""

    def __init__(self) -> None:
        self.events: list[Any] = []

    async def __call__(self, data: Any) -> None:
        self.events.append(data)

    def said(self, what: str) -> list[str]:
        return [event[what] for event in self.events if what in event]


async def until(condition: Callable[[], Any]) -> Any:
    async with asyncio.timeout(PATIENCE):
        while not (found := condition()):
            await asyncio.sleep(0.02)
    return found


def begun(folder: Path) -> list[str]:
    """The lines that functions left: their key, and their process."""
    notes = folder / "begun"
    return notes.read_text().splitlines() if notes.exists() else []
