"""The routes that plugins add."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from falcon.asgi import Request, Response
from falcon.testing import ASGIConductor
from pydantic import BaseModel

from jamjet_kernel.errors import PluginError
from jamjet_kernel.hookspecs import hookimpl
from jamjet_kernel.http import create_app
from jamjet_kernel.ports import Operation, Route
from jamjet_kernel.runtime import Runtime


class Greeting(BaseModel):
    hello: str


class Greetings:
    async def on_get(self, req: Request, resp: Response) -> None:
        resp.media = {"hello": "world"}


class Plugin:
    def __init__(self, *routes: Route) -> None:
        self._routes = routes

    @hookimpl
    def http_routes(self) -> Iterable[Route]:
        return self._routes


GREET = {"GET": Operation("Greet", "read", {200: Greeting})}


async def test_a_plugins_route_is_served_and_described(runtime: Runtime) -> None:
    runtime.plugins.register(Plugin(Route("/greetings", Greetings(), GREET)))

    async with ASGIConductor(create_app(runtime)) as conductor:
        answer = await conductor.simulate_get("/greetings", host="localhost")
        document = (await conductor.simulate_get("/openapi.json", host="localhost")).json

    assert answer.json == {"hello": "world"}
    assert document["paths"]["/greetings"]["get"]["tags"] == ["plugins"]
    assert "Greeting" in document["components"]["schemas"]


async def test_two_routes_for_one_path_are_refused(runtime: Runtime) -> None:
    runtime.plugins.register(Plugin(Route("/health", Greetings(), GREET)))

    with pytest.raises(PluginError, match="two routes are offered for /health"):
        create_app(runtime)


async def test_an_operation_without_a_responder_is_refused(runtime: Runtime) -> None:
    route = Route("/greetings", Greetings(), {"POST": Operation("Greet", "write")})
    runtime.plugins.register(Plugin(route))

    with pytest.raises(PluginError, match="Greetings has no on_post"):
        create_app(runtime)
