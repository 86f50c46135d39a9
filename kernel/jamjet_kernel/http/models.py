"""What requests and answers look like.

The same models validate requests and describe the surface in the OpenAPI document. They are kept apart from stored
events, and answers are written from plain values: no model stands between a stored state and the wire.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    SkipValidation,
    StringConstraints,
)

from ..core.definition import Definition, Policy
from ..core.progress import RunStatus, Status
from ..ports import AgentStatus
from ..runtime.cards import Card
from ..runtime.limits import Limits
from ..runtime.tenants import TENANT_ID

# Databases store no NUL in a text, and no other control character belongs into a name.
Name = Annotated[str, StringConstraints(min_length=1, max_length=255, pattern=r"^[^\x00-\x1f\x7f]+$")]
Timestamp = Annotated[str, Field(json_schema_extra={"format": "date-time"}, examples=["2026-03-12T10:00:00.000Z"])]
Sequence = Annotated[int, Field(ge=0, le=2**53 - 1)]
"""Larger integers are not exact in every JSON library, and not storable in every database."""

Object = dict[str, Any]


class Body(BaseModel):
    """Of a request. Nothing unknown is accepted, and nothing is converted."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Query(BaseModel):
    """The part of a URL behind the question mark."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Answer(BaseModel):
    model_config = ConfigDict(frozen=True)


class Problem(Answer):
    place: str
    message: str


class ErrorDetails(Answer):
    model_config = ConfigDict(extra="allow")

    problems: list[Problem] = Field([], description="Everything that is wrong with the request, each with its place.")


class Error(Answer):
    error: str = Field(description="What went wrong, for people.", examples=["not found: execution exec_abc123"])
    code: str = Field(description="What went wrong, for programs.", examples=["not_found"])
    details: ErrorDetails


# Lists


class Page(Query):
    limit: int = Field(50, ge=1, le=1000, description="How many at most.")
    cursor: str | None = Field(None, description="The `next_cursor` of the page before.")


class Listing(Answer):
    next_cursor: str | None = Field(description="Where the list goes on; null at its end.")


# Health and workers


class Health(Answer):
    status: Literal["ok"]
    version: str = Field(examples=["0.1.1"])


class Readiness(Answer):
    status: Literal["ready", "not_ready"]
    version: str = Field(examples=["0.1.1"])
    reason: str | None = Field(None, description="Why it is not ready.", examples=["it is about to stop"])


class WorkAtHand(Answer):
    execution_id: str
    node_id: str
    attempt: int


class Worker(Answer):
    """Of a remote worker `host`, `pid` and `version` are what it says."""

    worker_id: str
    kind: Literal["runtime", "remote"] = Field(description="A process of the runtime, or a worker over REST.")
    host: str
    pid: int
    version: str
    queues: list[str]
    running: int = Field(description="Nodes that it runs just now.")
    work: list[WorkAtHand] = Field([], description="What a remote worker runs just now.")
    started_at: Timestamp
    last_seen: Timestamp


class Workers(Answer):
    workers: list[Worker]


# Work items


class WorkClaim(Body):
    worker_id: Name = Field(description="The worker's own name, the same as long as it lives.", examples=["gpu-box-1"])
    queue_types: list[Name] = Field(
        min_length=1,
        max_length=100,
        description="general, model, tool, python_tool, java_tool, retrieval, privileged, and any that nodes ask for.",
        examples=[["python_tool"]],
    )
    wait: float = Field(0, ge=0, le=60, description="Seconds to wait for work where there is none.")
    max: int = Field(1, ge=1, le=100, description="How many items at most.")
    host: Name | None = Field(None, description="Shown by GET /workers, as the next three.")
    pid: Sequence | None = None
    version: Name | None = None
    concurrency: Sequence | None = None


class WorkPayload(Answer):
    kind: str = Field(description="The kind of the node.", examples=["python_fn"])
    config: Object = Field(description="The node's configuration, with its templates rendered.")
    input: JsonValue
    idempotency_key: str = Field(description="The same for all attempts of one run in one iteration.")
    timeout_secs: float | None = Field(description="How long an attempt may take, from the claim on.")
    workflow_id: str
    workflow_version: str


class WorkItem(Answer):
    id: str
    execution_id: str
    node_id: str
    queue_type: str
    payload: WorkPayload
    attempt: int
    lease_fence: int = Field(description="Goes back with all that is said of this item.")
    lease_seconds: float = Field(description="Without a heartbeat the item goes to others after so long.")


class ClaimedWork(Answer):
    claimed: bool
    work_item: WorkItem | None = Field(None, description="The first one; left out when there is none.")
    work_items: list[WorkItem] = Field([], description="All of them, where `max` is more than 1.")


class OfWork(Body):
    """What every message about a claimed item may say. An item that was handed out once needs no fence."""

    lease_fence: Sequence | None = Field(None, description="As the claim was answered.")
    execution_id: Name | None = Field(None, description="Must be the item's.")
    node_id: Name | None = Field(None, description="Must be the item's.")


class WorkHeartbeat(OfWork):
    worker_id: Name


class RenewedWork(Answer):
    renewed: Literal[True]
    work_item_id: str
    lease_seconds: float


class WorkResult(OfWork):
    output: JsonValue = None
    state_patch: Object | None = Field(
        None, description="A merge patch (RFC 7396) on the state; null: an object output is the patch."
    )
    duration_ms: float | None = Field(None, ge=0)
    gen_ai_system: Name | None = None
    gen_ai_model: Name | None = None
    input_tokens: Sequence | None = None
    output_tokens: Sequence | None = None
    cost_usd: float | None = Field(None, ge=0)
    finish_reason: Name | None = None


class CompletedWork(Answer):
    completed: Literal[True]
    work_item_id: str


class WorkError(Body):
    message: str = Field(max_length=100_000)
    error_class: Literal["timeout", "rate_limit", "io_error", "server_error", "connection_reset", "custom"] = Field(
        "custom", description="What `retryable_on` of a retry policy chooses from."
    )
    details: Object = {}


def _error(given: Any) -> Any:
    if not isinstance(given, str | dict):
        raise ValueError("should be a text or an object")
    return {"message": given} if isinstance(given, str) else given


class WorkFailure(OfWork):
    error: Annotated[WorkError, BeforeValidator(_error, json_schema_input_type=str | WorkError)]
    retryable: bool = Field(True, description="Whether another attempt may help; the retry policy has the last word.")
    duration_ms: float | None = Field(None, ge=0)


class FailedWork(Answer):
    failed: Literal[True]
    work_item_id: str
    retryable: bool = Field(description="Another attempt follows.")


class WorkRelease(OfWork):
    retry_after: float = Field(0, ge=0, le=31_536_000, description="Seconds until it may be claimed again.")
    reason: str | None = Field(None, max_length=10_000)


class ReleasedWork(Answer):
    released: Literal[True]
    work_item_id: str


class WorkProgress(OfWork):
    data: JsonValue


class ProgressedWork(Answer):
    recorded: Literal[True]
    work_item_id: str


# Workflows


class WorkflowRegistration(Body):
    ir: Annotated[Definition, SkipValidation] = Field(
        description="The definition. The short forms of the workflow reference are understood as well.",
        examples=[
            {
                "workflow_id": "research-agent",
                "version": "0.1.0",
                "state_schema": {"query": "str"},
                "nodes": {"search": {"type": "http", "url": "https://example.com"}},
                "edges": [{"from": "search", "to": "end"}],
            }
        ],
    )


class RegisteredWorkflow(Answer):
    workflow_id: str = Field(examples=["research-agent"])
    version: str = Field(examples=["0.1.0"])
    warnings: list[str] = Field([], description="What is allowed but looks like a slip. Left out when there is none.")


class Workflow(Answer):
    workflow_id: str
    version: str = Field(description="The latest.")
    created_at: Timestamp


class Workflows(Listing):
    workflows: list[Workflow]


class WorkflowVersion(Answer):
    version: str
    created_at: Timestamp


class WorkflowVersions(Listing):
    workflow_id: str
    versions: list[WorkflowVersion] = Field(description="The latest first.")


class WorkflowIr(Answer):
    """The definition as it was registered."""

    model_config = ConfigDict(extra="allow")

    workflow_id: str
    version: str
    nodes: Object


# Executions


class ExecutionStart(Body):
    workflow_id: Name = Field(examples=["research-agent"])
    workflow_version: Name | None = Field(None, description="Default: the latest.", examples=["0.1.0"])
    input: Object = Field({}, examples=[{"query": "Latest AI agent frameworks?"}])
    priority: Annotated[int, Field(ge=-1000, le=1000)] = Field(
        0, description="Of all that waits to be done, what has the higher one is done first."
    )


class StartedExecution(Answer):
    execution_id: str = Field(examples=["exec_a1b2c3d4"])


class ExecutionsPage(Page):
    status: Status | None = None
    workflow_id: Name | None = None
    offset: Sequence = Field(
        0, description="How many to leave out. A cursor is quicker, and exact while the list grows."
    )


class ExecutionSummary(Answer):
    execution_id: str = Field(examples=["exec_a1b2c3d4"])
    workflow_id: str = Field(examples=["research-agent"])
    workflow_version: str = Field(examples=["0.1.0"])
    status: Status
    created_at: Timestamp
    completed_at: Timestamp | None = Field(description="When it ended, however it did.")


class Executions(Listing):
    executions: list[ExecutionSummary] = Field(description="The newest first.")


class ExecutionQuery(Query):
    wait: float = Field(0, ge=0, le=60, description="Seconds to wait for the execution to end before answering.")


class Failure(Answer):
    message: str
    error_class: str
    node_id: str | None
    details: Object


class NodeRun(Answer):
    """Of the items of a map only their numbers are told; their runs are in the timeline."""

    status: RunStatus
    attempt: int
    iteration: int = 0
    error: Failure | None = None
    available_at: Timestamp | None = Field(None, description="When the next attempt is made.")
    child_execution_id: str | None = None
    items: int | None = None
    items_begun: int | None = None
    items_done: int | None = None


class Parent(Answer):
    execution_id: str
    node_id: str


class Origin(Answer):
    execution_id: str
    sequence: int


class Execution(ExecutionSummary):
    priority: int
    state: Object
    steps_executed: int
    input: Object
    sequence: int = Field(description="Of the last event.")
    error: Failure | None
    nodes: dict[str, NodeRun]
    parent: Parent | None = Field(description="The subgraph node that this execution answers to.")
    forked_from: Origin | None


class Cancellation(Body):
    reason: str | None = Field(None, max_length=10_000)


class Nothing(Body):
    """No fields; the body may be left out."""


class ExecutionStatus(Answer):
    execution_id: str = Field(examples=["exec_a1b2c3d4"])
    status: Status


class Fork(Body):
    """From which event the new execution goes on, and with which state."""

    sequence: Annotated[int, Field(ge=1, le=2**53 - 1)] | None = Field(None, description="Default: the last event.")
    state: Object | None = Field(None, description="The whole state to go on with.")
    state_patch: Object | None = Field(None, description="A merge patch (RFC 7396) on the state.")


class ForkedExecution(Answer):
    execution_id: str
    forked_from: Origin


# Events


class EventsQuery(Query):
    after: Sequence | None = Field(None, description="Only events with a higher sequence.")
    limit: int | None = Field(None, ge=1, le=1000, description="How many at most; 1000 when not said.")
    cursor: str | None = Field(None, description="The `next_cursor` of the page before.")


class Event(Answer):
    sequence: int
    kind: str = Field(examples=["NodeCompleted"])
    node_id: str | None
    created_at: Timestamp
    data: Object = Field(description="What belongs to the kind. Times in it are milliseconds since the epoch.")


class Events(Listing):
    events: list[Event]


class ExternalEvent(Body):
    correlation_key: Annotated[str, StringConstraints(min_length=1, max_length=1024, pattern=r"^[^\x00]+$")] = Field(
        examples=["payment-received"]
    )
    payload: JsonValue = Field(None, examples=[{"amount": 500, "currency": "USD"}])


class Accepted(Answer):
    execution_id: str = Field(examples=["exec_a1b2c3d4"])
    accepted: Literal[True]


# Approvals


class ApprovalDecision(Body):
    decision: Literal["approved", "rejected"]
    node_id: Name | None = Field(
        None, description="Needed where more than one node waits.", examples=["manager-review"]
    )
    user_id: Name | None = Field(None, examples=["user-42"])
    comment: str | None = Field(None, max_length=100_000, examples=["Looks good, proceed."])
    state_patch: Object | None = Field(None, examples=[{"priority": "high"}])


class Approval(Answer):
    execution_id: str
    node_id: str
    workflow_id: str
    description: str | None
    tool: str | None = Field(description="The tool that a policy asks approval for.")
    requested_at: Timestamp
    expires_at: Timestamp | None


class Approvals(Listing):
    approvals: list[Approval]


# Dead letters


class DeadLettersPage(Page):
    queue: Name | None = Field(None, description="Only those of this queue.")


class DeadLetter(Answer):
    id: str
    execution_id: str
    node_id: str
    workflow_id: str
    queue_type: str
    attempts: int = Field(description="0: it never came to one, as where a policy forbids it.")
    error: str
    error_class: str
    failed_at: Timestamp


class DeadLetters(Listing):
    dead_letters: list[DeadLetter]


# Tenants


class TenantCreation(Body):
    id: Annotated[str, StringConstraints(pattern=rf"^{TENANT_ID}$")] = Field(examples=["acme"])
    name: Name = Field(examples=["Acme Corp"])
    policy: Policy | None = Field(None, description="In force around every workflow's own: the strictest wins.")
    limits: Limits | None = None


class TenantChange(Body):
    """What is left out stays as it is."""

    # Not `None`: a field that may be left out and may not be null.
    name: Name = Field(default_factory=str, examples=["Acme Corporation"])
    status: Literal["active", "suspended", "archived"] = Field(
        default_factory=lambda: "active",
        description="`suspended`: it may be looked at, and not changed. `archived`: nothing of it is served.",
    )
    policy: Policy | None = Field(None, description="Replaces the one there is; null takes it away.")
    limits: Limits | None = Field(
        None, description="Put over those there are; null takes one away, and in the place of all of them all."
    )


class CreatedTenant(Answer):
    tenant_id: str = Field(examples=["acme"])


class Tenant(Answer):
    tenant_id: str = Field(examples=["acme"])
    name: str = Field(examples=["Acme Corp"])
    status: Literal["active", "suspended", "archived"]
    policy: Policy
    limits: Limits
    created_at: Timestamp
    updated_at: Timestamp | None


class Tenants(Listing):
    tenants: list[Tenant]


class Usage(Answer):
    """What its nodes consumed in the current calendar month (UTC)."""

    month: str = Field(examples=["2026-11"])
    tokens: int
    cost_usd: float


class TenantWithUsage(Tenant):
    usage: Usage


# Agents


class AgentRegistration(Body, Card):
    """The agent's card. Whatever else it says is kept with it."""

    model_config = ConfigDict(extra="allow")


class RegisteredAgent(Answer):
    agent_id: str = Field(examples=["research-agent"])


class AgentsPage(Page):
    status: AgentStatus | None = None
    skill: Name | None = Field(None, description="A skill's name.", examples=["research"])
    protocol: Name | None = Field(None, description="mcp, a2a, anp or another.", examples=["a2a"])
    q: Name | None = Field(
        None,
        description="Words; each must begin one that the agent's skills are described with.",
        examples=["deep res"],
    )


class AgentSummary(Answer):
    agent_id: str = Field(examples=["research-agent"])
    uri: str = Field(examples=["http://localhost:7701"])
    name: str = Field(examples=["Research Agent"])
    description: str | None
    version: str | None
    status: AgentStatus
    skills: list[str]
    protocols: list[str]
    reachable: bool | None = Field(
        description="By its heartbeats: false when the last one is too long ago, null when there never was one."
    )
    last_seen_at: Timestamp | None
    created_at: Timestamp
    updated_at: Timestamp | None
    discovered_from: str | None = Field(description="Where its card was fetched; null when somebody brought it.")


class Agents(Listing):
    agents: list[AgentSummary]


class Agent(AgentSummary):
    card: Object = Field(description="The whole card as it came.")


class AgentDiscovery(Body):
    url: Annotated[str, StringConstraints(min_length=1, max_length=2000, pattern=r"^[^\x00-\x20\x7f]+$")] = Field(
        description="Of the agent, or of its card.", examples=["https://remote-agent.example.com"]
    )


class AgentMoved(Answer):
    agent_id: str = Field(examples=["research-agent"])
    status: AgentStatus


class AgentSeen(Answer):
    agent_id: str = Field(examples=["research-agent"])
    ok: Literal[True]


class AgentDeleted(Answer):
    agent_id: str = Field(examples=["research-agent"])
    deleted: Literal[True]


# Audit


class AuditQuery(Page):
    """The newest records first."""

    limit: int = Field(50, ge=1, le=200, description="How many at most.")
    execution_id: Name | None = None
    actor_id: Name | None = Field(None, examples=["agent:research-agent"])
    event_type: Name | None = Field(None, examples=["node_completed"])
    since: AwareDatetime | None = Field(None, description="RFC 3339; the moment itself is included.")
    until: AwareDatetime | None = Field(None, description="RFC 3339; the moment itself is left out.")
    offset: Sequence = Field(
        0, description="How many to leave out. A cursor is quicker, and exact while the log grows."
    )


class AuditItem(Answer):
    id: str = Field(examples=["audit_001"])
    sequence: int = Field(description="Its place in the tenant's chain.")
    execution_id: str | None
    event_type: str = Field(examples=["node_completed"])
    actor_id: str = Field(examples=["agent:research-agent"])
    created_at: Timestamp
    resource: str | None = Field(description="What was changed.", examples=["workflow/research-agent@0.1.0"])
    request_id: str | None
    address: str | None = Field(description="Where the request came from.")
    data: Object | None = Field(description="What else there is to tell.")
    digest: str


class AuditItems(Listing):
    items: list[AuditItem]
    total: int = Field(description="Of all that match.")
    limit: int
    offset: int


class AuditAnchor(Query):
    """The head of an earlier answer, kept where nobody who can write the database can write."""

    expected_sequence: int | None = Field(None, ge=1, le=2**53 - 1)
    expected_digest: str | None = Field(None, pattern=r"^[0-9a-f]{64}$")


class AuditProblem(Answer):
    sequence: int
    kind: str = Field(examples=["changed"])
    message: str


class AuditHead(Answer):
    sequence: int
    digest: str | None


class AuditVerification(Answer):
    valid: bool
    records: int = Field(description="How many were read.")
    problems: list[AuditProblem] = Field(description="The first hundred.")
    problem_count: int
    head: AuditHead = Field(description="Keep it elsewhere, and hold a later chain against it.")


class AuditKey(Answer):
    algorithm: str = Field(examples=["Ed25519"])
    public_key: str = Field(description="PEM.")
