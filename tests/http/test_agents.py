"""/agents: registry, cards, lifecycle and discovery"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from a2a.compat.v0_3 import types as a2a_0_3
from a2a.types import AgentCapabilities, AgentInterface, AgentSkill
from a2a.types import AgentCard as A2aCard
from google.protobuf.json_format import MessageToDict
from http_peers import Peer, peer
from http_support import Client, Json

from jamjet_kernel import DEFAULT_TENANT, Settings
from jamjet_kernel.ports import Principal
from jamjet_kernel.runtime import Runtime

# As the contract prints it.
CARD: Json = {
    "id": "research-agent",
    "uri": "http://localhost:7701",
    "name": "Research Agent",
    "description": "Searches the web and synthesizes reports.",
    "version": "0.1.0",
    "capabilities": {
        "skills": [
            {
                "name": "research",
                "description": "Deep research on any topic",
                "input_schema": {"type": "object", "properties": {"query": {"type": "string"}}},
                "output_schema": {"type": "object", "properties": {"report": {"type": "string"}}},
            }
        ],
        "protocols": ["a2a"],
        "tools_provided": ["web_search"],
        "tools_consumed": [],
    },
    "autonomy": "guided",
    "auth": {"type": "bearer_token"},
}


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"allow_networks": ("loopback",), "agent_liveness_secs": 0.2})


@pytest.fixture
def remote() -> Iterator[Peer]:
    with peer() as server:
        yield server


def card(agent_id: str = "research-agent", *, skills: Any = None, protocols: Any = None, **changes: Any) -> Json:
    capabilities = {
        "skills": CARD["capabilities"]["skills"] if skills is None else [{"name": skill} for skill in skills],
        "protocols": ["a2a"] if protocols is None else protocols,
    }
    return {**CARD, "id": agent_id, "capabilities": capabilities, **changes}


async def registered(client: Client, *cards: Json) -> None:
    for each in cards or (CARD,):
        answer = await client.post("/agents", each)
        assert answer.status_code == 201, answer.text


async def put(client: Client, path: str, body: Any) -> Any:
    raw = json.dumps(body).encode()
    return await client.request("PUT", path, body=raw, headers={"Content-Type": "application/json"})


async def found(client: Client, query: str = "") -> list[str]:
    answer = await client.get("/agents", query)
    assert answer.status_code == 200, answer.text
    return [agent["agent_id"] for agent in answer.json["agents"]]


async def audited(runtime: Runtime) -> list[tuple[str, str | None]]:
    chain = await runtime.storage.audit.chain(DEFAULT_TENANT)
    records = [sealed.record for sealed in chain if sealed.record is not None]
    return [(record.event_type, record.resource) for record in records if record.event_type.startswith("agent_")]


# Registry


async def test_an_agent_is_registered_as_the_contract_prints_it(client: Client, runtime: Runtime) -> None:
    answer = await client.post("/agents", CARD)

    assert (answer.status_code, answer.json) == (201, {"agent_id": "research-agent"})
    assert answer.headers["location"] == "/agents/research-agent"
    agent = (await client.get("/agents/research-agent")).json
    assert agent["card"] == CARD
    assert (agent["agent_id"], agent["status"], agent["uri"]) == ("research-agent", "registered", CARD["uri"])
    assert (agent["skills"], agent["protocols"], agent["version"]) == (["research"], ["a2a"], "0.1.0")
    assert (agent["reachable"], agent["last_seen_at"], agent["updated_at"]) == (None, None, None)
    assert await audited(runtime) == [("agent_registered", "agent/research-agent")]


async def test_a_card_is_kept_whole(client: Client) -> None:
    more = {**CARD, "x-team": {"name": "Ölmühle", "n": [1, 2.5, None, True]}}
    more["capabilities"] = {**CARD["capabilities"], "streaming": True}

    await registered(client, more, {"id": "bare", "uri": "http://localhost:1", "name": "Bare"})

    assert (await client.get("/agents/research-agent")).json["card"] == more
    bare = (await client.get("/agents/bare")).json
    assert bare["card"] == {"id": "bare", "uri": "http://localhost:1", "name": "Bare"}
    assert (bare["skills"], bare["description"]) == ([], None)


async def test_an_id_is_registered_once(client: Client) -> None:
    await registered(client)

    answer = await client.post("/agents", {**CARD, "name": "Other"})

    assert answer.status_code == 409
    assert "agent research-agent is registered already; PUT /agents/research-agent updates it" in answer.json["error"]
    assert (await client.get("/agents/research-agent")).json["name"] == "Research Agent"


async def test_a_repeated_request_registers_once(client: Client) -> None:
    first = await client.post("/agents", CARD, Idempotency_Key="k")
    again = await client.post("/agents", CARD, Idempotency_Key="k")
    other = await client.post("/agents", {**CARD, "name": "Other"}, Idempotency_Key="k")

    assert (first.status_code, again.status_code, again.json) == (201, 201, {"agent_id": "research-agent"})
    assert (other.status_code, other.json["code"]) == (409, "idempotency_key_reused")


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"id": None}, "id"),
        ({"id": ""}, "id"),
        ({"id": "a/b"}, "id must not hold a slash"),
        ({"id": ".."}, "id"),
        ({"id": "discover"}, "id"),
        ({"id": "a\x00b"}, "id holds a control character"),
        ({"id": "x" * 256}, "id"),
        ({"uri": "no uri"}, "uri"),
        ({"uri": "localhost"}, "uri must be a URI without credentials"),
        ({"uri": "http://user:secret@example.com"}, "uri must be a URI without credentials"),
        ({"uri": "http://[oops"}, "uri is not a URI"),
        ({"uri": "http://example.com:port"}, "uri is not a URI"),
        ({"name": 5}, "name"),
        ({"description": "a\x00b"}, "description"),
        ({"capabilities": []}, "capabilities"),
        ({"capabilities": {"skills": [{}]}}, "capabilities.skills.0.name is required"),
        ({"capabilities": {"skills": "research"}}, "capabilities.skills"),
        ({"capabilities": {"protocols": [7]}}, "capabilities.protocols.0"),
        ({"auth": "bearer"}, "auth"),
    ],
)
async def test_a_card_that_is_not_valid_is_refused(client: Client, changes: Json, place: str) -> None:
    answer = await client.post("/agents", {**CARD, **changes})

    assert answer.status_code == 400, answer.text
    assert answer.json["error"].startswith(f"bad request: {place}")
    assert "secret" not in answer.text
    assert await found(client) == []


async def test_a_card_names_its_agent(client: Client) -> None:
    answer = await client.post("/agents", {})

    assert answer.status_code == 400
    assert answer.json["error"] == "bad request: id is required; uri is required; name is required"


async def test_an_update_replaces_the_card_and_keeps_the_status(client: Client, runtime: Runtime) -> None:
    await registered(client)
    await client.post("/agents/research-agent/activate")
    new = card(skills=["writing"], protocols=["MCP"], version="0.2.0")

    answer = await put(client, "/agents/research-agent", new)

    assert answer.status_code == 200, answer.text
    assert answer.json == (await client.get("/agents/research-agent")).json
    assert (answer.json["status"], answer.json["version"], answer.json["card"]) == ("active", "0.2.0", new)
    assert (answer.json["skills"], answer.json["protocols"]) == (["writing"], ["mcp"])
    assert (await found(client, "skill=research"), await found(client, "skill=writing")) == ([], ["research-agent"])
    assert await audited(runtime) == [
        (f"agent_{what}", "agent/research-agent") for what in ("registered", "activated", "updated")
    ]


async def test_an_agent_keeps_its_id(client: Client) -> None:
    await registered(client)

    answer = await put(client, "/agents/research-agent", card("other"))

    assert answer.status_code == 400
    assert "id must be 'research-agent', as in the path" in answer.json["error"]


async def test_a_deleted_agent_is_gone(client: Client, runtime: Runtime) -> None:
    await registered(client)

    answer = await client.request("DELETE", "/agents/research-agent")

    assert (answer.status_code, answer.json) == (200, {"agent_id": "research-agent", "deleted": True})
    assert (await client.get("/agents/research-agent")).status_code == 404
    assert await found(client, "skill=research") == []
    assert (await audited(runtime))[-1] == ("agent_removed", "agent/research-agent")
    await registered(client)


@pytest.mark.parametrize("name", ["nobody", quote("'; DROP TABLE agents; --"), "%25", "a%00b"])
async def test_an_agent_that_is_not_there_is_a_404(client: Client, name: str) -> None:
    paths = ["activate", "deactivate", "pause", "heartbeat"]

    answers = [await client.post(f"/agents/{name}/{what}") for what in paths]
    answers += [await client.get(f"/agents/{name}"), await client.request("DELETE", f"/agents/{name}")]

    assert [answer.status_code for answer in answers] == [404] * 6
    assert (await put(client, "/agents/nobody", card("nobody"))).json["error"] == "not found: agent nobody"


async def test_an_agent_of_another_tenant_is_not_there(client: Client, runtime: Runtime) -> None:
    await registered(client)
    rival = Principal(tenant_id="rival")

    assert await runtime.agents.page(rival) == []
    assert (await runtime.agents.page(Principal()))[0].agent_id == "research-agent"


# Lists


async def test_agents_are_narrowed_by_status_skill_and_protocol(client: Client) -> None:
    await registered(client, card("a", skills=["research", "write"]), card("b", protocols=["mcp", "A2A"]), card("c"))
    await client.post("/agents/a/activate")

    assert await found(client) == ["a", "b", "c"]
    assert await found(client, "status=active") == ["a"]
    assert await found(client, "status=registered") == ["b", "c"]
    assert await found(client, "skill=write") == ["a"]
    assert await found(client, "protocol=mcp") == await found(client, "protocol=MCP") == ["b"]
    assert await found(client, "protocol=a2a&skill=research&status=active") == ["a"]
    assert await found(client, "status=&skill=&protocol=") == ["a", "b", "c"]


async def test_agents_are_searched_by_the_words_of_their_skills(client: Client) -> None:
    await registered(
        client, card("a"), card("b", skills=["Zusammenfassung für Ärzte"]), card("c", skills=["re-search"])
    )

    assert await found(client, "q=deep") == ["a"]
    assert await found(client, f"q={quote('RESEARCH topics')}") == []
    assert await found(client, f"q={quote('topic res')}") == ["a"]
    assert await found(client, f"q={quote('ärzte')}") == ["b"]
    assert await found(client, "q=sea") == ["c"]
    assert (await client.get("/agents", "q=--")).json["error"] == "bad request: q must hold a word to search for"


async def test_a_cursor_leads_through_all_agents(client: Client) -> None:
    await registered(client, *(card(f"agent-{n}") for n in range(5)))

    ids, cursor = [], ""
    while True:
        page = (await client.get("/agents", f"limit=2&skill=research{cursor}")).json
        ids += [agent["agent_id"] for agent in page["agents"]]
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"

    assert ids == [f"agent-{n}" for n in range(5)]


SQL = ["' OR '1'='1", "'; DROP TABLE agents; --", "%", "_", 'x" OR 1=1 --', "research' --", "\\", "1) OR (1=1"]


@pytest.mark.parametrize("sql", SQL)
async def test_sql_in_a_filter_is_only_text(client: Client, sql: str) -> None:
    await registered(client)
    text = quote(sql, safe="")

    for name in ("skill", "protocol"):
        assert await found(client, f"{name}={text}") == []
    assert (await client.get("/agents", f"status={text}")).status_code == 400
    assert (await client.get("/agents", f"cursor={text}")).status_code == 400
    assert (await client.get("/agents", f"limit={text}")).status_code == 400
    searched = await client.get("/agents", f"q={text}")
    assert searched.status_code == 400 or len(searched.json["agents"]) == sql.count("research")
    assert await found(client) == ["research-agent"]


@pytest.mark.parametrize("query", ["status=asleep", "limit=0", "limit=1001", "cursor=x", "skil=x", "skill=a%00b"])
async def test_a_query_that_is_not_valid_is_refused(client: Client, query: str) -> None:
    assert (await client.get("/agents", query)).status_code == 400


# Lifecycle


async def test_an_agent_is_activated_and_deactivated_as_the_contract_prints_it(client: Client) -> None:
    await registered(client)

    up = await client.post("/agents/research-agent/activate")
    down = await client.post("/agents/research-agent/deactivate")

    assert (up.status_code, up.json) == (200, {"agent_id": "research-agent", "status": "active"})
    assert (down.status_code, down.json) == (200, {"agent_id": "research-agent", "status": "deactivated"})


LEGAL = {
    "registered": {"activate", "deactivate"},
    "active": {"activate", "pause", "deactivate"},
    "paused": {"activate", "pause", "deactivate"},
    "deactivated": {"activate", "deactivate"},
}
WAY = {"registered": [], "active": ["activate"], "paused": ["activate", "pause"], "deactivated": ["deactivate"]}


@pytest.mark.parametrize("status", WAY)
@pytest.mark.parametrize("action", ["activate", "pause", "deactivate"])
async def test_only_legal_transitions_happen(client: Client, runtime: Runtime, status: str, action: str) -> None:
    await registered(client)
    for step in WAY[status]:
        await client.post(f"/agents/research-agent/{step}")
    told = await audited(runtime)

    answer = await client.post(f"/agents/research-agent/{action}")

    reached = {"activate": "active", "pause": "paused", "deactivate": "deactivated"}[action]
    if action in LEGAL[status]:
        assert (answer.status_code, answer.json["status"]) == (200, reached)
        assert len(await audited(runtime)) == len(told) + (status != reached)
    else:
        assert answer.status_code == 409
        assert answer.json["error"].startswith(f"conflict: agent research-agent is {status}; it can become {reached}")
        assert (await client.get("/agents/research-agent")).json["status"] == status
        assert await audited(runtime) == told


async def test_many_may_move_an_agent_at_once(client: Client, runtime: Runtime) -> None:
    await registered(client)
    actions = ["activate", "deactivate", "activate"] * 4

    answers = await asyncio.gather(*(client.post(f"/agents/research-agent/{action}") for action in actions))

    assert {answer.status_code for answer in answers} == {200}


async def test_an_agent_that_stops_its_heartbeats_is_unreachable(client: Client, runtime: Runtime) -> None:
    await registered(client)

    beat = await client.post("/agents/research-agent/heartbeat")
    alive = (await client.get("/agents/research-agent")).json
    await asyncio.sleep(0.25)
    gone = (await client.get("/agents")).json["agents"][0]
    await client.post("/agents/research-agent/heartbeat")

    assert (beat.status_code, beat.json) == (200, {"agent_id": "research-agent", "ok": True})
    assert alive["reachable"] is True
    assert (gone["reachable"], gone["status"], gone["last_seen_at"]) == (False, "registered", alive["last_seen_at"])
    assert (await client.get("/agents/research-agent")).json["reachable"] is True
    assert len(await audited(runtime)) == 1, "a heartbeat is no change"


# Discovery

# From the specifications: of April 2025, with `authentication`; and of 0.2.
A2A_0_1 = {
    "name": "Google Maps Agent",
    "description": "Plan routes, remember places, and generate directions",
    "url": "https://maps-agent.google.com",
    "provider": {"organization": "Google", "url": "https://google.com"},
    "version": "1.0.0",
    "authentication": {"schemes": ["OAuth2"], "credentials": "for-private-cards"},
    "defaultInputModes": ["text/plain"],
    "defaultOutputModes": ["text/plain", "application/html"],
    "capabilities": {"streaming": True, "pushNotifications": False},
    "skills": [
        {
            "id": "route-planner",
            "name": "Route planning",
            "description": "Helps plan routing between two locations",
            "tags": ["maps", "routing", "navigation"],
            "examples": ["plan my route from Sunnyvale to Mountain View"],
            "outputModes": ["application/html", "video/mp4"],
        },
        {"id": "custom-map", "name": "My Map", "description": None, "tags": [], "examples": None},
    ],
}
A2A_0_2 = {
    "name": "GeoSpatial Route Planner Agent",
    "description": "Provides advanced route planning.",
    "url": "https://georoute-agent.example.com/a2a/v1",
    "provider": {"organization": "Example Geo Services Inc.", "url": "https://www.examplegeoservices.com"},
    "iconUrl": "https://georoute-agent.example.com/icon.png",
    "version": "1.2.0",
    "documentationUrl": "https://docs.examplegeoservices.com/georoute-agent/api",
    "capabilities": {"streaming": True, "pushNotifications": True, "stateTransitionHistory": False},
    "securitySchemes": {"google": {"type": "openIdConnect", "openIdConnectUrl": "https://accounts.google.com/x"}},
    "security": [{"google": ["openid", "profile", "email"]}],
    "defaultInputModes": ["application/json", "text/plain"],
    "defaultOutputModes": ["application/json", "image/png"],
    "skills": [{"id": "route-planner", "name": "Route planning", "description": "Calculates.", "tags": ["traffic"]}],
    "supportsAuthenticatedExtendedCard": True,
}
A2A_0_3 = a2a_0_3.AgentCard(
    name="Route Planner",
    description="Plans.",
    version="1.3.0",
    protocol_version="0.3.0",
    preferred_transport="JSONRPC",
    url="https://georoute-agent.example.com/a2a/v1",
    additional_interfaces=[a2a_0_3.AgentInterface(url="https://georoute-agent.example.com/grpc", transport="GRPC")],
    capabilities=a2a_0_3.AgentCapabilities(streaming=True),
    skills=[a2a_0_3.AgentSkill(id="route-planner", name="Route planning", description="Plans.", tags=["maps"])],
    default_input_modes=["text/plain"],
    default_output_modes=["text/plain"],
    signatures=[a2a_0_3.AgentCardSignature(protected="eyJhbGciOiJFUzI1NiJ9", signature="QFdkNLNszlGj3z3u0YQGt_T9Lix")],
).model_dump(mode="json", by_alias=True, exclude_none=True)
A2A_1_0 = MessageToDict(
    A2aCard(
        name="Route Planner",
        description="Plans.",
        version="2.0.0",
        supported_interfaces=[
            AgentInterface(url="grpc.example.com:443", protocol_binding="GRPC", protocol_version="1.0"),
            AgentInterface(url="https://agent.example.com/a2a", protocol_binding="JSONRPC", protocol_version="1.0"),
        ],
        capabilities=AgentCapabilities(streaming=True),
        skills=[AgentSkill(id="route-planner", name="Route planning", description="Plans.", tags=["maps"])],
        default_input_modes=["text/plain"],
        default_output_modes=["text/plain"],
    )
)


async def discovered(client: Client, url: str) -> Any:
    return await client.post("/agents/discover", {"url": url})


@pytest.mark.parametrize("known_place", ["agent.json", "agent-card.json"])
@pytest.mark.parametrize(
    ("offered", "uri"),
    [
        (A2A_0_1, "https://maps-agent.google.com"),
        (A2A_0_2, "https://georoute-agent.example.com/a2a/v1"),
        (A2A_0_3, "https://georoute-agent.example.com/a2a/v1"),
        (A2A_1_0, "https://agent.example.com/a2a"),
    ],
    ids=["0.1", "0.2", "0.3", "1.0"],
)
async def test_a_card_of_any_version_of_a2a_is_understood_and_kept_whole(
    client: Client, remote: Peer, known_place: str, offered: Json, uri: str
) -> None:
    remote.pages[f"/.well-known/{known_place}"] = offered

    answer = await discovered(client, remote.url)

    assert answer.status_code == 201, answer.text
    agent = answer.json
    assert agent == (await client.get(f"/agents/{quote(agent['agent_id'])}")).json
    assert (agent["agent_id"], agent["uri"], agent["name"]) == (remote.place, uri, offered["name"])
    assert (agent["card"], agent["protocols"], agent["status"]) == (offered, ["a2a"], "registered")
    assert agent["discovered_from"] == f"{remote.url}/.well-known/{known_place}"
    assert agent["skills"][:2] == ["Route planning", "route-planner"]
    assert await found(client, f"skill={quote('Route planning')}&protocol=a2a") == [remote.place]
    assert await found(client, "skill=route-planner&q=rout") == [remote.place]


async def test_a_card_of_our_own_kind_is_understood_and_kept_whole(client: Client, remote: Peer) -> None:
    offered = {**CARD, "uri": remote.url, "x-more": [1]}
    remote.pages["/.well-known/agent.json"] = offered

    answer = await discovered(client, remote.url)

    assert (answer.status_code, answer.json["agent_id"], answer.json["card"]) == (201, "research-agent", offered)
    assert answer.headers["location"] == "/agents/research-agent"


async def test_the_older_place_comes_first(client: Client, remote: Peer) -> None:
    remote.pages["/.well-known/agent.json"] = A2A_0_2
    remote.pages["/.well-known/agent-card.json"] = A2A_1_0

    answer = await discovered(client, f"{remote.url}/")

    assert answer.json["version"] == "1.2.0"
    assert remote.asked == ["/.well-known/agent.json"]


@pytest.mark.parametrize("place", ["/agents/math/agent-card.json", "/math", "/.well-known/agent-card.json"])
async def test_the_url_may_be_the_cards_own(client: Client, remote: Peer, place: str) -> None:
    remote.pages[place] = A2A_1_0

    answer = await discovered(client, remote.url + place)

    assert (answer.status_code, answer.json["discovered_from"]) == (201, remote.url + place)


async def test_agents_beneath_one_host_are_told_apart(client: Client, remote: Peer) -> None:
    for name in ("math", "maps"):
        remote.pages[f"/{name}/.well-known/agent-card.json"] = {**A2A_1_0, "name": name}
        assert (await discovered(client, f"{remote.url}/{name}")).status_code == 201

    assert await found(client) == [f"{remote.place}:maps", f"{remote.place}:math"]


async def test_discovering_again_updates(client: Client, remote: Peer, runtime: Runtime) -> None:
    remote.pages["/.well-known/agent-card.json"] = A2A_1_0
    first = (await discovered(client, remote.url)).json
    await client.post(f"/agents/{quote(first['agent_id'])}/activate")
    active = (await client.get(f"/agents/{quote(first['agent_id'])}")).json

    same = await discovered(client, remote.url)
    remote.pages["/.well-known/agent-card.json"] = {**A2A_1_0, "version": "2.1.0"}
    new = await discovered(client, remote.url)

    assert (same.status_code, same.json) == (201, active)
    assert (new.status_code, new.json["version"], new.json["status"]) == (201, "2.1.0", "active")
    assert new.json["created_at"] == first["created_at"]
    told = [event_type for event_type, _ in await audited(runtime)]
    assert told == ["agent_registered", "agent_activated", "agent_updated"]


async def test_a_card_cannot_take_over_an_agent_from_elsewhere(client: Client, remote: Peer) -> None:
    await registered(client)
    remote.pages["/.well-known/agent.json"] = {**CARD, "uri": remote.url}

    answer = await discovered(client, remote.url)

    assert answer.status_code == 409
    assert "which is registered from http://localhost:7701" in answer.json["error"]
    assert (await client.get("/agents/research-agent")).json["card"] == CARD


@pytest.mark.parametrize(
    ("page", "why"),
    [
        (None, "agent.json answered 404"),
        (b"<html>not here</html>", "did not answer with JSON"),
        (b"", "did not answer with JSON"),
        (b"\xff\xfe", "did not answer with JSON"),
        (b"[" * 100_000, "did not answer with JSON"),
        (["a", "list"], "it is not an object"),
        ({"hello": "world"}, "it is of no kind that is known here (a2a)"),
        ({"id": "a/b", "uri": "http://x", "name": "X"}, "is not valid: id: must not hold a slash"),
        ({**A2A_0_2, "name": 7}, "is not valid: name: Input should be a valid string"),
        ({**A2A_0_2, "url": "http://user:secret@example.com"}, "is not valid: url"),
        ({**A2A_0_2, "skills": [{"id": 1}]}, "skills.0.name"),
        ({"name": "X", "supportedInterfaces": []}, "supportedInterfaces: must name the agent's URL"),
        ({"name": "a\x00b", "url": "http://x", "skills": []}, "is not valid: name"),
        (b"x" * (2**20 + 1), "more than 1048576 bytes"),
    ],
)
async def test_a_bad_card_is_told_and_is_no_failure_of_ours(client: Client, remote: Peer, page: Any, why: str) -> None:
    remote.pages["/.well-known/agent.json"] = page

    answer = await discovered(client, remote.url)

    assert answer.status_code == 424, answer.text
    assert answer.json["code"] == "remote_failed"
    assert answer.json["error"].startswith("failed dependency: ")
    assert why in answer.json["error"]
    assert "secret" not in answer.text
    assert await found(client) == []


async def test_nobody_listening_is_a_424(client: Client) -> None:
    with peer() as closed:
        url = closed.url

    answer = await discovered(client, url)

    assert answer.status_code == 424
    assert f"{url}/.well-known/agent.json cannot be reached" in answer.json["error"]


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("file:///etc/passwd", "url must begin with http:// or https://"),
        ("example.com", "url must begin with http:// or https://"),
        ("http://", "url must begin with http:// or https://"),
        ("http://[oops", "url is not a URL"),
        ("", "url"),
        ("http://a b/", "url"),
        ("http://user:secret@127.0.0.1/", "holds credentials"),
        ("http://169.254.169.254/latest/meta-data/", "not public (metadata)"),
        ("http://[::ffff:169.254.169.254]/", "not public (metadata)"),
        ("http://10.0.0.1/", "not public (private); outgoing requests reach it only when JAMJET_ALLOW_NETWORKS names"),
        ("http://167772161/", "not public (private)"),
    ],
)
async def test_a_url_that_may_not_be_asked_is_refused(client: Client, url: str, why: str) -> None:
    answer = await discovered(client, url)

    assert answer.status_code == 400, answer.text
    assert why in answer.json["error"]
    assert "secret" not in answer.text


async def test_a_redirect_does_not_lead_inside(client: Client, remote: Peer) -> None:
    remote.pages["/.well-known/agent.json"] = "http://169.254.169.254/latest/meta-data/"

    answer = await discovered(client, remote.url)

    assert (answer.status_code, answer.json["code"]) == (400, "outgoing_refused")


class TestByDefault:
    @pytest.fixture
    def settings(self, tmp_path: Path) -> Settings:
        return Settings(database_url=str(tmp_path / "runtime.db"), shutdown_grace=0, auth="off")

    async def test_this_machine_is_not_asked(self, client: Client, remote: Peer) -> None:
        remote.pages["/.well-known/agent.json"] = A2A_0_2

        answer = await discovered(client, remote.url)

        assert answer.status_code == 400
        assert "(loopback); outgoing requests reach it only when JAMJET_ALLOW_NETWORKS" in answer.json["error"]
        assert remote.asked == []
