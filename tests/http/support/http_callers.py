"""Callers of several tenants and roles, known by a header that only these tests believe."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any

from falcon.testing import ASGIConductor, Result
from http_support import Client

from jamjet_kernel import hookimpl
from jamjet_kernel.http import create_app
from jamjet_kernel.ports import Authenticator, Principal, Role
from jamjet_kernel.runtime import Runtime, open_runtime
from jamjet_kernel.settings import Settings

HEADER = "X-Caller"


class _ByHeader:
    async def authenticate(self, header: Callable[[str], str | None]) -> Principal | None:
        if (caller := header(HEADER)) is None:
            return None
        tenant_id, _, role = caller.partition("/")
        return Principal(caller, tenant_id, Role(role))


class Believing:
    """A plugin."""

    @hookimpl
    def authenticators(self) -> Iterable[Authenticator]:
        return [_ByHeader()]


class Caller(Client):
    def __init__(self, client: Client, runtime: Runtime, tenant_id: str, role: str) -> None:
        super().__init__(client.conductor, client.document, runtime)
        self.runtime = runtime
        self.principal = Principal(f"{tenant_id}/{role}", tenant_id, Role(role))

    async def request(self, method: str, path: str, **request: Any) -> Result:
        request["headers"] = {HEADER: self.principal.id} | request.get("headers", {})
        return await super().request(method, path, **request)

    async def put(self, path: str, body: Any, **headers: str) -> Result:
        given = {"Content-Type": "application/json"} | headers
        return await self.request("PUT", path, body=json.dumps(body).encode(), headers=given)

    def another(self, tenant_id: str, role: str = "operator") -> Caller:
        return Caller(self, self.runtime, tenant_id, role)


@asynccontextmanager
async def calling(settings: Settings, *plugins: object) -> AsyncIterator[Caller]:
    """An operator of the default tenant."""
    async with (
        open_runtime(settings, extra_plugins=[Believing(), *plugins]) as runtime,
        ASGIConductor(create_app(runtime)) as conductor,
    ):
        document = await conductor.simulate_get("/openapi.json", host="localhost")
        yield Caller(Client(conductor, document.json, runtime), runtime, "default", "operator")
