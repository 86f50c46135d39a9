"""The HTTP application: the table of routes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from falcon.asgi import App, Request, Response
from pydantic import BaseModel

from ..errors import PluginError
from ..ports import Access, Operation, Route
from ..runtime import Runtime
from . import errors
from . import models as m
from .access import AccessControl
from .agents import Agents
from .approvals import Approvals
from .audit import Audit
from .dead_letters import DeadLetters
from .docs import Docs
from .events import Events, Streamed
from .executions import Executions, encode_view
from .guard import Guard
from .health import Health
from .openapi import OpenApi
from .tenants import Tenants
from .work_items import WorkItems
from .workers import Workers
from .workflows import Workflows


def create_app(runtime: Runtime) -> App[Request, Response]:
    """Raises `PluginError` for a plugin's route that does not fit."""
    runtime.encode_view = encode_view
    table: list[Route] = []
    table += _routes(runtime, OpenApi(runtime, table))
    table += runtime.routes()
    access = AccessControl(runtime)
    app = App(middleware=[Guard(runtime.settings), access])  # type: ignore[arg-type]  # Falcon's own are untyped
    errors.install(app)
    _add(app, table)
    access.protect(table)
    return app


def _routes(runtime: Runtime, document: OpenApi) -> Iterator[Route]:
    health, workers, docs = Health(runtime), Workers(runtime), Docs()
    workflows, executions = Workflows(runtime), Executions(runtime)
    events, approvals = Events(runtime), Approvals(runtime)
    tenants, agents = Tenants(runtime), Agents(runtime)
    one = "/executions/{execution_id}"

    yield from _tagged(
        "workflows",
        Route(
            "/workflows",
            workflows,
            _get("List the workflows", m.Workflows, m.Page)
            | _post(
                "Register a workflow",
                m.RegisteredWorkflow,
                m.WorkflowRegistration,
                status=201,
                description="A version never changes: the same content again is accepted, other content is a 409.",
            ),
        ),
        Route(
            "/workflows/{workflow_id}",
            workflows,
            _get("List a workflow's versions", m.WorkflowVersions, m.Page),
            "versions",
        ),
        Route(
            "/workflows/{workflow_id}/{version}",
            workflows,
            _get("Get a definition", m.WorkflowIr, description="`latest` is a version too."),
            "ir",
        ),
    )
    yield from _tagged(
        "executions",
        Route(
            "/executions",
            executions,
            _get("List executions", m.Executions, m.ExecutionsPage)
            | _post(
                "Start an execution",
                m.StartedExecution,
                m.ExecutionStart,
                status=201,
                description="Once answered, the execution survives whatever happens to the runtime.",
            ),
        ),
        Route(
            one,
            executions,
            _get(
                "Get an execution",
                m.Execution,
                m.ExecutionQuery,
                description="With `wait`: once it has ended, or as it is after that time.",
            ),
            "one",
        ),
        Route(f"{one}/cancel", executions, _post("Stop for good", m.ExecutionStatus, m.Cancellation), "cancel"),
        Route(f"{one}/pause", executions, _post("Let nothing new start", m.ExecutionStatus, m.Nothing), "pause"),
        Route(f"{one}/resume", executions, _post("Go on after a pause", m.ExecutionStatus, m.Nothing), "resume"),
        Route(f"{one}/retry", executions, _post("Go on from what failed", m.ExecutionStatus, m.Nothing), "retry"),
        Route(
            f"{one}/fork",
            executions,
            _post("Start anew from any event, with an edited state", m.ForkedExecution, m.Fork, status=201),
            "fork",
        ),
    )
    yield from _tagged(
        "events",
        Route(
            f"{one}/events",
            events,
            {
                "GET": Streamed(
                    "Get or follow the timeline",
                    Access.READ,
                    {200: m.Events},
                    query=m.EventsQuery,
                    description=Events.__doc__,
                )
            },
        ),
        Route(
            f"{one}/external-event",
            events,
            _post(
                "Tell what happened outside",
                m.Accepted,
                m.ExternalEvent,
                description="An event that comes before its wait is kept for it.",
            ),
            "external",
        ),
    )
    yield from _tagged(
        "approvals",
        Route("/approvals", approvals, _get("List what waits for a person", m.Approvals, m.Page)),
        Route(
            f"{one}/approvals",
            approvals,
            _get("List what an execution asks a person", m.Approvals, m.Page),
            "of_execution",
        ),
        Route(
            f"{one}/approve",
            approvals,
            _post("Approve or reject", m.Accepted, m.ApprovalDecision, access=Access.DECIDE),
            "decision",
        ),
    )
    yield from _tagged("dead letters", *_dead_letter_routes(DeadLetters(runtime)))
    yield from _tagged(
        "tenants",
        Route(
            "/tenants",
            tenants,
            _get("List the tenants", m.Tenants, m.Page, access=Access.ADMIN)
            | _post("Make a tenant", m.CreatedTenant, m.TenantCreation, status=201, access=Access.ADMIN),
        ),
        Route(
            "/tenants/{tenant_id}",
            tenants,
            _get("Get a tenant", m.TenantWithUsage, access=Access.ADMIN)
            | _put("Change a tenant", m.Tenant, m.TenantChange, access=Access.ADMIN),
            "one",
        ),
    )
    yield from _tagged("work items", *_work_routes(WorkItems(runtime)))
    yield from _tagged("agents", *_agent_routes(agents))
    yield from _tagged("audit", *_audit_routes(Audit(runtime)))
    alive = Operation("Does the process live?", Access.OPEN, {200: m.Health})
    ready = Operation("Does it take requests?", Access.OPEN, {200: m.Readiness, 503: m.Readiness})
    yield from _tagged(
        "runtime",
        Route("/health", health, {"GET": alive}),
        Route("/ready", health, {"GET": ready}, "ready"),
        Route("/workers", workers, _get("List the live workers", m.Workers)),
        Route("/openapi.json", document, _file("Get this document")),
        Route("/docs", docs, _file("Read this document as a page")),
        Route("/docs/{asset}", docs, _file("Get a part of that page"), "asset"),
    )


def _work_routes(items: WorkItems) -> Iterator[Route]:
    one = "/work-items/{item_id}"
    repeated = "A repeated message whose answer was lost is answered as the first; 409 `lease_lost`: it is another's."

    yield Route(
        "/work-items/claim",
        items,
        _post(
            "Take work of some queues",
            m.ClaimedWork,
            m.WorkClaim,
            description="With `wait`: once there is some, or after that time without.",
        ),
        "claim",
    )
    yield Route(f"{one}/heartbeat", items, _post("Keep the lease", m.RenewedWork, m.WorkHeartbeat), "heartbeat")
    yield Route(
        f"{one}/complete",
        items,
        _post("Bring the result", m.CompletedWork, m.WorkResult, description=repeated),
        "complete",
    )
    yield Route(
        f"{one}/fail", items, _post("Say that it failed", m.FailedWork, m.WorkFailure, description=repeated), "fail"
    )
    yield Route(
        f"{one}/release",
        items,
        _post("Give it back, which costs no attempt", m.ReleasedWork, m.WorkRelease),
        "release",
    )
    yield Route(f"{one}/progress", items, _post("Tell how it goes", m.ProgressedWork, m.WorkProgress), "progress")


def _dead_letter_routes(letters: DeadLetters) -> Iterator[Route]:
    one = "/dead-letters/{letter_id}"
    again = "Whatever failed in the same execution runs again too, and its dead letters are gone."

    yield Route("/dead-letters", letters, _get("List what failed for good", m.DeadLetters, m.DeadLettersPage))
    yield Route(one, letters, _get("Get a dead letter", m.DeadLetter), "one")
    yield Route(
        f"{one}/requeue",
        letters,
        _post("Run it again", m.ExecutionStatus, m.Nothing, description=again),
        "requeue",
    )


def _audit_routes(audit: Audit) -> Iterator[Route]:
    export = Operation("Export the chain as lines of JSON that verify offline", Access.READ, {200: None})
    key = Operation("Get the key that signatures verify with", Access.OPEN, {200: m.AuditKey})

    yield Route("/audit", audit, _get("Look through the audit log", m.AuditItems, m.AuditQuery))
    yield Route("/audit/verify", audit, _get("Verify the whole chain", m.AuditVerification, m.AuditAnchor), "verify")
    yield Route("/audit/export", audit, {"GET": export}, "export")
    yield Route("/audit/key", audit, {"GET": key}, "key")


def _agent_routes(agents: Agents) -> Iterator[Route]:
    one = "/agents/{agent_id}"
    discover = Operation(
        "Register or update the agent at a URL",
        Access.WRITE,
        {201: m.Agent, 424: m.Error},
        body=m.AgentDiscovery,
        description="Reads /.well-known/agent.json there, else /.well-known/agent-card.json, else the URL itself.",
    )
    delete = Operation("Forget an agent", Access.WRITE, {200: m.AgentDeleted})

    yield Route(
        "/agents",
        agents,
        _get("List the agents", m.Agents, m.AgentsPage)
        | _post("Register an agent by its card", m.RegisteredAgent, m.AgentRegistration, status=201),
    )
    yield Route("/agents/discover", agents, {"POST": discover}, "discover")
    yield Route(
        one,
        agents,
        _get("Get an agent and its card", m.Agent)
        | _put("Give an agent another card", m.Agent, m.AgentRegistration)
        | {"DELETE": delete},
        "one",
    )
    yield Route(f"{one}/activate", agents, _post("Put to work", m.AgentMoved, m.Nothing), "activate")
    yield Route(f"{one}/pause", agents, _post("Let rest", m.AgentMoved, m.Nothing), "pause")
    yield Route(f"{one}/deactivate", agents, _post("Take out of use", m.AgentMoved, m.Nothing), "deactivate")
    yield Route(f"{one}/heartbeat", agents, _post("Give a sign of life", m.AgentSeen, m.Nothing), "heartbeat")


def _get(
    summary: str,
    answer: type[BaseModel],
    query: type[m.Query] | None = None,
    *,
    access: Access = Access.READ,
    description: str | None = None,
) -> dict[str, Operation]:
    return {"GET": Operation(summary, access, {200: answer}, query=query, description=description)}


def _file(summary: str) -> dict[str, Operation]:
    return {"GET": Operation(summary, Access.OPEN, {200: None, 304: None})}


def _post(
    summary: str,
    answer: type[BaseModel],
    body: type[m.Body],
    *,
    status: int = 200,
    access: Access = Access.WRITE,
    description: str | None = None,
) -> dict[str, Operation]:
    return {"POST": Operation(summary, access, {status: answer}, body=body, description=description)}


def _put(
    summary: str, answer: type[BaseModel], body: type[m.Body], *, access: Access = Access.WRITE
) -> dict[str, Operation]:
    return {"PUT": Operation(summary, access, {200: answer}, body=body)}


def _tagged(tag: str, *routes: Route) -> Iterator[Route]:
    for route in routes:
        operations = {method: replace(operation, tag=tag) for method, operation in route.operations.items()}
        yield replace(route, operations=operations)


def _add(app: App[Request, Response], table: Iterable[Route]) -> None:
    taken: set[str] = set()
    for route in table:
        if route.path in taken:
            raise PluginError(f"two routes are offered for {route.path}")
        taken.add(route.path)
        _complete(route)
        try:
            app.add_route(route.path, route.resource, suffix=route.suffix)
        except (ValueError, TypeError) as error:
            raise PluginError(f"the route {route.path} cannot be served: {error}") from error


def _complete(route: Route) -> None:
    """Each operation has its responder, and where there is GET there is HEAD."""
    suffix = f"_{route.suffix}" if route.suffix else ""
    for method in route.operations:
        responder = f"on_{method.lower()}{suffix}"
        if not callable(getattr(route.resource, responder, None)):
            kind = type(route.resource).__name__
            raise PluginError(f"the route {route.path} offers {method}, but {kind} has no {responder}")
    if "GET" in route.operations and not hasattr(route.resource, f"on_head{suffix}"):
        setattr(route.resource, f"on_head{suffix}", getattr(route.resource, f"on_get{suffix}"))
