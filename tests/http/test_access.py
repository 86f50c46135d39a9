"""Who may do what: role by role, over every route that there is."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

import pytest
from falcon.asgi import Request, Response
from http_support import APPROVAL, Client, token_of, workflow

from jamjet_kernel import hookimpl
from jamjet_kernel.errors import PluginError
from jamjet_kernel.http import create_app
from jamjet_kernel.ports import Access, Authenticator, Operation, Principal, Role, Route
from jamjet_kernel.runtime import Runtime, open_runtime
from jamjet_kernel.settings import Settings

INVALID = {"error": "invalid or expired token", "code": "unauthenticated", "details": {}}

# The contract's table, and beyond it that a reviewer may decide approvals.
MAY = {
    "open": {None, "viewer", "reviewer", "developer", "operator"},
    "read": {"viewer", "reviewer", "developer", "operator"},
    "decide": {"reviewer", "developer", "operator"},
    "write": {"developer", "operator"},
    "admin": {"operator"},
}
REQUIRED = {
    "decide": "insufficient role — reviewer, developer or operator required",
    "write": "insufficient role — developer or operator required",
    "admin": "insufficient role — operator required",
}
# Beyond the contract's two: the document with its page, which a browser asks for without a token, and a public key.
OPEN = ("/health", "/ready", "/openapi.json", "/docs", "/.well-known/", "/audit/key")


def needed(method: str, path: str) -> str:
    """By the contract's words; nothing of the implementation is asked."""
    if path.startswith(OPEN):
        return "open"
    if path.startswith(("/tenants", "/tokens")):
        return "admin"
    if path.endswith("/approve"):
        return "decide"
    return "read" if method in ("GET", "HEAD") else "write"


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"auth": "on"})


def every_route(client: Client) -> list[tuple[str, str]]:
    described = [(method.upper(), path) for path, methods in client.document["paths"].items() for method in methods]
    heads = [("HEAD", path) for method, path in described if method == "GET"]
    return [(method, re.sub(r"{\w+}", "nobody", path)) for method, path in described + heads]


# Roles


@pytest.mark.parametrize("role", [None, *Role])
async def test_every_route_asks_for_the_role_that_it_needs(client: Client, runtime: Runtime, role: Role | None) -> None:
    caller = client if role is None else client.with_token(await token_of(runtime, role))
    routes = every_route(client)

    for method, path in routes:
        access = needed(method, path)
        answer = await caller.request(method, path)
        if role in MAY[access]:
            assert answer.status_code not in (401, 403), (method, path, answer.text)
        elif role is None:
            assert answer.status_code == 401, (method, path)
            assert answer.headers["www-authenticate"].startswith("Bearer")
            assert method == "HEAD" or answer.json == INVALID
        else:
            assert answer.status_code == 403, (method, path, answer.text)
            assert method == "HEAD" or answer.json["error"] == REQUIRED[access]
    assert len(routes) > 30


async def test_what_was_refused_had_no_effect(client: Client, runtime: Runtime) -> None:
    operator, viewer = [client.with_token(await token_of(runtime, role)) for role in (Role.OPERATOR, Role.VIEWER)]
    execution_id = await operator.started(review=APPROVAL)

    for path in ("cancel", "pause", "approve"):
        body = {"decision": "approved"} if path == "approve" else {}
        assert (await viewer.post(f"/executions/{execution_id}/{path}", body)).status_code == 403
    assert (await viewer.post("/workflows", {"ir": workflow("another")})).status_code == 403

    events = (await viewer.get(f"/executions/{execution_id}/events")).json["events"]
    assert {event["kind"] for event in events} & {"WorkflowCancelled", "ApprovalReceived"} == set()
    assert [each["workflow_id"] for each in (await viewer.get("/workflows")).json["workflows"]] == ["research-agent"]


async def test_the_document_says_what_a_route_wants(client: Client) -> None:
    for path, methods in client.document["paths"].items():
        for method, operation in methods.items():
            is_open = needed(method.upper(), path) == "open"
            assert operation["security"] == ([] if is_open else [{"token": []}]), path
            assert ({"401", "403"} <= operation["responses"].keys()) is not is_open, path
    assert client.document["components"]["securitySchemes"]["token"]["scheme"] == "bearer"


# Who did it


async def test_what_was_done_is_done_by_whom_the_token_names(client: Client, runtime: Runtime) -> None:
    developer, reviewer = [
        client.with_token(await token_of(runtime, role, token_id=f"tok_{role}"))
        for role in (Role.DEVELOPER, Role.REVIEWER)
    ]
    execution_id = await developer.started(review=APPROVAL)
    await developer.until(execution_id, "WorkflowPaused")

    decision = {"decision": "rejected", "user_id": "user-42", "comment": "no"}
    await reviewer.post(f"/executions/{execution_id}/approve", decision)
    other = await developer.started(review=APPROVAL)
    await developer.post(f"/executions/{other}/cancel")

    told = {event["kind"]: event["data"] for event in await events(developer, execution_id)}
    assert told["WorkflowStarted"]["actor"] == "token:tok_developer"
    assert told["ApprovalReceived"]["actor"] == "token:tok_reviewer"
    assert told["ApprovalReceived"]["user_id"] == "user-42"
    cancelled = {event["kind"]: event["data"] for event in await events(developer, other)}["WorkflowCancelled"]
    assert cancelled["actor"] == "token:tok_developer"


async def events(client: Client, execution_id: str) -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = (await client.get(f"/executions/{execution_id}/events")).json["events"]
    return listed


# Credentials


@pytest.fixture
async def token(runtime: Runtime) -> str:
    return await token_of(runtime, Role.OPERATOR)


@pytest.mark.parametrize("scheme", ["Bearer ", "bearer ", "BEARER  "])
async def test_the_scheme_is_read_in_any_case(client: Client, token: str, scheme: str) -> None:
    answer = await client.get("/workflows", Authorization=scheme + token)

    assert answer.status_code == 200


@pytest.mark.parametrize(
    "forged",
    [
        "Bearer",
        "Bearer ",
        "Bearer {token}x",
        "Bearer {upper}",
        "Bearer {short}",
        "Bearer {token} {token}",
        "Bearer {token},{token}",
        "Bearer jam_",
        "Bearer jam_' OR '1'='1",
        "Bearer '; DROP TABLE tokens; --",
        "Bearer %00",
        "Bearer naïve",
        "Bearer null",
        "Bearer eyJhbGciOiJub25lIn0.eyJyb2xlIjoib3BlcmF0b3IifQ.",
        "Bearer " + "x" * 20_000,
        "Basic {token}",
        "Token {token}",
        "{token}",
    ],
)
async def test_a_forged_credential_is_refused(client: Client, token: str, forged: str) -> None:
    header = forged.format(token=token, upper=token.upper(), short=token[:-1])

    for _ in range(2):  # the second is answered from memory
        answer = await client.get("/workflows", Authorization=header)
        assert (answer.status_code, answer.json) == (401, INVALID)
    assert (await client.with_token(token).get("/workflows")).status_code == 200


async def test_a_token_in_the_url_is_none(client: Client, token: str) -> None:
    for query in (f"token={token}", f"access_token={token}"):
        assert (await client.get("/workflows", query)).status_code == 401


async def test_a_digest_is_no_token(client: Client, runtime: Runtime, token: str) -> None:
    [first, *_] = await runtime.storage.tokens.page("default")

    for stolen in (first.digest.hex(), f"jam_{first.digest.hex()}", first.token_id):
        assert (await client.with_token(stolen).get("/workflows")).status_code == 401


# Routes fail closed


class Resource:
    async def on_get(self, req: Request, resp: Response) -> None:
        resp.media = {}

    async def on_post_odd(self, req: Request, resp: Response) -> None:
        resp.media = {}

    async def on_propfind_dav(self, req: Request, resp: Response) -> None:
        resp.media = {}

    async def on_websocket_socket(self, req: Request, socket: Any) -> None: ...


READ = Operation("Look", Access.READ)


@pytest.mark.parametrize(
    ("route", "message"),
    [
        (Route("/odd", Resource(), {}), "the route /odd answers GET without saying who may"),
        (Route("/odd", Resource(), {}, "odd"), "answers POST without saying who may"),
        (Route("/odd", Resource(), {}, "dav"), "answers PROPFIND without saying who may"),
        (Route("/odd", Resource(), {}, "socket"), "answers WEBSOCKET without saying who may"),
        (Route("/odd", Resource(), {"GET": Operation("Look", "anybody")}), "'anybody'"),  # type: ignore[arg-type]
    ],
)
async def test_a_route_that_does_not_say_who_may_stops_the_start(runtime: Runtime, route: Route, message: str) -> None:
    class Plugin:
        @hookimpl
        def http_routes(self) -> Iterable[Route]:
            return [route]

    runtime.plugins.register(Plugin())

    with pytest.raises(PluginError, match=message):
        create_app(runtime)


async def test_without_anybody_who_can_tell_the_server_does_not_start(settings: Settings) -> None:
    async with open_runtime(settings.model_copy(update={"plugins": ("nodes",)})) as runtime:
        with pytest.raises(PluginError, match="no plugin can tell who calls"):
            create_app(runtime)


# Another scheme


class KeyHeader:
    async def authenticate(self, header: Callable[[str], str | None]) -> Principal | None:
        key = header("X-Key")
        return Principal("key:robot", "default", Role.VIEWER) if key == "open sesame" else None


class KeyPlugin:
    @hookimpl
    def authenticators(self) -> Iterable[Authenticator]:
        return [KeyHeader()]


class TestAnotherScheme:
    @pytest.fixture
    async def runtime(self, settings: Settings) -> AsyncIterator[Runtime]:
        async with open_runtime(settings, extra_plugins=[KeyPlugin()]) as runtime:
            yield runtime

    async def test_a_plugin_adds_one(self, client: Client, token: str) -> None:
        assert (await client.get("/workflows", X_Key="open sesame")).status_code == 200
        assert (await client.get("/workflows", X_Key="wrong")).status_code == 401
        assert (await client.post("/workflows", {}, X_Key="open sesame")).status_code == 403
        assert (await client.with_token(token).get("/workflows")).status_code == 200


# Without authentication


class TestSwitchedOff:
    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        return settings.model_copy(update={"auth": "off"})

    async def test_everybody_is_an_operator(self, client: Client, settings: Settings) -> None:
        answer = await client.get("/tokens")

        assert (answer.status_code, answer.json["tokens"]) == (200, [])
        assert not settings.operator_token_file.exists()
