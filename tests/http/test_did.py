"""/.well-known: the DID document, and the cards that its services lead to"""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import quote, urlsplit

import base58
import pytest
from falcon.testing import ASGIConductor
from http_peers import Peer, peer
from http_support import Client, Json
from pydid import DIDDocument, deserialize_document
from pydid.did import DID

from jamjet_kernel import Settings
from jamjet_kernel.http import create_app
from jamjet_kernel.ports import AgentStatus, Principal
from jamjet_kernel.runtime import Runtime, open_runtime
from jamjet_kernel.runtime.cards import Card
from jamjet_protocols.did import did_document, did_of

CARD: Json = {"id": "research-agent", "uri": "http://localhost:7701", "name": "Research Agent"}


@pytest.fixture
def remote() -> Iterator[Peer]:
    with peer() as server:
        yield server


async def document(client: Client) -> Json:
    answer = await client.get("/.well-known/did.json")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    found: Json = answer.json
    valid(found)
    return found


def valid(found: Json) -> DIDDocument:
    """As a DID library reads it."""
    parsed = deserialize_document(found, strict=True)
    assert isinstance(parsed, DIDDocument)
    assert DID.is_valid(found["id"])
    for method in (*found["authentication"], *found["assertionMethod"]):
        assert parsed.dereference(method).id == found["verificationMethod"][0]["id"]
    return parsed


async def active(client: Client, *cards: Json) -> None:
    for card in cards:
        assert (await client.post("/agents", card)).status_code == 201
        assert (await client.post(f"/agents/{quote(card['id'], safe='')}/activate")).status_code == 200


async def test_the_document_names_the_runtime_and_its_key(client: Client, runtime: Runtime) -> None:
    found = await document(client)

    assert found["@context"][0] == "https://www.w3.org/ns/did/v1"
    assert (found["id"], found["service"]) == ("did:web:localhost%3A7700", [])
    (method,) = found["verificationMethod"]
    assert (method["type"], method["controller"]) == ("Multikey", found["id"])
    assert base58.b58decode(method["publicKeyMultibase"].removeprefix("z")) == b"\xed\x01" + runtime.identity.public_key
    assert found["authentication"] == found["assertionMethod"] == [method["id"]] == [f"{found['id']}#key-1"]


async def test_each_active_agent_has_a_service_whose_endpoint_answers(client: Client) -> None:
    await active(client, CARD, {**CARD, "id": "localhost:9000:math & more"})
    await client.post("/agents", {**CARD, "id": "idle"})

    found = await document(client)

    assert [service["id"] for service in found["service"]] == [
        "did:web:localhost%3A7700#localhost%3A9000%3Amath%20%26%20more",
        "did:web:localhost%3A7700#research-agent",
    ]
    for service in found["service"]:
        answer = await client.get(urlsplit(service["serviceEndpoint"]).path)
        assert (answer.status_code, answer.json["name"]) == (200, "Research Agent")


@pytest.mark.parametrize("action", ["pause", "deactivate"])
async def test_an_agent_that_is_not_active_is_not_published(client: Client, action: str) -> None:
    await active(client, CARD)
    assert len((await document(client))["service"]) == 1

    await client.post(f"/agents/research-agent/{action}")

    assert (await document(client))["service"] == []
    assert (await client.get("/.well-known/agents/research-agent/agent-card.json")).status_code == 404


async def test_a_deleted_agent_is_not_published(client: Client) -> None:
    await active(client, CARD)
    assert len((await document(client))["service"]) == 1

    await client.request("DELETE", "/agents/research-agent")

    assert (await document(client))["service"] == []


async def test_agents_of_other_tenants_are_not_published(client: Client, runtime: Runtime) -> None:
    rival = Principal(tenant_id="rival")
    await runtime.agents.register(rival, Card.model_validate(CARD))
    await runtime.agents.move(rival, "research-agent", AgentStatus.ACTIVE)

    assert (await document(client))["service"] == []
    assert (await client.get("/.well-known/agents/research-agent/agent-card.json")).status_code == 404


async def test_a_published_card_holds_no_credentials(client: Client) -> None:
    secret = {"type": "bearer_token", "token": "secret"}
    await active(client, {**CARD, "auth": secret, "authentication": {"schemes": ["Basic"], "credentials": "secret"}})

    answer = await client.get("/.well-known/agents/research-agent/agent-card.json")

    assert answer.json == {**CARD, "auth": {"type": "bearer_token"}, "authentication": {"schemes": ["Basic"]}}


async def test_another_runtime_discovers_what_is_published(client: Client, remote: Peer) -> None:
    await active(client, CARD)
    (service,) = (await document(client))["service"]
    path = urlsplit(service["serviceEndpoint"]).path
    remote.pages[path] = (await client.get(path)).json

    await client.request("DELETE", "/agents/research-agent")
    answer = await client.post("/agents/discover", {"url": f"{remote.url}{path}"})

    assert (answer.status_code, answer.json["card"]) == (201, CARD)


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"allow_networks": ("loopback",)})


async def test_a_path_in_the_public_url_is_part_of_the_name(settings: Settings) -> None:
    settings = settings.model_copy(update={"public_url": "https://example.com/runtimes/one/"})
    async with open_runtime(settings) as runtime, ASGIConductor(create_app(runtime)) as conductor:
        found = (await conductor.simulate_get("/did.json", host="example.com")).json

    assert found["id"] == "did:web:example.com:runtimes:one"
    valid(found)


@pytest.mark.parametrize(
    ("url", "did"),
    [
        ("http://127.0.0.1:7700", "did:web:localhost%3A7700"),
        ("http://[::1]:7700/", "did:web:localhost%3A7700"),
        ("https://example.com", "did:web:example.com"),
        ("https://Example.com:8443", "did:web:example.com%3A8443"),
        ("https://example.com/a/b", "did:web:example.com:a:b"),
        ("https://example.com/~anna/x%20y", "did:web:example.com:%7Eanna:x%20y"),
        ("https://bücher.example", "did:web:xn--bcher-kva.example"),
        ("http://192.0.2.7:7700", "did:web:192.0.2.7%3A7700"),
    ],
)
def test_the_name_follows_from_the_url(url: str, did: str) -> None:
    assert did_of(url) == did
    valid(did_document(url, b"k" * 32, {"a~b/c#d?é": "https://example.com/"}))
