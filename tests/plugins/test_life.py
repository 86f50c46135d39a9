"""What the hooks of a loaded plugin do in a runtime that runs."""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from falcon.testing import ASGIConductor

from jamjet_kernel import Event, Operation, PluginError, Principal, Route, Runtime, Settings, Status, hookimpl
from jamjet_kernel.http import create_app
from jamjet_kernel.runtime import open_runtime

BIN = Path(sys.executable).parent
ME = Principal()
GREET = {
    "workflow_id": "welcome",
    "version": "1.0.0",
    "nodes": {"greet": {"type": "greet", "name": "{{ state.who }}", "output_key": "greeting"}},
    "edges": [{"from": "greet", "to": "end"}],
}


@pytest.fixture
def settings(environment: Any, tmp_path: Path) -> Settings:
    environment.install("greeter")
    return Settings(
        database_url=str(tmp_path / "runtime.db"), plugins=("nodes", "greeter"), shutdown_grace=0, auth="off"
    )


def diary(environment: Any) -> list[str]:
    written: list[str] = environment.module("greeter").DIARY
    return written


async def greeted(runtime: Runtime) -> Any:
    await runtime.register(ME, GREET)
    execution_id = await runtime.start(ME, "welcome", None, {"who": "Ada"})
    return await runtime.wait(ME, execution_id, 10)


# Node kinds


async def test_a_plugins_node_kind_runs_in_a_workflow(settings: Settings) -> None:
    async with open_runtime(settings) as runtime:
        view = await greeted(runtime)

    assert (view.head.status, view.progress.state) == (Status.COMPLETED, {"who": "Ada", "greeting": "hello Ada"})


# Lifespans


async def test_lifespans_are_entered_in_order_and_left_in_reverse(environment: Any, settings: Settings) -> None:
    async with open_runtime(settings):
        assert diary(environment) == ["first begins", "second begins"]
        diary(environment).clear()

    assert diary(environment) == ["second ends", "first ends"]


class Living:
    """Runs a workflow when its life begins and when it ends."""

    def __init__(self) -> None:
        self.found: list[Status] = []

    @hookimpl
    def lifespans(self, runtime: Runtime) -> Iterable[AbstractAsyncContextManager[object]]:
        return [self._life(runtime)]

    @asynccontextmanager
    async def _life(self, runtime: Runtime) -> AsyncIterator[None]:
        self.found.append((await greeted(runtime)).head.status)
        yield
        self.found.append((await greeted(runtime)).head.status)


async def test_the_runtime_runs_when_a_lifespan_begins_and_still_when_it_ends(settings: Settings) -> None:
    living = Living()

    async with open_runtime(settings, extra_plugins=[living]):
        pass

    assert living.found == [Status.COMPLETED, Status.COMPLETED]


FAILING = """
from contextlib import asynccontextmanager
from jamjet_kernel import hookimpl

@asynccontextmanager
async def life():
    raise RuntimeError("the broker is not there")
    yield

@hookimpl
def lifespans():
    return [life()]
"""


async def test_a_lifespan_that_cannot_begin_stops_the_start_and_those_before_it_end(
    environment: Any, settings: Settings
) -> None:
    environment.install("failing", FAILING)
    chosen = settings.model_copy(update={"plugins": ("nodes", "greeter", "failing")})

    with pytest.raises(RuntimeError, match="the broker is not there"):
        async with open_runtime(chosen):
            pass

    assert diary(environment) == ["first begins", "second begins", "second ends", "first ends"]


# Observers


class Observer:
    """Compares what it is told with what another connection reads from the file at that moment."""

    def __init__(self, database: Path) -> None:
        self._database = database
        self.told: list[int] = []
        self.stored: list[int] = []

    @hookimpl
    def events_recorded(self, tenant_id: str, execution_id: str, events: Sequence[Event]) -> None:
        with closing(sqlite3.connect(self._database)) as database:
            query = "SELECT count(*) FROM events WHERE tenant_id = ? AND execution_id = ?"
            [(count,)] = database.execute(query, (tenant_id, execution_id)).fetchall()
        self.told.append(sum(self.told[-1:]) + len(events))
        self.stored.append(count)


class Broken:
    @hookimpl(trylast=True)
    def events_recorded(self) -> None:
        raise RuntimeError("I do not like these events")


async def test_events_are_told_once_they_are_committed(settings: Settings, tmp_path: Path) -> None:
    observer = Observer(tmp_path / "runtime.db")

    async with open_runtime(settings, extra_plugins=[observer]) as runtime:
        view = await greeted(runtime)

    assert observer.told[-1] == view.head.sequence
    assert all(told <= stored for told, stored in zip(observer.told, observer.stored, strict=True))


async def test_an_observer_cannot_veto(environment: Any, settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    async with open_runtime(settings, extra_plugins=[Broken()]) as runtime:
        view = await greeted(runtime)

    assert view.head.status is Status.COMPLETED
    assert "WorkflowCompleted" in diary(environment)
    assert "I do not like these events" in caplog.text


async def test_a_broken_observer_does_not_silence_the_others(environment: Any, settings: Settings) -> None:
    class BrokenFirst:
        @hookimpl(tryfirst=True)
        def events_recorded(self) -> None:
            raise RuntimeError("I do not like these events")

    async with open_runtime(settings, extra_plugins=[BrokenFirst()]) as runtime:
        await greeted(runtime)

    assert "WorkflowCompleted" in diary(environment)


# Routes


async def test_a_plugins_route_is_served_and_described(settings: Settings) -> None:
    async with open_runtime(settings) as runtime, ASGIConductor(create_app(runtime)) as client:
        answer = await client.simulate_get("/greetings/Ada", host="localhost")
        document = (await client.simulate_get("/openapi.json", host="localhost")).json

    assert answer.json == {"greeting": "hello Ada"}
    described = document["paths"]["/greetings/{name}"]["get"]
    assert (described["summary"], described["tags"]) == ("Greet somebody", ["plugins"])
    assert "Greeting" in document["components"]["schemas"]


class Echo:
    async def on_get(self, req: Any, resp: Any, **path: str) -> None:
        resp.media = path


class Routing:
    def __init__(self, *routes: Route) -> None:
        self._routes = routes

    @hookimpl
    def http_routes(self) -> Iterable[Route]:
        return self._routes


def route(path: str, method: str = "GET") -> Route:
    return Route(path, Echo(), {method: Operation("Echo", "read")})


@pytest.mark.parametrize(
    ("offered", "said"),
    [
        (route("/greetings/{name}"), "two routes are offered for /greetings/{name}"),
        (route("/workflows"), "two routes are offered for /workflows"),
        (route("/echo", "POST"), "the route /echo offers POST, but Echo has no on_post"),
    ],
)
async def test_a_route_that_does_not_fit_is_refused(settings: Settings, offered: Route, said: str) -> None:
    async with open_runtime(settings, extra_plugins=[Routing(offered)]) as runtime:
        with pytest.raises(PluginError, match=re.escape(said)):
            create_app(runtime)


@pytest.mark.parametrize("path", ["/executions/{id}/echo", "echo", "/echo/{not a name}"])
async def test_a_route_that_the_router_refuses_is_told_as_the_plugins(settings: Settings, path: str) -> None:
    async with open_runtime(settings, extra_plugins=[Routing(route(path))]) as runtime:
        with pytest.raises(PluginError, match=re.escape(path)):
            create_app(runtime)


# In the server


def test_a_server_that_cannot_start_says_which_plugin_it_is(environment: Any, tmp_path: Path) -> None:
    environment.install("broken", "import no_such_library", distribution="jamjet-broken")

    said = subprocess.run(
        [BIN / "jamjet-server", "--port", "0", "--database-url", tmp_path / "runtime.db"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )

    assert said.returncode == 1
    assert "the plugin 'broken' (broken of jamjet-broken 1.2) cannot be imported" in said.stderr
    assert "Traceback" not in said.stderr


def test_the_command_lists_the_plugins_and_fails_when_one_is_broken(environment: Any, tmp_path: Path) -> None:
    environment.install("greeter")
    environment.install("broken", "import no_such_library")

    said = subprocess.run([BIN / "jamjet", "plugins", "--json"], capture_output=True, text=True, check=False)

    plugins = {plugin["name"]: plugin for plugin in json.loads(said.stdout)["plugins"]}
    assert said.returncode == 1
    assert plugins["greeter"]["hooks"] == ["events_recorded", "http_routes", "lifespans", "node_executors"]
    assert "no_such_library" in plugins["broken"]["error"]


def test_a_real_server_serves_what_a_plugin_brings(environment: Any, tmp_path: Path) -> None:
    environment.install("greeter")
    command = [BIN / "jamjet-server", "--port", "0", "--database-url", tmp_path / "runtime.db", "--no-auth"]

    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=tmp_path, env=os.environ, text=True) as server:
        assert server.stdout is not None
        try:
            url = server.stdout.readline().split(" on ")[1].split()[0]
            with httpx.Client(base_url=url) as client:
                greeting = client.get("/greetings/Ada").json()
                client.post("/workflows", json={"ir": GREET}).raise_for_status()
                started = client.post("/executions", json={"workflow_id": "welcome", "input": {"who": "Ada"}}).json()
                ended = client.get(f"/executions/{started['execution_id']}", params={"wait": 10}).json()
        finally:
            server.send_signal(signal.SIGINT)

    assert greeting == {"greeting": "hello Ada"}
    assert ended["state"]["greeting"] == "hello Ada"
    assert server.returncode == 0
