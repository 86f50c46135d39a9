"""The vocabulary of the log: facts in the past tense.

An event is written once and never changed, so a field may be added (with a default) but not renamed
or given another type. `at` is milliseconds since the epoch, UTC; the sequence is the log's business
and not a field. What the core decided on the way (which edges were taken, which input a node got)
stands in the event, so replaying a log evaluates no expression and needs no graph.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import msgspec


class Failure(msgspec.Struct, frozen=True, omit_defaults=True):
    """Why something failed. `error_class` is one of `errors.ERROR_CLASSES`."""

    message: str
    error_class: str = "custom"
    node_id: str | None = None
    details: dict[str, Any] = {}


class Usage(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a node consumed, as its executor reports it."""

    input_tokens: int = 0
    output_tokens: int = 0
    cost_usd: float = 0.0
    model: str | None = None
    system: str | None = None
    finish_reason: str | None = None


class Parent(msgspec.Struct, frozen=True):
    """The subgraph node that a child execution answers to. `depth`: how many executions are above the child."""

    execution_id: str
    node_id: str
    depth: int = 1


class Concurrency(msgspec.Struct, frozen=True):
    """Of a tenant's work with this key at most `limit` pieces are done at a time."""

    key: str
    limit: int


class Origin(msgspec.Struct, frozen=True):
    """The execution and sequence that a fork was taken from."""

    execution_id: str
    sequence: int


class Base(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="kind", tag=True):
    """What every event has."""

    at: int
    node_id: str | None = None


class WorkflowStarted(Base, frozen=True, kw_only=True):
    """The first event of every log. A fork carries the `progress` that it goes on from, and `rerun`: what was open."""

    execution_id: str
    workflow_id: str
    workflow_version: str
    input: dict[str, Any] = {}
    parent: Parent | None = None
    forked_from: Origin | None = None
    progress: dict[str, Any] | None = None
    rerun: tuple[str, ...] = ()
    actor: str | None = None
    #: Of its work, and of its children's: the higher is done first.
    priority: int = 0


class WorkflowCompleted(Base, frozen=True, kw_only=True):
    pass


class WorkflowFailed(Base, frozen=True, kw_only=True):
    error: Failure


class WorkflowCancelled(Base, frozen=True, kw_only=True):
    reason: str | None = None
    actor: str | None = None


class WorkflowPaused(Base, frozen=True, kw_only=True):
    """`requested`: somebody asked for it, nothing new starts. `waiting`: only waits and approvals are left."""

    reason: str
    actor: str | None = None


class WorkflowResumed(Base, frozen=True, kw_only=True):
    reason: str
    actor: str | None = None


class WorkflowRetried(Base, frozen=True, kw_only=True):
    """A failed execution goes on; `nodes` are run again."""

    nodes: tuple[str, ...] = ()
    actor: str | None = None


class WorkflowFinalizing(Base, frozen=True, kw_only=True):
    """The main part is over; its finalizers run now. `error` is why it will fail, if it will."""

    error: Failure | None = None


class NodeScheduled(Base, frozen=True, kw_only=True):
    """The node waits for a worker. `input` is absent when the node gets the whole state."""

    attempt: int = 1
    input: Any = msgspec.UNSET
    config: dict[str, Any] | None = None
    concurrency: Concurrency | None = None


class NodeStarted(Base, frozen=True, kw_only=True):
    """A remote worker took the node; a process of the runtime starts at once and says nothing. `worker_id` is what it
    calls itself, `actor` who the server knows it was."""

    attempt: int
    worker_id: str
    actor: str | None = None


class NodeProgressed(Base, frozen=True, kw_only=True):
    """What a running function told by `emit()`."""

    attempt: int
    data: Any


class NodeCompleted(Base, frozen=True, kw_only=True):
    """`taken` and `dead` are the targets of the edges out of the node, `loops` those of the edges back.

    `lease_fence`: of the lease that a remote worker brought the result under.
    """

    output: Any = None
    attempt: int = 1
    iteration: int = 0
    state_patch: dict[str, Any] | None = None
    taken: tuple[str, ...] = ()
    dead: tuple[str, ...] = ()
    loops: tuple[str, ...] = ()
    duration_ms: float | None = None
    usage: Usage | None = None
    lease_fence: int | None = None


class NodeFailed(Base, frozen=True, kw_only=True):
    """An attempt failed. `final`: there will be no other. `handled`: an error route takes it from here."""

    error: Failure
    attempt: int = 1
    iteration: int = 0
    retryable: bool = False
    final: bool = False
    handled: bool = False
    #: Between 0 and 1: where in its jitter the delay of a retry lies.
    jitter: float = 0.0
    state_patch: dict[str, Any] | None = None
    taken: tuple[str, ...] = ()
    dead: tuple[str, ...] = ()
    loops: tuple[str, ...] = ()
    duration_ms: float | None = None
    lease_fence: int | None = None


class NodeSkipped(Base, frozen=True, kw_only=True):
    dead: tuple[str, ...] = ()


class NodeCancelled(Base, frozen=True, kw_only=True):
    reason: str
    dead: tuple[str, ...] = ()


class NodeParked(Base, frozen=True, kw_only=True):
    """The other side asked to wait, or a remote worker gave the node back; the same attempt is made again at
    `until`."""

    attempt: int
    until: int
    reason: str
    iteration: int = 0


class NodeHeld(Base, frozen=True, kw_only=True):
    """A worker came to the node while somebody had paused the execution: it waits for the execution to go on."""

    attempt: int
    iteration: int = 0


class RetryScheduled(Base, frozen=True, kw_only=True):
    """Attempt number `attempt` is made at `until`."""

    attempt: int
    until: int


class MapStarted(Base, frozen=True, kw_only=True):
    """The node fans out; the run of item 3 is the node `<node_id>[3]`."""

    items: list[Any]


class WaitStarted(Base, frozen=True, kw_only=True):
    correlation_key: str | None = None
    until: int | None = None


class ApprovalRequested(Base, frozen=True, kw_only=True):
    """`tool` is set when a policy asks for approval before this tool node may run."""

    description: str | None = None
    expires_at: int | None = None
    tool: str | None = None


class ApprovalReceived(Base, frozen=True, kw_only=True):
    """`user_id` is what the client claims; `actor` is who the server knows it was."""

    decision: str
    user_id: str | None = None
    comment: str | None = None
    state_patch: dict[str, Any] | None = None
    actor: str | None = None


class TimerCreated(Base, frozen=True, kw_only=True):
    timer_id: str
    fire_at: int


class TimerFired(Base, frozen=True, kw_only=True):
    timer_id: str
    fire_at: int


class ExternalEventReceived(Base, frozen=True, kw_only=True):
    correlation_key: str
    payload: Any = None
    actor: str | None = None


class ExternalEventConsumed(Base, frozen=True, kw_only=True):
    """A wait found an event that had come before it."""

    correlation_key: str


class ChildWorkflowStarted(Base, frozen=True, kw_only=True):
    child_execution_id: str
    workflow_id: str
    workflow_version: str | None = None
    input: dict[str, Any] = {}


class ChildWorkflowCompleted(Base, frozen=True, kw_only=True):
    child_execution_id: str
    output: Any = None


class ChildWorkflowFailed(Base, frozen=True, kw_only=True):
    child_execution_id: str
    error: Failure


class ChildWorkflowPaused(Base, frozen=True, kw_only=True):
    """Only waits and approvals are left in the child: the node waits for the same."""

    child_execution_id: str


class ChildWorkflowResumed(Base, frozen=True, kw_only=True):
    """More than waits and approvals is left in the child again."""

    child_execution_id: str


class ToolCallCompleted(Base, frozen=True, kw_only=True):
    tool: str
    output: Any = None
    duration_ms: float | None = None


class PolicyViolation(Base, frozen=True, kw_only=True):
    rule: str
    subject: str


class TokenBudgetExceeded(Base, frozen=True, kw_only=True):
    budget: str
    limit: int
    used: int


class CostBudgetExceeded(Base, frozen=True, kw_only=True):
    limit_usd: float
    used_usd: float


class IterationStarted(Base, frozen=True, kw_only=True):
    """The node and what follows it start over. `reset` maps each to the (settled, live) edges that it keeps."""

    iteration: int
    reset: dict[str, tuple[int, int]]


class SegmentBoundary(Base, frozen=True, kw_only=True):
    """A snapshot stands here; loading needs nothing before it."""


Event: TypeAlias = (
    WorkflowStarted
    | WorkflowCompleted
    | WorkflowFailed
    | WorkflowCancelled
    | WorkflowPaused
    | WorkflowResumed
    | WorkflowRetried
    | WorkflowFinalizing
    | NodeScheduled
    | NodeStarted
    | NodeProgressed
    | NodeCompleted
    | NodeFailed
    | NodeSkipped
    | NodeCancelled
    | NodeParked
    | NodeHeld
    | RetryScheduled
    | MapStarted
    | WaitStarted
    | ApprovalRequested
    | ApprovalReceived
    | TimerCreated
    | TimerFired
    | ExternalEventReceived
    | ExternalEventConsumed
    | ChildWorkflowStarted
    | ChildWorkflowCompleted
    | ChildWorkflowFailed
    | ChildWorkflowPaused
    | ChildWorkflowResumed
    | ToolCallCompleted
    | PolicyViolation
    | TokenBudgetExceeded
    | CostBudgetExceeded
    | IterationStarted
    | SegmentBoundary
)

encode = msgspec.json.Encoder().encode
decode = msgspec.json.Decoder(Event).decode


def kind_of(event: Event) -> str:
    return type(event).__name__
