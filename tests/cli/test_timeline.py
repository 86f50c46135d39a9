"""What events add up to for a reader."""

from __future__ import annotations

from typing import Any

import pytest

from jamjet_kernel.cli.timeline import Timeline, described, duration, planned, timeline


def event(kind: str, node_id: str | None = None, *, at: int = 0, sequence: int = 1, **data: Any) -> dict[str, Any]:
    when = f"2026-03-12T10:00:{at:02}.000Z"
    return {"sequence": sequence, "kind": kind, "node_id": node_id, "created_at": when, "data": data}


def told(*events: dict[str, Any]) -> Timeline:
    return timeline(events)


def test_a_node_that_ran_has_its_attempts_and_its_time() -> None:
    row = told(
        event("NodeScheduled", "a", at=1),
        event("NodeFailed", "a", at=2, error={"message": "reset"}, final=False),
        event("RetryScheduled", "a", at=2, attempt=2),
        event("NodeCompleted", "a", at=5, attempt=2, output={}),
    ).rows["a"]

    assert (row.status, row.attempts, row.duration_ms) == ("completed", 2, 4000)


def test_the_items_of_a_map_count_on_its_own_row() -> None:
    rows = told(
        event("MapStarted", "fan", items=[1, 2, 3]),
        event("NodeCompleted", "fan[0]", output=1),
        event("NodeCompleted", "fan[2]", output=3),
    ).rows

    assert list(rows) == ["fan"]
    assert (rows["fan"].done, rows["fan"].total) == (2, 3)


def test_an_open_approval_needs_somebody_once_nothing_else_runs() -> None:
    asked = [event("ApprovalRequested", "review", description="Spend it?")]

    assert not told(*asked).needs_somebody
    assert told(*asked, event("WorkflowPaused", reason="waiting")).needs_somebody
    answered = [*asked, event("WorkflowPaused", reason="waiting"), event("ApprovalReceived", "review")]
    assert told(*answered, event("WorkflowResumed", reason="approval")).waiting == []


def test_a_timer_needs_nobody() -> None:
    waits = told(event("WaitStarted", "nap", until=1), event("WorkflowPaused", reason="waiting"))

    assert waits.status == "paused"
    assert not waits.needs_somebody


def test_what_somebody_paused_needs_somebody() -> None:
    held = told(event("WaitStarted", "nap", until=1), event("WorkflowPaused", reason="requested"))

    assert held.needs_somebody


@pytest.mark.parametrize(
    ("kind", "status"),
    [("WorkflowCompleted", "completed"), ("WorkflowFailed", "failed"), ("WorkflowCancelled", "cancelled")],
)
def test_the_end_of_an_execution_is_its_status(kind: str, status: str) -> None:
    assert told(event("NodeScheduled", "a"), event(kind, error={"message": "no"})).status == status


def test_planned_nodes_keep_their_order() -> None:
    rows = timeline([event("NodeScheduled", "b")], planned(["a", "b"])).rows

    assert [(row.node_id, row.status) for row in rows.values()] == [("a", "pending"), ("b", "running")]


def test_a_kind_that_is_not_known_is_shown_with_its_data() -> None:
    strange = event("CoordinatorScoring", "pick", score=0.5, winner="a")

    assert described(strange) == "score=0.5  winner=a"
    assert told(strange).rows["pick"].status == "pending"


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [
        (None, ""),
        (0.42, "0.4 ms"),
        (12.3, "12 ms"),
        (1500, "1.5 s"),
        (61_000, "1 min 01 s"),
        (7_260_000, "2 h 01 min"),
    ],
)
def test_durations_are_written_for_people(milliseconds: float | None, text: str) -> None:
    assert duration(milliseconds) == text
