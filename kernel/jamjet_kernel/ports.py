"""What the kernel asks of plugins: protocols, and the values they exchange.

Times are milliseconds since the epoch, UTC. The tenant is the first argument of every storage method.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol, runtime_checkable

from pydantic import BaseModel

from .core.chain import AuditRecord as AuditRecord
from .core.chain import ChainEnd as ChainEnd
from .core.chain import SealedRecord as SealedRecord
from .core.events import Usage
from .core.progress import Status
from .errors import JamJetError

DEFAULT_TENANT = "default"


# Who calls


class Role(StrEnum):
    """What it may do says the table in `access.py`."""

    OPERATOR = "operator"
    DEVELOPER = "developer"
    REVIEWER = "reviewer"
    VIEWER = "viewer"


@dataclass(frozen=True, slots=True)
class Principal:
    """Who calls, as the server knows it, and by which request."""

    id: str = "anonymous"
    tenant_id: str = DEFAULT_TENANT
    role: Role = Role.OPERATOR
    request_id: str | None = None
    address: str | None = None


class Authenticator(Protocol):
    """Proves who calls. `header` answers a header of the request by its name, in any case.

    None: not my kind of credential. Raises `Unauthenticated` for one that is mine, and bad: then nobody else is asked.
    """

    async def authenticate(self, header: Callable[[str], str | None]) -> Principal | None: ...


# What is stored


@dataclass(frozen=True, slots=True)
class Recorded:
    """One event of a log, as stored. `body` is the event's own JSON."""

    sequence: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Head:
    """An execution's row: what lists and compare-and-swap need."""

    execution_id: str
    workflow_id: str
    workflow_version: str
    status: Status
    sequence: int
    created_at: int
    completed_at: int | None = None
    parent_execution_id: str | None = None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A progress as JSON. Loading an execution is its newest snapshot and the events after it."""

    sequence: int
    body: bytes


@dataclass(frozen=True, slots=True)
class WorkItem:
    """A run that waits for a worker. There is one at most per run, identified by (execution_id, run_id).

    `fence` grows whenever it passes from hand to hand, so it tells a late holder from the present one. `losses` counts
    the holders that died with it. Of the items with one `concurrency_key` of a tenant at most `concurrency_limit` are
    leased at a time; where they differ in it, the limit of the one that was enqueued last counts.
    """

    execution_id: str
    run_id: str
    attempt: int
    queue: str
    available_at: int
    tenant_id: str = DEFAULT_TENANT
    priority: int = 0
    lease_owner: str | None = None
    fence: int = 0
    losses: int = 0
    concurrency_key: str | None = None
    concurrency_limit: int | None = None


@dataclass(frozen=True, slots=True)
class Lease:
    """What a commit stands on that brings a worker's result."""

    run_id: str
    fence: int


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A run that failed for good, and its execution with it. Identified by (execution_id, run_id)."""

    execution_id: str
    run_id: str
    queue: str
    attempts: int
    error: str
    error_class: str
    failed_at: int
    workflow_id: str


@dataclass(frozen=True, slots=True)
class Timer:
    """At `fire_at` the execution gets a `TimerFired`. Identified by (execution_id, timer_id)."""

    execution_id: str
    timer_id: str
    fire_at: int
    node_id: str | None = None
    tenant_id: str = DEFAULT_TENANT
    lease_owner: str | None = None


@dataclass(frozen=True, slots=True)
class OpenApproval:
    """A decision that a person owes. Identified by (execution_id, node_id)."""

    execution_id: str
    node_id: str
    requested_at: int
    workflow_id: str
    description: str | None = None
    expires_at: int | None = None
    tool: str | None = None


@dataclass(frozen=True, slots=True)
class Delivery:
    """An event on its way from one execution to another; deleted by the commit that takes it in."""

    delivery_id: str
    execution_id: str
    body: bytes
    tenant_id: str = DEFAULT_TENANT
    lease_owner: str | None = None


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a request with an `Idempotency-Key` led to. `fingerprint` is a hash of the request."""

    key: str
    fingerprint: str
    result: str
    created_at: int


@dataclass(frozen=True, slots=True)
class Spent:
    """What a tenant's nodes consumed in a month (`2026-11`, UTC)."""

    month: str
    tokens: int = 0
    cost_usd: float = 0.0


@dataclass(frozen=True, slots=True)
class Commit:
    """One atomic step of one execution: all of it or nothing.

    `expected` is the sequence before it; 0 creates the execution. Raises `SequenceConflict` when the
    stored sequence is another one, `KeyTaken` when the receipt's key is there already, `LimitReached` when the tenant
    would have more than `max_open` executions that have not ended, `LeaseLost` when the work item that `lease` names is
    gone or has another fence. `settle` names runs whose work items end, the leased one among them; `freed` the
    concurrency keys of those that have one; `answered` nodes whose approvals end; `buried` runs that failed for good,
    `raised` those that are run again. Within a commit, deletions come before insertions.
    """

    tenant_id: str
    head: Head
    expected: int
    events: Sequence[Recorded]
    enqueue: Sequence[WorkItem] = ()
    settle: Sequence[str] = ()
    freed: Sequence[str] = ()
    lease: Lease | None = None
    set_timers: Sequence[Timer] = ()
    cancel_timers: Sequence[str] = ()
    ask: Sequence[OpenApproval] = ()
    answered: Sequence[str] = ()
    send: Sequence[Delivery] = ()
    delivered: str | None = None
    snapshot: Snapshot | None = None
    receipt: Receipt | None = None
    audit: Sequence[AuditRecord] = ()
    spent: Spent | None = None
    max_open: int | None = None
    buried: Sequence[DeadLetter] = ()
    raised: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class WorkflowVersion:
    """A registered definition; `ir` is its canonical JSON."""

    workflow_id: str
    version: str
    ir: bytes
    created_at: int


class TenantStatus(StrEnum):
    ACTIVE = "active"
    #: It may look, and change nothing.
    SUSPENDED = "suspended"
    ARCHIVED = "archived"


@dataclass(frozen=True, slots=True)
class Tenant:
    """Whose things they are. `policy` and `limits` are plain JSON objects; absent fields set nothing."""

    tenant_id: str
    name: str
    created_at: int
    status: TenantStatus = TenantStatus.ACTIVE
    policy: Mapping[str, Any] = field(default_factory=dict)
    limits: Mapping[str, Any] = field(default_factory=dict)
    updated_at: int | None = None


@dataclass(frozen=True, slots=True)
class Token:
    """An API token; of its plain text only the SHA-256 is kept."""

    tenant_id: str
    token_id: str
    name: str
    role: Role
    digest: bytes
    created_at: int
    created_by: str
    expires_at: int | None = None
    revoked_at: int | None = None
    last_used_at: int | None = None


class AgentStatus(StrEnum):
    REGISTERED = "registered"
    ACTIVE = "active"
    PAUSED = "paused"
    DEACTIVATED = "deactivated"


@dataclass(frozen=True, slots=True)
class Agent:
    """A registered agent. `card` is its card as it came, in JSON; most other fields are read out of it.

    It is found by its `skills` and `protocols`, and by the `words`, in lower case, that its skills are described with.
    `discovered_from` is where its card was fetched; None: somebody brought it.
    """

    agent_id: str
    uri: str
    name: str
    created_at: int
    card: bytes
    description: str | None = None
    version: str | None = None
    status: AgentStatus = AgentStatus.REGISTERED
    skills: Sequence[str] = ()
    protocols: Sequence[str] = ()
    words: Sequence[str] = ()
    discovered_from: str | None = None
    updated_at: int | None = None
    last_seen_at: int | None = None


@dataclass(frozen=True, slots=True)
class Loaded:
    """What is needed to go on with an execution."""

    head: Head
    snapshot: Snapshot | None
    events: Sequence[Recorded]


class Executions(Protocol):
    async def load(self, tenant_id: str, execution_id: str, until: int | None = None) -> Loaded | None:
        """The head, the newest snapshot and the events after it, in one consistent read.

        With `until`: the newest snapshot at or before that sequence, and the events up to it.
        """
        ...

    async def head(self, tenant_id: str, execution_id: str) -> Head | None: ...

    async def sequences(self, executions: Sequence[tuple[str, str]]) -> dict[tuple[str, str], int]:
        """The stored sequence of each (tenant_id, execution_id) that is there."""
        ...

    async def page(
        self,
        tenant_id: str,
        *,
        status: Status | None = None,
        workflow_id: str | None = None,
        limit: int = 50,
        offset: int = 0,
        before: tuple[int, str] | None = None,
    ) -> list[Head]:
        """Newest first, by (created_at, execution_id) descending; `before` continues after that pair."""
        ...

    async def count_open(self, tenant_id: str) -> int:
        """How many have not ended."""
        ...

    async def events(self, tenant_id: str, execution_id: str, after: int = 0, limit: int = 1000) -> list[Recorded]: ...


class Workflows(Protocol):
    async def add(
        self,
        tenant_id: str,
        version: WorkflowVersion,
        receipt: Receipt | None = None,
        audit: Sequence[AuditRecord] = (),
        max_workflows: int | None = None,
    ) -> bool:
        """True when it is new, False when the same content is there. Other content raises `Conflict`.
        The receipt, and what is audited when it is new, are stored in the same transaction; a taken key
        raises `KeyTaken`, a workflow beyond the first `max_workflows` ids `LimitReached`."""
        ...

    async def get(self, tenant_id: str, workflow_id: str, version: str) -> WorkflowVersion | None: ...

    async def versions(self, tenant_id: str, workflow_id: str) -> list[tuple[str, int]]:
        """Every (version, created_at), in no order."""
        ...

    async def page(self, tenant_id: str, *, limit: int = 50, after: str | None = None) -> list[tuple[str, str, int]]:
        """(workflow_id, version, created_at) of every version of the next `limit` workflows by id."""
        ...


class Work(Protocol):
    """Work items and deliveries. What is leased to a process hangs on that process's own lease (see `Workers`); a
    remote worker holds a lease per item."""

    async def pending(self, after: tuple[str, str, str] | None = None, limit: int = 1000) -> list[WorkItem]:
        """All tenants' work items in the order of (tenant_id, execution_id, run_id)."""
        ...

    async def get(self, tenant_id: str, execution_id: str, run_id: str) -> WorkItem | None: ...

    async def claim(
        self,
        worker_id: str,
        queue: str,
        now: int,
        limit: int,
        *,
        tenant_id: str | None = None,
        lease_ms: int | None = None,
        queue_limit: int | None = None,
    ) -> list[WorkItem]:
        """Leases up to `limit` items that nobody holds and that are due: the highest priority first, then what has been
        due for longest. Of one tenant or of all.

        Without `lease_ms` the lease lasts as long as the process's own. At most `queue_limit` items of the queue are
        leased at a time, in all tenants together.
        """
        ...

    async def leased_to(self, worker_id: str) -> list[WorkItem]:
        """What hangs on the lease of a process."""
        ...

    async def next_due(self, queue: str, now: int) -> int | None:
        """The next time after `now` at which one more item that nobody holds is due."""
        ...

    async def backlog(self, limit: int) -> int:
        """How many items nobody holds, counted no further than `limit`."""
        ...

    async def held(self, tenant_id: str) -> list[WorkItem]:
        """What remote workers of the tenant hold, the first thousand."""
        ...

    async def renew(self, item: WorkItem, lease_ms: int) -> bool:
        """Prolongs a remote worker's lease. False: it is another's by now."""
        ...

    async def give_back(self, items: Sequence[WorkItem]) -> int:
        """Frees those whose fence is still as given, so that others take them at once; answers how many."""
        ...

    async def deliveries(self, after: str | None = None, limit: int = 1000) -> list[Delivery]:
        """All tenants' deliveries by delivery_id."""
        ...

    async def claim_deliveries(self, worker_id: str, limit: int = 1000) -> list[Delivery]:
        """Leases deliveries that nobody holds, the oldest first."""
        ...

    async def deliveries_leased_to(self, worker_id: str) -> list[Delivery]: ...

    async def drop_delivery(self, tenant_id: str, delivery_id: str) -> None:
        """It came too late to matter. Dropping what is not there is fine."""
        ...


class Approvals(Protocol):
    async def page(
        self, tenant_id: str, *, execution_id: str | None = None, limit: int = 50, after: tuple[str, str] | None = None
    ) -> list[OpenApproval]:
        """What waits for a person, by (execution_id, node_id); `after` continues after that pair."""
        ...


class Timers(Protocol):
    async def claim(self, worker_id: str, before: int, limit: int = 1000) -> list[Timer]:
        """Leases timers of all tenants that nobody holds, with `fire_at` <= before, earliest first."""
        ...

    async def leased_to(self, worker_id: str) -> list[Timer]: ...


@dataclass(frozen=True, slots=True)
class Worker:
    """Who does work: a process of the runtime, or a remote worker of a tenant. `details` is a plain JSON object."""

    worker_id: str
    kind: str
    host: str
    pid: int
    version: str
    started_at: int
    details: Mapping[str, Any] = field(default_factory=dict)
    tenant_id: str = DEFAULT_TENANT
    last_seen: int | None = None
    expires_at: int | None = None


class Workers(Protocol):
    """Who is alive, by leases on the database's clock."""

    async def join(self, worker: Worker, lease_ms: int) -> None:
        """A process of the runtime does so before it commits: from then on this storage commits in its name, and what
        it commits once it was buried is refused with `Evicted`. Frees what is leased to processes that are not
        there."""
        ...

    async def see(self, worker: Worker, lease_ms: int) -> None:
        """A sign of life of a remote worker, which is added when it is new."""
        ...

    async def heartbeat(self, worker: Worker, lease_ms: int) -> bool:
        """Prolongs the lease and stores the details. False: it was buried."""
        ...

    async def leave(self, worker: Worker) -> None:
        """Removes it and frees all that it holds."""
        ...

    async def bury(self, *, all_but: str | None = None) -> list[str]:
        """Removes the workers whose lease has ended and frees what they held, and what remote workers did not renew;
        answers the ids of the processes. With `all_but`: every other process, whatever its lease; for who owns the
        storage alone."""
        ...

    async def next_end(self) -> int | None:
        """Milliseconds until `bury` will find a process, or an item that a remote worker did not renew; 0 or less: it
        would now. None: nobody is there."""
        ...

    async def page(self, tenant_id: str) -> list[Worker]:
        """The processes, and the tenant's remote workers, by worker_id; those whose lease has ended are left out."""
        ...


class DeadLetters(Protocol):
    async def page(
        self, tenant_id: str, *, queue: str | None = None, limit: int = 50, after: tuple[str, str] | None = None
    ) -> list[DeadLetter]:
        """By (execution_id, run_id)."""
        ...

    async def get(self, tenant_id: str, execution_id: str, run_id: str) -> DeadLetter | None: ...


class Hints(Protocol):
    """Messages to the other processes. All may be lost: they cost latency, never work."""

    def send(self, message: str) -> None:
        """Returns at once, from the event loop. At most some thousand characters."""
        ...

    async def listen(self, hear: Callable[[str], None]) -> None:
        """Calls `hear` on the event loop for each message of any process, this one too, until the storage closes."""
        ...


class Receipts(Protocol):
    async def get(self, tenant_id: str, key: str) -> Receipt | None: ...

    async def forget(self, before: int) -> int:
        """Deletes the receipts made before that time; answers how many."""
        ...


class Tenants(Protocol):
    """Not of a tenant, but about them; what is audited stands in the chain of the tenant that it is about."""

    async def add(self, tenant: Tenant, receipt: Receipt | None = None, audit: Sequence[AuditRecord] = ()) -> None:
        """Raises `Conflict` when there is one of this id, `KeyTaken` when the receipt's key is there; receipts for
        tenants are kept with the default tenant, which alone makes them."""
        ...

    async def get(self, tenant_id: str) -> Tenant | None: ...

    async def page(self, *, limit: int = 50, after: str | None = None) -> list[Tenant]:
        """By tenant_id; `after` continues after that one."""
        ...

    async def change(self, tenant: Tenant, expected: Tenant, audit: Sequence[AuditRecord] = ()) -> bool:
        """Replaces it; False, and nothing is changed, when it is not as `expected` any more."""
        ...

    async def spent(self, tenant_id: str, month: str) -> Spent: ...


class Tokens(Protocol):
    async def add(
        self, tenant_id: str, token: Token, receipt: Receipt | None = None, audit: Sequence[AuditRecord] = ()
    ) -> None:
        """Raises `Conflict` when there is one of this id or digest, `KeyTaken` for a receipt whose key is there."""
        ...

    async def by_digest(self, digest: bytes) -> Token | None:
        """Of any tenant: this is how a tenant is found."""
        ...

    async def page(self, tenant_id: str, *, limit: int = 50, after: str | None = None) -> list[Token]:
        """By token_id, revoked ones included."""
        ...

    async def revoke(self, tenant_id: str, token_id: str, at: int, audit: Sequence[AuditRecord] = ()) -> Token | None:
        """The token as it was before; None when there is none. Revoking again changes and audits nothing."""
        ...

    async def used(self, uses: Sequence[tuple[str, str, int]]) -> None:
        """(tenant_id, token_id, last_used_at) of many tokens in one transaction; older times change nothing."""
        ...


class Agents(Protocol):
    async def put(
        self,
        tenant_id: str,
        agent: Agent,
        expected: Agent | None,
        receipt: Receipt | None = None,
        audit: Sequence[AuditRecord] = (),
    ) -> bool:
        """Adds it (`expected` None) or replaces it; False, and nothing is changed, when what is there is not as
        expected. `last_seen_at` does not count, and stays as it is. A taken key raises `KeyTaken`."""
        ...

    async def get(self, tenant_id: str, agent_id: str) -> Agent | None: ...

    async def page(
        self,
        tenant_id: str,
        *,
        status: AgentStatus | None = None,
        skill: str | None = None,
        protocol: str | None = None,
        words: Sequence[str] = (),
        limit: int = 50,
        after: str | None = None,
    ) -> list[Agent]:
        """By agent_id; `after` continues after that one. Each of `words` must begin a word of the agent."""
        ...

    async def remove(self, tenant_id: str, agent_id: str, audit: Sequence[AuditRecord] = ()) -> bool: ...

    async def seen(self, tenant_id: str, agent_id: str, at: int) -> bool:
        """A heartbeat. False: there is no such agent."""
        ...


class Audit(Protocol):
    """A chain of records per tenant, append-only."""

    def sign_with(self, sign: Callable[[bytes], bytes]) -> None:
        """Told once, before anything is written."""
        ...

    async def append(self, tenant_id: str, records: Sequence[AuditRecord]) -> None:
        """What was refused is audited too, and then there is no change to go with."""
        ...

    async def page(
        self,
        tenant_id: str,
        *,
        execution_id: str | None = None,
        actor_id: str | None = None,
        event_type: str | None = None,
        since: int | None = None,
        until: int | None = None,
        limit: int = 50,
        offset: int = 0,
        before: int | None = None,
    ) -> tuple[list[SealedRecord], int]:
        """Newest first, and how many there are in all; `before` continues below that sequence."""
        ...

    async def chain(self, tenant_id: str, after: int = 0, limit: int = 1000) -> list[SealedRecord]:
        """Oldest first: what verification and export read."""
        ...

    async def end(self, tenant_id: str) -> ChainEnd | None:
        """None: nothing was ever written."""
        ...

    async def forget(
        self, tenant_id: str, before: int, told: AuditRecord, *, workflow: tuple[str, str] | None = None
    ) -> int:
        """Deletes the records older than that time from the beginning of the chain, up to the first that is not;
        answers how many went. When any did, `told` is appended with what was removed (`Forgotten`) for its data, which
        makes the rest verifiable.

        With a workflow's id and version: empties the records of its executions, some thousands at a time; their places
        in the chain stay, and are left out of `page`.
        """
        ...


class Storage(Protocol):
    """A place where commits last.

    `exclusive`: this process alone writes, so what it remembers is what is stored. `hints`: None where there are no
    others to tell, or no way to.
    """

    exclusive: bool
    executions: Executions
    workflows: Workflows
    work: Work
    approvals: Approvals
    timers: Timers
    receipts: Receipts
    tenants: Tenants
    tokens: Tokens
    agents: Agents
    audit: Audit
    workers: Workers
    dead_letters: DeadLetters
    hints: Hints | None

    async def commit(self, commits: Sequence[Commit]) -> list[JamJetError | None]:
        """Makes them true in one transaction, in order; answers per commit None or why it was refused.

        A refused commit leaves no trace and does not touch its neighbours, save that later commits of
        the same execution are refused too (their `expected` is no longer met). When the call returns,
        what was accepted survives `kill -9` and power loss. Raises `Evicted` when the process was buried.
        """
        ...

    async def close(self) -> None: ...


class Contents(Protocol):
    """All that a database keeps, in one transaction in which nobody else changes it.

    `tables` tells their columns. A row's values are in the order of these: texts, whole numbers, bytes or None.
    """

    tables: Mapping[str, Sequence[str]]

    def rows(self, table: str) -> Iterator[tuple[Any, ...]]:
        """In an order of the database's own, few in memory at a time."""
        ...

    def add(self, table: str, rows: Sequence[tuple[Any, ...]]) -> None: ...


class Database(Protocol):
    """What a storage is kept in, for those who look after it; not for a runtime that runs. Its methods block.

    `latest` is the schema version that this driver makes, `place` what the database is called, without the password:
    the same for each URL of it. All methods raise `PluginError` where the database cannot be used, and `StorageError`
    where it fails; then it is as it was.
    """

    latest: int
    place: str

    def version(self) -> int | None:
        """The schema's; None where there is nothing of ours. Changes nothing, also while runtimes are at work."""
        ...

    def upgrade(self) -> None:
        """To `latest`, made where there is nothing. `PluginError` where it is newer."""
        ...

    def contents(self) -> AbstractContextManager[Contents]:
        """To read. `PluginError` where there is nothing, it must be upgraded first, or somebody is at work on it."""
        ...

    def filling(self) -> AbstractContextManager[Contents]:
        """To add to a database without any rows, upgraded where it must be. All of it is stored when the context ends
        well, else nothing. `PluginError` where there are rows, or somebody is at work on it."""
        ...


# Node executors


@dataclass(frozen=True, slots=True)
class NodeResult:
    """What a node made. Without `state_patch` the default applies: an object output is the patch, anything
    else is stored under the node's output key or id."""

    output: Any = None
    state_patch: dict[str, Any] | None = None
    usage: Usage | None = None


@dataclass(frozen=True)
class NodeCall:
    """One attempt of one node, as its executor sees it.

    `idempotency_key` is the same for all attempts of one run in one iteration: hand it to whatever must not be
    done twice. `deadline` is seconds on the event loop's clock, or None. `input` is a copy and yours.
    """

    execution_id: str
    node_id: str
    attempt: int
    config: Any
    input: Any
    idempotency_key: str
    tenant_id: str = DEFAULT_TENANT
    deadline: float | None = None
    logger: logging.Logger = field(default_factory=lambda: logging.getLogger("jamjet.node"))
    emit: Callable[[Any], Awaitable[None]] | None = None


class Access(StrEnum):
    """What a route does, as roles are granted it."""

    OPEN = "open"
    READ = "read"
    WRITE = "write"
    DECIDE = "decide"
    ADMIN = "admin"


@runtime_checkable
class NodeExecutor(Protocol):
    """Does the work of one kind of node.

    `config` is the pydantic model of what the kind says in a workflow; a `references` attribute on it
    (`{"tool_ref": "tools"}`) names fields that refer to the workflow's named configurations. `execute` is awaited
    on the event loop and must not block it; it answers a `NodeResult`, or raises `NodeFailed` or `RateLimited`. Any
    other exception fails the attempt as `custom`. Where there is a method `warnings(config)`, it is asked at
    registration what a configuration, as written, says and this executor does not do: `field: why`.
    """

    kind: str

    @property
    def config(self) -> type[BaseModel]: ...

    async def execute(self, call: NodeCall) -> NodeResult: ...


@runtime_checkable
class Compute(Protocol):
    """Where Python functions run. `call` must not block the event loop, whatever the function does.

    `function` is `module:qualified.name`; `isolation` is `thread` or `process`. `resources` are what the function
    needs of its machine: `num_cpus`, `num_gpus`, `memory` in bytes, and any other name for what machines are said to
    have. `places`: it chooses the machine by them. Where there is an `async start()`, it is awaited when a runtime
    opens; it does not wait for anything far away.
    """

    @property
    def places(self) -> bool: ...

    async def call(
        self, function: str, input: Any, *, isolation: str, resources: Mapping[str, float] | None = None, node: NodeCall
    ) -> Any: ...

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class AgentCard:
    """What is read out of an agent's card. `texts` describe its skills, for people and for searching."""

    agent_id: str
    uri: str
    name: str
    description: str | None = None
    version: str | None = None
    skills: Sequence[str] = ()
    protocols: Sequence[str] = ()
    texts: Sequence[str] = ()


class AgentProtocol(Protocol):
    """How agents of one protocol are spoken to."""

    name: str

    def read_card(self, card: Mapping[str, Any], url: str) -> AgentCard | None:
        """A card that was found at the URL. None: it is none of this protocol. Raises `Invalid` for a broken one."""
        ...


# HTTP


@dataclass(frozen=True)
class Route:
    """One path of the REST surface, with what the OpenAPI document says of it.

    `resource` is a Falcon resource; `suffix` as in `App.add_route`. `operations` are keyed by the HTTP method.
    """

    path: str
    resource: object
    operations: Mapping[str, Operation]
    suffix: str | None = None


@dataclass(frozen=True)
class Operation:
    """One method of a route, as the OpenAPI document tells it; `access` is what a caller must be allowed."""

    summary: str
    access: Access
    answers: Mapping[int, type[BaseModel] | None] = field(default_factory=dict)
    body: type[BaseModel] | None = None
    query: type[BaseModel] | None = None
    tag: str = "plugins"
    description: str | None = None
