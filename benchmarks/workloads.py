"""What is run: workflows of trivial functions, so that what is measured is the runtime."""

from __future__ import annotations

import time
from itertools import pairwise
from typing import Any

HERE = "benchmarks.workloads"
LAST_STEP = 1030

turns: list[float] = []
"""When each step of a loop or chain began."""


async def first(x: int) -> dict[str, int]:
    return {"a": x}


async def second(a: int) -> dict[str, int]:
    return {"b": a + 1}


async def third(b: int) -> dict[str, int]:
    return {"c": b + 1}


async def step(n: int) -> dict[str, int]:
    turns.append(time.perf_counter())
    return {"n": n + 1}


async def twice(item: int) -> int:
    return item * 2


def three_steps() -> dict[str, Any]:
    return _workflow("three-steps", {name: _call(name) for name in ("first", "second", "third")})


def loop() -> dict[str, Any]:
    """One node that runs again and again."""
    again = {"from": "step", "to": "step", "condition": f"state.n < {LAST_STEP}"}
    return {
        **_workflow("loop", {"step": _call("step")}),
        "edges": [again, {"from": "step", "to": "end"}],
        "start_node": "step",
        "max_iterations": LAST_STEP + 1,
    }


def chain() -> dict[str, Any]:
    """As many nodes, one after the other."""
    return _workflow("chain", {f"step_{number}": _call("step") for number in range(LAST_STEP)})


def mapping() -> dict[str, Any]:
    mapped = {"type": "map", "items": "state.numbers", "body": _call("twice"), "output_key": "doubled"}
    return _workflow("mapping", {"each": mapped})


def _workflow(workflow_id: str, nodes: dict[str, Any]) -> dict[str, Any]:
    names = [*nodes, "end"]
    edges = [{"from": source, "to": target} for source, target in pairwise(names)]
    return {"workflow_id": workflow_id, "version": "1.0.0", "nodes": nodes, "edges": edges}


def _call(function: str) -> dict[str, Any]:
    return {"type": "python_fn", "module": HERE, "function": function}
