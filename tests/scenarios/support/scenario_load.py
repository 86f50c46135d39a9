"""Workflows of every shape, what each must come to, and what they need from outside on their way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from scenario_site import workflow

Step = Callable[[str], dict[str, Any]]
"""The node that does `count`, `square` or `third_time_lucky`."""

RETRY = {"max_attempts": 3, "backoff": "fixed", "initial_delay": "200ms", "jitter": True}


def catalogue(step: Step) -> list[dict[str, Any]]:
    """In an order in which they can be registered. Each starts from the input `{"n": 0}`."""
    count = step("count")
    branches = [f"branch{index}" for index in range(4)]
    fork = {"type": "parallel", "branches": branches}
    wait = {"type": "wait", "condition": "timer", "duration": "300ms"}
    paid = {"type": "wait", "condition": "external_event", "correlation_key": "paid"}
    again = {"condition": "state.n < 5", "target": "count"}
    return [
        workflow({"a": count, "b": count, "c": count}, "a > b > c > end", workflow_id="chain"),
        workflow({"lucky": {**step("third_time_lucky"), "retry_policy": RETRY}}, "lucky > end", workflow_id="retried"),
        workflow({"wait": wait, "a": count}, "wait > a > end", workflow_id="timed"),
        workflow({"ask": {"type": "human_approval"}, "a": count}, "ask > a > end", workflow_id="approved"),
        workflow({"a": count, "paid": paid, "b": count}, "a > paid > b > end", workflow_id="paid"),
        workflow(
            {"sub": {"type": "subgraph", "workflow_ref": "chain"}, "a": count}, "sub > a > end", workflow_id="nested"
        ),
        workflow(
            {"count": count, "more": {"type": "condition", "branches": [again, {"target": "end"}]}},
            "count > more",
            workflow_id="looped",
            start_node="count",
        ),
        workflow(
            {
                "fork": fork,
                **{branch: {**count, "output_key": branch} for branch in branches},
                "join": {"type": "join", "wait_for": branches},
            },
            "join > end",
            workflow_id="forked",
        ),
        workflow({"fan": _fan(step, 12, 3)}, "fan > end", workflow_id="fanned"),
        workflow({"fan": _fan(step, 150, 50)}, "fan > end", workflow_id="fanned-wide"),
    ]


def _fan(step: Step, items: int, at_once: int) -> dict[str, Any]:
    listed = f"range({items}) | list"
    return {"type": "map", "items": listed, "body": step("square"), "max_concurrency": at_once, "output_key": "all"}


EXPECTED: dict[str, dict[str, Any]] = {
    "chain": {"n": 3},
    "retried": {"n": 0, "attempt": 3},
    "timed": {"n": 1},
    "approved": {"n": 1},
    "paid": {"n": 2, "amount": 500},
    "nested": {"n": 4},
    "looped": {"n": 5},
    "forked": {"n": 0} | {f"branch{index}": {"n": 1} for index in range(4)} | {"join": [{"n": 1}] * 4},
    "fanned": {"n": 0, "all": [value**2 for value in range(12)]},
    "fanned-wide": {"n": 0, "all": [value**2 for value in range(150)]},
}
"""The state that each ends with."""
