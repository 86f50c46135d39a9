"""Brings what `greeter` brings: the same node kind."""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import BaseModel

from jamjet_kernel import NodeCall, NodeExecutor, NodeResult, hookimpl


class RivalGreeter:
    kind = "greet"
    config: type[BaseModel] = BaseModel

    async def execute(self, call: NodeCall) -> NodeResult:
        return NodeResult("go away")


@hookimpl
def node_executors() -> Iterable[NodeExecutor]:
    return [RivalGreeter()]
