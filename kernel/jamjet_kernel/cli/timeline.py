"""What the events of one execution add up to for a reader: its nodes as rows, each event as a line.

Pure, and read from the published events alone, so it holds for any runtime that keeps the contract.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import reduce
from typing import Any

Event = Mapping[str, Any]

_ITEM = re.compile(r"(.+)\[\d+\]")
_LONGEST_NOTE = 200


@dataclass(frozen=True)
class Row:
    """One node. `total` is set when it fans out over items."""

    node_id: str
    status: str = "pending"
    attempts: int = 0
    rounds: int = 1
    started: datetime | None = None
    duration_ms: float | None = None
    note: str = ""
    done: int = 0
    total: int | None = None
    #: "a person", "an event" or "time".
    waits_for: str = ""
    correlation_key: str = ""


@dataclass(frozen=True)
class Timeline:
    """`held`: somebody asked to pause it."""

    status: str = "running"
    started: datetime | None = None
    ended: datetime | None = None
    sequence: int = 0
    error: str = ""
    held: bool = False
    rows: Mapping[str, Row] = field(default_factory=dict)

    @property
    def waiting(self) -> list[Row]:
        return [row for row in self.rows.values() if row.waits_for]

    @property
    def needs_somebody(self) -> bool:
        """Nothing goes on by itself before a person acts or an event comes."""
        # Between the end of a wait and the event that says the execution goes on, nobody waits.
        waits = {row.waits_for for row in self.waiting}
        return self.status == "paused" and (self.held or (bool(waits) and "time" not in waits))


def planned(nodes: Iterable[str]) -> Timeline:
    """Before the first event, with what is going to run."""
    return Timeline(rows={node_id: Row(node_id) for node_id in nodes})


def timeline(events: Iterable[Event], begin: Timeline | None = None) -> Timeline:
    return reduce(told, events, begin or Timeline())


def told(before: Timeline, event: Event) -> Timeline:
    """The timeline after the event. An unknown kind changes nothing but the sequence."""
    after = replace(before, sequence=event["sequence"])
    node_id = event.get("node_id")
    if node_id is None:
        return _of_workflow(after, event)
    if (item := _ITEM.fullmatch(node_id)) and item[1] in before.rows:
        return _with(after, _of_item(before.rows[item[1]], event))
    return _with(after, _of_node(before.rows.get(node_id, Row(node_id)), event))


def _with(timeline: Timeline, row: Row) -> Timeline:
    return replace(timeline, rows={**timeline.rows, row.node_id: row})


def _of_workflow(timeline: Timeline, event: Event) -> Timeline:
    at, data = _at(event), data_of(event)
    match event["kind"]:
        case "WorkflowStarted":
            return replace(timeline, started=at)
        case "WorkflowPaused":
            return replace(timeline, status="paused", held=timeline.held or data.get("reason") == "requested")
        case "WorkflowResumed":
            return replace(timeline, status="running", held=False)
        case "WorkflowRetried":
            return replace(timeline, status="running", ended=None, error="", held=False)
        case "WorkflowCompleted":
            return replace(timeline, status="completed", ended=at)
        case "WorkflowFailed":
            return replace(timeline, status="failed", ended=at, error=_error(data))
        case "WorkflowCancelled":
            return replace(timeline, status="cancelled", ended=at, rows=_stopped(timeline.rows))
    return timeline


def _stopped(rows: Mapping[str, Row]) -> dict[str, Row]:
    open_ones = ("running", "waiting", "retrying", "parked")
    return {
        node_id: replace(row, status="cancelled", waits_for="") if row.status in open_ones else row
        for node_id, row in rows.items()
    }


def _of_node(row: Row, event: Event) -> Row:
    at, data = _at(event), data_of(event)
    match event["kind"]:
        case "NodeScheduled":
            again = Row(row.node_id, rounds=row.rounds, started=at)
            return replace(again, status="running", attempts=data.get("attempt", 1))
        case "NodeCompleted":
            return _over(row, "completed", event)
        case "NodeFailed" if data.get("final", True):
            return replace(_over(row, "failed", event), note=_error(data))
        case "NodeFailed":
            return replace(row, note=_error(data))
        case "NodeSkipped" | "NodeCancelled" as kind:
            return replace(row, status=kind.removeprefix("Node").lower(), waits_for="", note=data.get("reason", ""))
        case "RetryScheduled":
            return replace(row, status="retrying", attempts=data.get("attempt", row.attempts + 1))
        case "NodeParked":
            return replace(row, status="parked", note=str(data.get("reason", "")))
        case "NodeHeld":
            return replace(row, status="held", note="the execution is paused")
        case "NodeProgressed":
            return replace(row, note=short(data.get("data")))
        case "ApprovalRequested":
            asked = data.get("description") or data.get("tool") or ""
            return _waits(row, at, "a person", f"waits for a person{': ' if asked else ''}{asked}")
        case "ApprovalReceived":
            return replace(row, waits_for="", note=_decision(data))
        case "WaitStarted" if data.get("correlation_key"):
            key = data["correlation_key"]
            return replace(_waits(row, at, "an event", f"waits for the event {key}"), correlation_key=key)
        case "WaitStarted":
            return _waits(row, at, "time", "waits for its time")
        case "MapStarted":
            return replace(row, status="running", started=at, done=0, total=len(data.get("items", ())))
        case "ChildWorkflowStarted":
            return replace(row, status="running", started=at, note=str(data.get("child_execution_id", "")))
        case "ChildWorkflowFailed":
            return replace(row, note=_error(data))
        case "ChildWorkflowPaused":
            return replace(row, status="waiting")
        case "ChildWorkflowResumed":
            return replace(row, status="running")
        case "IterationStarted":
            return replace(row, status="pending", rounds=data.get("iteration", row.rounds) + 1)
    return row


def _of_item(row: Row, event: Event) -> Row:
    data = data_of(event)
    match event["kind"]:
        case "NodeCompleted":
            return replace(row, done=row.done + 1)
        case "NodeFailed":
            return replace(row, note=f"{event['node_id']}: {_error(data)}")
    return row


def _waits(row: Row, at: datetime, what: str, note: str) -> Row:
    return replace(row, status="waiting", started=at, waits_for=what, note=note)


def _over(row: Row, status: str, event: Event) -> Row:
    data = data_of(event)
    attempts = max(row.attempts, data.get("attempt", 1))
    took = data.get("duration_ms")
    if took is None and row.started is not None:
        took = (_at(event) - row.started).total_seconds() * 1000
    note = row.note if row.waits_for == "" and row.note.startswith(("approved", "rejected")) else ""
    return replace(row, status=status, attempts=attempts, duration_ms=took, waits_for="", note=note)


# Lines


def described(event: Event) -> str:
    """What a reader wants to know of an event beside its kind and its node."""
    data = data_of(event)
    return "  ".join(part for part in map(str, _parts(event["kind"], data)) if part)


def _parts(kind: str, data: Mapping[str, Any]) -> Sequence[object]:
    match kind:
        case "WorkflowStarted":
            return data.get("workflow_id", ""), data.get("workflow_version", ""), short(data.get("input"))
        case "NodeScheduled":
            return (_attempt(data),)
        case "NodeStarted":
            return _attempt(data), f"at {data.get('worker_id', '')}"
        case "NodeCompleted":
            return _attempt(data), _took(data), short(data.get("output"))
        case "NodeFailed":
            return _attempt(data), _took(data), _error(data)
        case "NodeProgressed":
            return (short(data.get("data")),)
        case "ApprovalReceived":
            return (_decision(data),)
        case "ExternalEventReceived":
            return data.get("correlation_key", ""), short(data.get("payload"))
        case "MapStarted":
            return (f"{len(data.get('items', ()))} items",)
        case "WorkflowFailed" | "ChildWorkflowFailed":
            return (_error(data),)
    return [f"{name}={_value(name, value)}" for name, value in data.items() if value not in (None, [], {})]


_TIMES = frozenset({"until", "fire_at", "expires_at"})


def _value(name: str, value: Any) -> str:
    if name not in _TIMES:
        return short(value)
    at = datetime.fromtimestamp(value / 1000) if isinstance(value, int | float) else instant(str(value))
    return f"{at:%Y-%m-%d %H:%M:%S}"


def short(value: Any) -> str:
    """A value on one line, cut where it is long."""
    if value is None:
        return ""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST_NOTE else f"{text[: _LONGEST_NOTE - 1]}…"


def duration(milliseconds: float | None) -> str:
    if milliseconds is None:
        return ""
    if milliseconds < 1000:
        return f"{milliseconds:.1f} ms" if milliseconds < 10 else f"{milliseconds:.0f} ms"
    seconds = milliseconds / 1000
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {seconds:02} s"


def instant(text: str) -> datetime:
    """A time of the contract, in the reader's time zone."""
    return datetime.fromisoformat(text).astimezone()


def data_of(event: Event) -> Mapping[str, Any]:
    return event.get("data") or {}


def _at(event: Event) -> datetime:
    return instant(event["created_at"])


def _attempt(data: Mapping[str, Any]) -> str:
    attempt = data.get("attempt", 1)
    return f"attempt {attempt}" if attempt > 1 else ""


def _took(data: Mapping[str, Any]) -> str:
    return duration(data.get("duration_ms"))


def _error(data: Mapping[str, Any]) -> str:
    error = data.get("error")
    return short(error.get("message") if isinstance(error, Mapping) else error)


def _decision(data: Mapping[str, Any]) -> str:
    claimed = f" (for {data['user_id']})" if data.get("user_id") else ""
    by = f" by {data['actor']}{claimed}" if data.get("actor") else claimed
    comment = f": {data['comment']}" if data.get("comment") else ""
    return f"{data.get('decision', 'answered')}{by}{comment}"
