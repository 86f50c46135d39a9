"""What the workflows of these tests call."""

from __future__ import annotations

import asyncio
from typing import Any

gates: dict[str, asyncio.Event] = {}


async def search(query: str) -> dict[str, Any]:
    return {"answer": query.upper()}


async def refuse_unless(allowed: bool = False) -> dict[str, Any]:
    if not allowed:
        raise ValueError("not allowed")
    return {"done": True}


async def wait_for_gate(gate: str) -> dict[str, Any]:
    await gates.setdefault(gate, asyncio.Event()).wait()
    return {"passed": gate}


async def fail_with(message: str) -> None:
    raise ValueError(f"no such person: {message}")
