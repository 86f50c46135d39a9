"""A compute that answers with what it was asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jamjet_kernel import Compute, NodeCall, hookimpl


class Elsewhere:
    places = True

    def __init__(self, url: str) -> None:
        self.url = url
        self.closed = False

    async def call(
        self, function: str, input: Any, *, isolation: str, resources: Mapping[str, float] | None = None, node: NodeCall
    ) -> Any:
        return {"ran": f"{function} at {self.url}", "with": dict(resources or {})}

    async def close(self) -> None:
        self.closed = True


@hookimpl
def open_compute(url: str) -> Compute | None:
    return Elsewhere(url) if url.startswith("elsewhere://") else None
