"""Workflows in Python: a builder whose steps are the functions they run.

For example:

    wf = Workflow("greeting", version="1.0.0")

    @wf.step(next="store")
    def greet(name: str) -> dict[str, str]:
        return {"text": f"Hello {name}"}

    wf.node("store", type="http", method="POST", url="https://example.com", body="{{ state.text }}")

`wf.to_ir()` is the IR.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar, overload

from ..core.definition import NodeSpec

Function = TypeVar("Function", bound=Callable[..., Any])
Next = str | Sequence[str] | Mapping[str, str | None] | None
"""An id, several ids, or ids with the condition under which each is taken (None: if no other is)."""


class Workflow:
    """`fields` are those of the IR: `description`, `state_schema`, `start_node`, `max_iterations` …"""

    def __init__(self, workflow_id: str, version: str = "0.1.0", **fields: Any) -> None:
        self._header = {"workflow_id": workflow_id, "version": version, **fields}
        self._nodes: dict[str, dict[str, Any]] = {}
        self._edges: list[dict[str, Any]] = []
        #: Where each node was written, for messages.
        self.lines: dict[str, int] = {}

    @overload
    def step(self, function: Function, /) -> Function: ...
    @overload
    def step(self, /, *, id: str | None = None, next: Next = None, **fields: Any) -> Callable[[Function], Function]: ...
    def step(self, function: Any = None, /, *, id: str | None = None, next: Next = None, **fields: Any) -> Any:
        """The decorated function becomes a `python_fn` node of its name. Raises ValueError where a worker could not
        import it: a lambda, or a function inside another."""

        def add(function: Function) -> Function:
            name = function.__qualname__
            if "<" in name:
                raise ValueError(f"{name} cannot be imported by a worker; define it at the top of a module")
            step_id = id or function.__name__
            line = function.__code__.co_firstlineno if hasattr(function, "__code__") else None
            self._add(step_id, line, "python_fn", next, {"module": function.__module__, "function": name, **fields})
            return function

        return add if function is None else add(function)

    def node(self, node_id: str, *, type: str, next: Next = None, **fields: Any) -> Workflow:
        self._add(node_id, _line_of_caller(), type, next, fields)
        return self

    def edge(self, source: str, target: str, *, when: str | None = None) -> Workflow:
        self._edges.append({"from": source, "to": target, **({} if when is None else {"condition": when})})
        return self

    def to_ir(self) -> dict[str, Any]:
        return {**self._header, "nodes": dict(self._nodes), "edges": list(self._edges)}

    def _add(self, node_id: str, line: int | None, type: str, next: Next, fields: Mapping[str, Any]) -> None:
        if node_id in self._nodes:
            raise ValueError(f"there is another node {node_id!r}, on line {self.lines.get(node_id)}")
        common = {name: value for name, value in fields.items() if name in _COMMON}
        kind = {name: value for name, value in fields.items() if name not in _COMMON}
        self._nodes[node_id] = {"kind": {"type": type, **kind}, **common}
        self.lines.update({} if line is None else {node_id: line})
        for target, condition in _targets(next):
            self.edge(node_id, target, when=condition)


_COMMON = frozenset(NodeSpec.model_fields) - {"id", "kind"}


def _targets(next: Next) -> list[tuple[str, str | None]]:
    match next:
        case None:
            return []
        case str():
            return [(next, None)]
        case Mapping():
            return list(next.items())
    return [(target, None) for target in next]


def _line_of_caller() -> int:
    return sys._getframe(2).f_lineno
