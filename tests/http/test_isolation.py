"""No route, filter, guessed id, stream or cursor leads from one tenant into another."""

from __future__ import annotations

import asyncio
import re
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import http_steps
import pytest
from http_callers import Caller, calling
from http_support import APPROVAL, WAIT, step, workflow

from jamjet_kernel import Settings
from jamjet_kernel.ports import Agent, Role, Token

Json = dict[str, Any]
SECRET = "acme-secret"
GATE = {**step("wait_for_gate"), "input_mapping": {"gate": "{{ state.gate }}"}}
CARD = {"id": SECRET, "uri": "http://localhost:7701", "name": SECRET, "version": "0.1.0"}

BODIES: dict[str, Json] = {
    "/executions/{execution_id}/approve": {"decision": "approved"},
    "/executions/{execution_id}/external-event": {"correlation_key": "payment-received"},
    "/tenants/{tenant_id}": {"name": "Taken over"},
    "/agents/{agent_id}": CARD,
    "/work-items/{item_id}/heartbeat": {"worker_id": "w1"},
    "/work-items/{item_id}/fail": {"error": "none"},
    "/work-items/{item_id}/progress": {"data": 1},
}
"""Where an empty body would be refused before anybody looks whose thing it is about."""

INJECTIONS = [
    "' OR '1'='1",
    "'; DROP TABLE executions; --",
    '" OR ""="',
    "' UNION SELECT tenant_id, ir FROM workflows --",
    f"{SECRET}' --",
    "%",
    "_",
    "acme%",
    "*",
    "\\",
    "$1",
    ":tenant",
    "{0}",
]


@dataclass(frozen=True)
class World:
    """Two tenants. Whatever is acme's has the secret in its name or in its contents."""

    root: Caller
    acme: Caller
    rival: Caller
    file: str
    ids: dict[str, str]

    def stored(self, tenant_id: str = "acme") -> dict[str, list[Any]]:
        """Every row of the tenant, in every table."""
        with closing(sqlite3.connect(self.file)) as database:
            tables = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            tables.remove("jamjet_schema")  # Of nobody: how far the tables are.
            return {
                table: sorted(database.execute(f"SELECT * FROM {table} WHERE tenant_id = ?", (tenant_id,)), key=repr)
                for table in tables
            }


@pytest.fixture
async def world(settings: Settings) -> AsyncIterator[World]:
    http_steps.gates.clear()
    async with calling(settings.model_copy(update={"auth": "on"})) as root:
        for tenant_id in ("acme", "rival"):
            assert (await root.post("/tenants", {"id": tenant_id, "name": tenant_id})).status_code == 201
        acme, rival = root.another("acme"), root.another("rival")
        yield World(root, acme, rival, settings.database_url, await furnished(acme))


async def furnished(acme: Caller) -> dict[str, str]:
    """Something of each kind, by the name of its parameter."""
    ir = workflow(SECRET, review=APPROVAL, paid=WAIT)
    assert (await acme.post("/workflows", {"ir": ir})).status_code == 201
    started = await acme.post("/executions", {"workflow_id": SECRET, "input": {"secret": SECRET}})
    execution_id = started.json["execution_id"]
    await acme.until(execution_id, "ApprovalRequested")
    ir = workflow(f"{SECRET}-remote", a={**step("search"), "queue": SECRET})
    assert (await acme.post("/workflows", {"ir": ir})).status_code == 201
    await acme.post("/executions", {"workflow_id": f"{SECRET}-remote"})
    claim = {"worker_id": SECRET, "queue_types": [SECRET], "wait": 5}
    claimed = await acme.post("/work-items/claim", claim)
    ir = workflow(f"{SECRET}-dead", dead={**step("fail_with"), "input_mapping": {"message": SECRET}})
    assert (await acme.post("/workflows", {"ir": ir})).status_code == 201
    failed = await acme.post("/executions", {"workflow_id": f"{SECRET}-dead"})
    await acme.until(failed.json["execution_id"], "WorkflowFailed")
    storage = acme.runtime.storage
    agent = Agent(SECRET, "http://localhost:7701", SECRET, 1, b'{"name": "acme-secret"}', skills=[SECRET])
    await storage.agents.put("acme", agent, None)
    token = Token("acme", f"tok_{SECRET}", SECRET, Role.OPERATOR, b"digest", 1, "acme/operator")
    await storage.tokens.add("acme", token)
    return {
        "execution_id": execution_id,
        "workflow_id": SECRET,
        "version": "0.1.0",
        "tenant_id": "acme",
        "agent_id": SECRET,
        "token_id": f"tok_{SECRET}",
        "node_id": "review",
        "item_id": claimed.json["work_item"]["id"],
        "letter_id": (await acme.get("/dead-letters")).json["dead_letters"][0]["id"],
    }


def protected(document: Json) -> Iterator[tuple[str, str, Json]]:
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            if "401" in operation["responses"]:
                yield method.upper(), path, operation


def filled(path: str, ids: dict[str, str]) -> str:
    """A parameter that is not there is one to teach these tests."""
    return re.sub(r"{(\w+)}", lambda found: ids[found[1]], path)


async def ask(caller: Caller, method: str, path: str, body: Json | None = None, query: str = "") -> Any:
    match method:
        case "POST":
            return await caller.post(path, body or {})
        case "PUT":
            return await caller.put(path, body or {})
        case _:
            return await caller.request(method, path, query=query)


# Every route


async def test_every_route_with_anothers_ids_finds_nothing_and_changes_nothing(world: World) -> None:
    before = world.stored()

    for method, path, _ in protected(world.rival.document):
        if "{" in path:
            answer = await ask(world.rival, method, filled(path, world.ids), BODIES.get(path))
            assert answer.status_code == 404, f"{method} {path}: {answer.status_code} {answer.text}"

    assert world.stored() == before


async def test_the_same_routes_find_it_for_its_owner(world: World) -> None:
    """Else the test above would prove nothing."""
    for method, path, _ in protected(world.rival.document):
        if "{" in path and method == "GET":
            answer = await ask(world.acme, method, filled(path, world.ids))
            assert answer.status_code == 200, f"{method} {path}: {answer.status_code} {answer.text}"


async def test_no_list_shows_anothers_things(world: World) -> None:
    for method, path, _ in protected(world.rival.document):
        if "{" not in path and method == "GET":
            answer = await ask(world.rival, method, path)
            assert answer.status_code == 200, path
            for secret in (SECRET, world.ids["execution_id"], '"acme"'):
                assert secret not in answer.text, path


@pytest.mark.parametrize("value", INJECTIONS)
async def test_no_filter_is_more_than_a_filter(world: World, value: str) -> None:
    before = world.stored()

    for method, path, operation in protected(world.rival.document):
        if method != "GET":
            continue
        for parameter in operation["parameters"]:
            if parameter["in"] == "query":
                answer = await world.rival.request("GET", filled(path, world.ids), params={parameter["name"]: value})
                assert answer.status_code in (200, 400, 404), f"{path} {parameter['name']}: {answer.text}"
                if answer.status_code == 200:
                    assert SECRET not in answer.text, f"{path} {parameter['name']}"

    assert world.stored() == before


@pytest.mark.parametrize("value", INJECTIONS)
async def test_no_id_is_more_than_an_id(world: World, value: str) -> None:
    before = world.stored()

    for method, path, _ in protected(world.rival.document):
        if "{" in path:
            ids = dict.fromkeys(world.ids, quote(value, safe=""))
            answer = await ask(world.rival, method, filled(path, ids), BODIES.get(path))
            assert answer.status_code in (400, 404), f"{method} {path}: {answer.status_code} {answer.text}"

    assert world.stored() == before


async def test_its_own_filters_name_what_is_anothers_in_vain(world: World) -> None:
    execution_id = world.ids["execution_id"]
    queries = {
        "/executions": [f"workflow_id={SECRET}", "status=paused", "status=running"],
        "/agents": [f"skill={SECRET}", "status=registered"],
        "/audit": [f"execution_id={execution_id}", "actor_id=acme/operator", "event_type=workflow_started"],
    }
    there = world.rival.document["paths"]

    for path, asked in [(path, asked) for path, them in queries.items() if path in there for asked in them]:
        answer = await world.rival.get(path, asked)
        assert answer.status_code == 200, answer.text
        assert SECRET not in answer.text
        assert execution_id not in answer.text


# Streams, waits, cursors


async def test_nobody_follows_or_waits_for_anothers_execution(world: World) -> None:
    one = f"/executions/{world.ids['execution_id']}"

    assert (await world.rival.get(f"{one}/events", Accept="text/event-stream")).status_code == 404
    assert (await world.rival.get(f"{one}/events", Accept="text/event-stream", Last_Event_ID="1")).status_code == 404
    assert (await world.rival.get(one, "wait=5")).status_code == 404


async def test_anothers_cursor_leads_through_ones_own_things(world: World) -> None:
    await world.acme.post("/executions", {"workflow_id": SECRET})
    await world.acme.post("/workflows", {"ir": workflow(f"{SECRET}-2")})
    await world.rival.ended()
    pages = {path: (await world.acme.get(path, "limit=1")).json for path in ("/executions", "/workflows")}

    for path, page in pages.items():
        assert page["next_cursor"]
        answer = await world.rival.get(path, f"cursor={page['next_cursor']}")
        assert answer.status_code == 200
        assert SECRET not in answer.text


@pytest.mark.parametrize("guess", ["{id}.1", "{id}.2", "acme/{id}", "acme%2F{id}", "{id} ", "{id}%20", "../acme/{id}"])
async def test_no_guess_leads_to_anothers_execution(world: World, guess: str) -> None:
    answer = await world.rival.get(f"/executions/{guess.format(id=world.ids['execution_id'])}")

    assert answer.status_code == 404


async def test_the_ids_of_children_are_known_and_of_no_use(world: World) -> None:
    await world.acme.post("/workflows", {"ir": workflow("child", gate=GATE)})
    await world.acme.post("/workflows", {"ir": workflow("p", call={"type": "subgraph", "workflow_ref": "child"})})
    parent = (await world.acme.post("/executions", {"workflow_id": "p", "input": {"gate": "g"}})).json["execution_id"]
    await world.acme.until(parent, "ChildWorkflowStarted")
    view = (await world.acme.get(f"/executions/{parent}")).json
    child = view["nodes"]["call"]["child_execution_id"]
    async with asyncio.timeout(5):
        while (await world.acme.get(f"/executions/{child}")).status_code != 200:
            await asyncio.sleep(0.01)

    assert (await world.rival.get(f"/executions/{child}")).status_code == 404
    assert (await world.rival.post(f"/executions/{child}/cancel")).status_code == 404
    assert (await world.acme.get(f"/executions/{child}")).json["status"] == "running"


# The same names in two tenants


async def test_one_idempotency_key_is_two_requests_in_two_tenants(world: World) -> None:
    ids = []
    for caller in (world.acme, world.rival):
        await caller.post("/workflows", {"ir": workflow("same", gate=GATE)})
        body = {"workflow_id": "same", "input": {"gate": "g"}}
        first = await caller.post("/executions", body, Idempotency_Key="k")
        again = await caller.post("/executions", body, Idempotency_Key="k")
        assert (first.status_code, again.json) == (201, first.json)
        ids.append(first.json["execution_id"])

    assert ids[0] != ids[1]
    assert (await world.acme.get(f"/executions/{ids[1]}")).status_code == 404


async def test_one_correlation_key_is_two_waits_in_two_tenants(world: World) -> None:
    runs = [(caller, await caller.started(paid=WAIT)) for caller in (world.acme, world.rival)]

    for caller, execution_id in runs:
        await caller.until(execution_id, "WorkflowPaused")
    answer = await world.rival.post(
        f"/executions/{runs[1][1]}/external-event", {"correlation_key": "payment-received", "payload": {"paid": 1}}
    )

    assert answer.status_code == 200
    assert (await world.rival.get(f"/executions/{runs[1][1]}", "wait=5")).json["status"] == "completed"
    assert (await world.acme.get(f"/executions/{runs[0][1]}")).json["status"] == "paused"


async def test_a_reference_by_name_stays_in_the_tenant(world: World) -> None:
    calls_child = workflow("parent", call={"type": "subgraph", "workflow_ref": "child"})
    wait = {**step("search"), "input_mapping": {"query": "acme-secret"}}
    await world.acme.post("/workflows", {"ir": workflow("child", search=wait)})

    unresolved = await world.rival.post("/workflows", {"ir": calls_child})
    ours = {**step("search"), "input_mapping": {"query": "ours"}}
    await world.rival.post("/workflows", {"ir": workflow("child", search=ours)})
    await world.rival.post("/workflows", {"ir": calls_child})
    started = await world.rival.post("/executions", {"workflow_id": "parent"})
    view = await world.rival.get(f"/executions/{started.json['execution_id']}", "wait=10")

    assert unresolved.status_code == 400
    assert view.json["state"]["answer"] == "OURS"


@pytest.mark.parametrize("version", [None, "0.1.0", "latest"])
async def test_anothers_workflow_cannot_be_started(world: World, version: str | None) -> None:
    body = {"workflow_id": SECRET} | ({"workflow_version": version} if version else {})

    assert (await world.rival.post("/executions", body)).status_code == 404


async def test_the_same_name_is_two_things_in_two_tenants(world: World) -> None:
    before = world.stored()

    registered = await world.rival.post("/workflows", {"ir": workflow(SECRET)})

    assert registered.status_code == 201
    assert world.stored() == before


async def test_a_name_that_holds_anothers_is_its_own(world: World) -> None:
    """Keys are columns, never texts put together."""
    names = ["acme", "acm", "acme-", "a"]
    for name in names[1:]:
        assert (await world.root.post("/tenants", {"id": name, "name": name})).status_code == 201
        listed = await world.root.another(name).get("/executions")
        assert listed.json["executions"] == []
