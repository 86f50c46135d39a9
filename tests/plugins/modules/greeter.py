"""A whole plugin: a node kind, a route, a lifespan, an observer. `DIARY` tells what happened to it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from falcon.asgi import Request, Response
from pydantic import BaseModel, ConfigDict

from jamjet_kernel import Event, NodeCall, NodeExecutor, NodeResult, Operation, Route, Runtime, hookimpl

DIARY: list[str] = []


class Greet(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str


class Greeting(BaseModel):
    greeting: str


class Greeter:
    kind = "greet"
    config: type[BaseModel] = Greet

    async def execute(self, call: NodeCall) -> NodeResult:
        return NodeResult(f"hello {call.config.name}")


class Greetings:
    async def on_get(self, req: Request, resp: Response, name: str) -> None:
        resp.media = {"greeting": f"hello {name}"}


@hookimpl
def node_executors() -> Iterable[NodeExecutor]:
    return [Greeter()]


@hookimpl
def http_routes() -> Iterable[Route]:
    operation = Operation("Greet somebody", "read", {200: Greeting})
    return [Route("/greetings/{name}", Greetings(), {"GET": operation})]


@hookimpl
def lifespans(runtime: Runtime) -> Iterable[AbstractAsyncContextManager[object]]:
    return [_life("first", runtime), _life("second", runtime)]


@asynccontextmanager
async def _life(name: str, runtime: Runtime) -> AsyncIterator[None]:
    DIARY.append(f"{name} begins")
    try:
        yield
    finally:
        DIARY.append(f"{name} ends")


@hookimpl
def events_recorded(execution_id: str, events: Sequence[Event]) -> None:
    DIARY.extend(type(event).__name__ for event in events)
