"""What is audited, put into words."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from ..core import events as ev
from ..core.graph import Graph
from ..ports import AuditRecord, Principal
from .world import World

RUNTIME = "runtime"
"""Who acts where nobody else does: timers, and what follows from an event."""

_encode = msgspec.json.Encoder().encode


def audited(
    world: World,
    principal: Principal,
    event_type: str,
    *,
    resource: str | None = None,
    execution_id: str | None = None,
    **data: Any,
) -> AuditRecord:
    """One change that the principal made. What is None in `data` is left out."""
    return AuditRecord(
        audit_id=world.new_id("audit"),
        event_type=event_type,
        actor_id=principal.id,
        created_at=world.now(),
        execution_id=execution_id,
        resource=resource,
        request_id=principal.request_id,
        address=principal.address,
        data=_encode(_known(data)),
    )


class Auditor:
    """Puts the events of a commit into records: those that somebody may ask about later, not every step on the way."""

    def __init__(self, world: World, worker_id: Callable[[], str]) -> None:
        self._world = world
        self._worker_id = worker_id

    def records(
        self,
        graph: Graph,
        execution_id: str,
        events: Sequence[ev.Event],
        first_sequence: int,
        cause: ev.Event,
        principal: Principal | None,
    ) -> list[AuditRecord]:
        """`cause` came in by the door, brought by the principal; the other events follow from it."""
        records = []
        for sequence, event in enumerate(events, first_sequence):
            tell = TOLD.get(type(event))
            if tell is None or (told := tell(event)) is None:
                continue
            told["sequence"] = sequence
            is_cause = _is_cause(event, cause)
            record = AuditRecord(
                self._world.new_id("audit"),
                EVENT_TYPES[type(event)],
                self._actor(graph, event, principal) if is_cause else RUNTIME,
                event.at,
                execution_id,
                _resource(graph, event),
                principal.request_id if principal else None,
                principal.address if principal and is_cause else None,
                _encode(told),
            )
            records.append(record)
        return records

    def _actor(self, graph: Graph, event: ev.Event, principal: Principal | None) -> str:
        if principal is not None:
            return principal.id
        if isinstance(event, _OF_WORKERS) and event.node_id is not None:
            return _agent(graph, event.node_id) or f"worker:{self._worker_id()}"
        return RUNTIME


def _is_cause(event: ev.Event, cause: ev.Event) -> bool:
    if type(event) is type(cause):
        return cause.node_id is None or cause.node_id == event.node_id
    return isinstance(event, ev.ToolCallCompleted) and cause.node_id == event.node_id


def _agent(graph: Graph, node_id: str) -> str | None:
    """Who did the work, where the node hands it to an agent."""
    agent = graph.worker_node(node_id).agent
    return f"agent:{agent}" if agent else None


def _resource(graph: Graph, event: ev.Event) -> str:
    if event.node_id is not None:
        return f"node/{event.node_id}"
    return f"workflow/{graph.definition.workflow_id}@{graph.definition.version}"


# What is told of each event


def _started(event: ev.WorkflowStarted) -> dict[str, Any]:
    return _known({"parent": event.parent, "forked_from": event.forked_from})


def _failed(event: ev.WorkflowFailed) -> dict[str, Any]:
    return {"error": event.error.message, "error_class": event.error.error_class}


def _node_failed(event: ev.NodeFailed) -> dict[str, Any] | None:
    """None: another attempt follows."""
    if not event.final:
        return None
    return {"attempt": event.attempt, "error": event.error.message, "error_class": event.error.error_class}


def _approval(event: ev.ApprovalReceived) -> dict[str, Any]:
    changed = sorted(event.state_patch) if event.state_patch else None
    told = {"decision": event.decision, "user_id": event.user_id, "comment": event.comment, "changed": changed}
    return _known(told)


def _fields(*names: str) -> Callable[[Any], dict[str, Any]]:
    return lambda event: {name: value for name in names if (value := getattr(event, name)) is not None}


TOLD: Mapping[type, Callable[[Any], dict[str, Any] | None]] = {
    ev.WorkflowStarted: _started,
    ev.WorkflowCompleted: _fields(),
    ev.WorkflowFailed: _failed,
    ev.WorkflowCancelled: _fields("reason"),
    ev.WorkflowPaused: _fields("reason"),
    ev.WorkflowResumed: _fields("reason"),
    ev.WorkflowRetried: _fields("nodes"),
    ev.NodeCompleted: _fields("attempt", "duration_ms"),
    ev.NodeFailed: _node_failed,
    ev.NodeCancelled: _fields("reason"),
    ev.ApprovalRequested: _fields("description", "tool", "expires_at"),
    ev.ApprovalReceived: _approval,
    ev.ExternalEventReceived: _fields("correlation_key"),
    ev.ToolCallCompleted: _fields("tool", "duration_ms"),
    ev.PolicyViolation: _fields("rule", "subject"),
    ev.TokenBudgetExceeded: _fields("budget", "limit", "used"),
    ev.CostBudgetExceeded: _fields("limit_usd", "used_usd"),
}
"""Of which events there is a record, and what it tells beside who, what and when; None: of this one there is none."""

_OF_WORKERS = (ev.NodeCompleted, ev.NodeFailed, ev.ToolCallCompleted)


def _snake_case(name: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name).lstrip("_")


EVENT_TYPES = {kind: _snake_case(kind.__name__) for kind in TOLD}


def _known(data: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in data.items() if value is not None}
