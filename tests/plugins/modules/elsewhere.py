"""A compute that answers with what it was asked for."""

from __future__ import annotations

from typing import Any

from jamjet_kernel import Compute, NodeCall, hookimpl


class Elsewhere:
    def __init__(self, url: str) -> None:
        self.url = url
        self.closed = False

    async def call(self, function: str, input: Any, *, isolation: str, node: NodeCall) -> Any:
        return {"ran": f"{function} at {self.url}"}

    async def close(self) -> None:
        self.closed = True


@hookimpl
def open_compute(url: str) -> Compute | None:
    return Elsewhere(url) if url.startswith("elsewhere://") else None
