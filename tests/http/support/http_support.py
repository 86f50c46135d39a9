"""A client that holds every answer against the OpenAPI document, and the workflows that it starts."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import json
import re
from dataclasses import replace
from typing import Any

import jsonschema_rs
from falcon.testing import ASGIConductor, ASGIResponseEventCollector, Result, create_scope

from jamjet_kernel.ports import DEFAULT_TENANT, Principal, Role, Token
from jamjet_kernel.runtime import Runtime

Json = dict[str, Any]


class Client:
    principal = Principal()

    def __init__(self, conductor: ASGIConductor, document: Json, runtime: Runtime, token: str | None = None) -> None:
        self.conductor = conductor
        self.document = document
        self.runtime = runtime
        self._app = conductor.app
        self._token = token

    def with_token(self, token: str | None) -> Client:
        """The same client, for somebody else."""
        return Client(self.conductor, self.document, self.runtime, token)

    async def get(self, path: str, query: str = "", **headers: str) -> Result:
        return await self.request("GET", path, query=query, headers=_named(headers))

    async def post(self, path: str, body: Any = None, **headers: str) -> Result:
        raw = body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
        given = {"Content-Type": "application/json"} if raw else {}
        return await self.request("POST", path, body=raw, headers=given | _named(headers))

    async def request(self, method: str, path: str, **request: Any) -> Result:
        headers = request.setdefault("headers", {})
        host = headers.pop("Host", "localhost:7700")
        if self._token is not None:
            headers.setdefault("Authorization", f"Bearer {self._token}")
        query = request.pop("query", "")
        answer = await self.conductor.simulate_request(method, path, host=host, query_string=query, **request)
        self._check(method, path, answer)
        return answer

    def _check(self, method: str, path: str, answer: Result) -> None:
        assert answer.headers["x-request-id"]
        content = answer.headers.get("content-type", "")
        if method == "HEAD":
            assert answer.content == b""
            return
        if answer.status_code >= 400 and path != "/ready":
            assert content == "application/json"
            assert {"error", "code", "details"} == set(answer.json)
        operation = self._operation(method, path)
        if operation is None:
            return
        described = operation["responses"][str(answer.status_code)]
        schema = described.get("content", {}).get(content, {}).get("schema")
        if schema and content == "application/json":
            jsonschema_rs.validate({**schema, "components": self.document["components"]}, answer.json)

    def _operation(self, method: str, path: str) -> Json | None:
        for template, operations in self.document.get("paths", {}).items():
            if re.fullmatch(re.sub(r"{\w+}", "[^/]+", template), path):
                found: Json | None = operations.get(method.lower())
                return found
        return None

    # What most tests begin with

    async def registered(self, **nodes: Json) -> str:
        answer = await self.post("/workflows", {"ir": workflow(**nodes)})
        assert answer.status_code == 201, answer.text
        return str(answer.json["workflow_id"])

    async def started(self, input: Json | None = None, **nodes: Json) -> str:
        workflow_id = await self.registered(**nodes)
        answer = await self.post("/executions", {"workflow_id": workflow_id, "input": input or {}})
        assert answer.status_code == 201, answer.text
        return str(answer.json["execution_id"])

    async def ended(self, input: Json | None = None, **nodes: Json) -> Json:
        execution_id = await self.started(input, **nodes)
        view: Json = (await self.get(f"/executions/{execution_id}", "wait=10")).json
        return view

    async def until(self, execution_id: str, kind: str) -> None:
        """Returns when such an event is in the log."""
        async for recorded in self.runtime.follow(self.principal, execution_id):
            if recorded and json.loads(recorded.body)["kind"] == kind:
                return

    async def stream(self, path: str, query: str = "", **headers: str) -> str:
        """All that is sent until the server ends the stream; the client stays."""
        given = {"Accept": "text/event-stream"} | _named(headers)
        if self._token is not None:
            given.setdefault("Authorization", f"Bearer {self._token}")
        scope = create_scope(path=path, query_string=query, headers=given, host="localhost")
        requests: asyncio.Queue[Json] = asyncio.Queue()
        requests.put_nowait({"type": "http.request"})
        answer = ASGIResponseEventCollector()
        await self._app(scope, requests.get, answer)
        assert dict(answer.headers)["content-type"] == "text/event-stream"
        assert answer.more_body is False
        return b"".join(answer.body_chunks).decode()


def workflow(workflow_id: str = "research-agent", version: str = "0.1.0", **nodes: Json) -> Json:
    """The nodes in a row."""
    nodes = nodes or {"search": step("search")}
    ids = [*nodes, "end"]
    edges = [{"from": source, "to": target} for source, target in itertools.pairwise(ids)]
    return {"workflow_id": workflow_id, "version": version, "nodes": nodes, "edges": edges}


def step(function: str) -> Json:
    return {"type": "python_fn", "module": "http_steps", "function": function}


APPROVAL = {"type": "human_approval", "description": "May it go out?"}
WAIT = {"type": "wait", "condition": "external_event", "correlation_key": "payment-received"}


def _named(headers: dict[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items()}


_numbers = itertools.count(1)


async def token_of(runtime: Runtime, role: Role, tenant_id: str = DEFAULT_TENANT, **changes: Any) -> str:
    """The plain text of a token that was made for a test."""
    number = next(_numbers)
    plain_text = f"jam_test{number}"
    digest = hashlib.sha256(plain_text.encode()).digest()
    token = Token(tenant_id, f"tok_test{number}", str(role), role, digest, runtime.world.now(), "test")
    await runtime.storage.tokens.add(tenant_id, replace(token, **changes))
    return plain_text
