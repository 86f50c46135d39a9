"""/tokens, and what a token opens."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from http_support import Client, token_of

from jamjet_auth import api_tokens
from jamjet_kernel.ports import Role, Tenant
from jamjet_kernel.runtime import Runtime
from jamjet_kernel.settings import Settings

INVALID = {"error": "invalid or expired token", "code": "unauthenticated", "details": {}}


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"auth": "on"})


@pytest.fixture
async def operator(client: Client, runtime: Runtime) -> Client:
    return client.with_token(await token_of(runtime, Role.OPERATOR))


def later(**of: int) -> str:
    return (datetime.now(UTC) + timedelta(**of)).isoformat()


async def made(operator: Client, **body: Any) -> dict[str, Any]:
    answer = await operator.post("/tokens", {"name": "ci", "role": "developer", **body})
    assert answer.status_code == 201, answer.text
    media: dict[str, Any] = answer.json
    return media


async def test_a_token_is_made_and_opens_the_door(client: Client, operator: Client) -> None:
    answer = await operator.post("/tokens", {"name": "ci", "role": "developer", "expires_at": later(days=1)})

    token = answer.json
    assert answer.status_code == 201
    assert answer.headers["location"] == f"/tokens/{token['token_id']}"
    assert token.keys() >= {"token_id", "token", "name", "role", "tenant_id", "created_at", "expires_at"}
    assert (token["name"], token["role"], token["tenant_id"]) == ("ci", "developer", "default")
    assert token["token"].startswith("jam_")
    assert (await client.with_token(token["token"]).get("/workflows")).status_code == 200


async def test_the_plain_text_is_answered_once_and_kept_nowhere(operator: Client, runtime: Runtime) -> None:
    token = await made(operator)

    listed = await operator.get("/tokens")
    file = runtime.settings.home_folder / "runtime.db"

    mine = next(each for each in listed.json["tokens"] if each["token_id"] == token["token_id"])
    assert mine.keys() & {"token", "digest", "hash"} == set()
    assert token["token"] not in listed.text
    assert token["token"].encode() not in file.read_bytes() + file.with_name("runtime.db-wal").read_bytes()


async def test_no_two_tokens_are_alike(operator: Client) -> None:
    plain_texts = {(await made(operator))["token"] for _ in range(20)}

    assert len(plain_texts) == 20
    assert {len(text) for text in plain_texts} == {len("jam_") + 43}


async def test_tokens_are_listed_page_by_page(operator: Client) -> None:
    for _ in range(4):
        await made(operator)

    first = (await operator.get("/tokens", "limit=3")).json
    rest = (await operator.get("/tokens", f"limit=9&cursor={first['next_cursor']}")).json

    ids = [token["token_id"] for token in first["tokens"] + rest["tokens"]]
    assert ids == sorted(set(ids))
    assert len(ids) == 6  # those four, this operator's, and the first start's
    assert rest["next_cursor"] is None


async def test_a_revoked_token_is_refused_at_once(client: Client, operator: Client) -> None:
    token = await made(operator)
    developer = client.with_token(token["token"])
    assert (await developer.get("/workflows")).status_code == 200

    revoked = await operator.request("DELETE", f"/tokens/{token['token_id']}")
    refused = await developer.get("/workflows")

    assert (revoked.status_code, revoked.json) == (200, {"token_id": token["token_id"], "revoked": True})
    assert (refused.status_code, refused.json) == (401, INVALID)
    again = await operator.request("DELETE", f"/tokens/{token['token_id']}")
    assert again.json == revoked.json


async def test_a_revocation_by_another_process_is_noticed_within_seconds(
    client: Client, operator: Client, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api_tokens, "FRESH", 200)
    token = await made(operator)
    developer = client.with_token(token["token"])
    await developer.get("/workflows")

    await runtime.storage.tokens.revoke("default", token["token_id"], runtime.world.now())
    await asyncio.sleep(0.25)

    assert (await developer.get("/workflows")).status_code == 401


async def test_a_token_ends_when_it_was_to_end(client: Client, runtime: Runtime) -> None:
    token = await token_of(runtime, Role.VIEWER, expires_at=runtime.world.now() + 150)
    viewer = client.with_token(token)
    assert (await viewer.get("/workflows")).status_code == 200

    await asyncio.sleep(0.2)

    assert (await viewer.get("/workflows")).json == INVALID


async def test_there_is_nothing_to_revoke_under_an_unknown_id(operator: Client) -> None:
    answer = await operator.request("DELETE", "/tokens/tok_nobody")

    assert (answer.status_code, answer.json["error"]) == (404, "not found: token tok_nobody")


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ({"role": "developer"}, "name is required"),
        ({"name": "", "role": "developer"}, "name"),
        ({"name": "ci"}, "role is required"),
        ({"name": "ci", "role": "root"}, "role should be 'operator', 'developer', 'reviewer' or 'viewer'"),
        ({"name": "ci", "role": "viewer", "digest": "00"}, "digest is unknown"),
        ({"name": "ci", "role": "viewer", "expires_at": "2020-01-01T00:00:00Z"}, "must be in the future"),
        ({"name": "ci", "role": "viewer", "expires_at": "2099-01-01T00:00:00"}, "must be a time of RFC 3339"),
        ({"name": "ci", "role": "viewer", "expires_at": "tomorrow"}, "must be a time of RFC 3339"),
        ({"name": "ci", "role": "viewer", "expires_at": 4102444800}, "expires_at"),
        ({"name": "a\0b", "role": "viewer"}, "name holds a control character"),
    ],
)
async def test_a_body_that_is_not_valid_is_refused(operator: Client, body: dict[str, Any], error: str) -> None:
    answer = await operator.post("/tokens", body)

    assert answer.status_code == 400
    assert error in answer.json["error"]


@pytest.mark.parametrize("name", ["'; DROP TABLE tokens; --", "x' OR '1'='1", "naïve 🧡", "%_"])
async def test_a_name_is_only_a_name(operator: Client, name: str) -> None:
    await made(operator, name=name)

    listed = (await operator.get("/tokens")).json["tokens"]

    assert name in [token["name"] for token in listed]


async def test_a_repeated_request_makes_no_second_token(operator: Client) -> None:
    body = {"name": "ci", "role": "viewer"}

    first = await operator.post("/tokens", body, Idempotency_Key="one")
    again = await operator.post("/tokens", body, Idempotency_Key="one")

    assert (first.status_code, again.status_code) == (201, 409)
    assert "plain text" in again.json["error"]
    assert sum(token["name"] == "ci" for token in (await operator.get("/tokens")).json["tokens"]) == 1


# Tenants


async def test_a_default_operator_makes_tokens_for_other_tenants(operator: Client, runtime: Runtime) -> None:
    await runtime.storage.tenants.add(Tenant("acme", "Acme Corp", runtime.world.now()))

    token = await made(operator, role="operator", tenant_id="acme")

    assert token["tenant_id"] == "acme"
    theirs = (await operator.with_token(token["token"]).get("/tokens")).json["tokens"]
    assert [each["token_id"] for each in theirs] == [token["token_id"]]


async def test_no_token_is_made_for_a_tenant_that_is_not_there(operator: Client) -> None:
    answer = await operator.post("/tokens", {"name": "ci", "role": "viewer", "tenant_id": "nobody"})

    assert (answer.status_code, answer.json["error"]) == (404, "not found: tenant nobody")


@pytest.mark.parametrize("tenant_id", ["default", "rival", "nobody"])
async def test_an_operator_of_a_tenant_makes_tokens_for_no_other(
    client: Client, runtime: Runtime, tenant_id: str
) -> None:
    for each in ("acme", "rival"):
        await runtime.storage.tenants.add(Tenant(each, each, runtime.world.now()))
    operator = client.with_token(await token_of(runtime, Role.OPERATOR, "acme"))

    refused = await operator.post("/tokens", {"name": "ci", "role": "viewer", "tenant_id": tenant_id})

    assert refused.status_code == 403
    assert (await made(operator, tenant_id="acme"))["tenant_id"] == "acme"
    assert (await made(operator))["tenant_id"] == "acme"


async def test_an_operator_of_a_tenant_revokes_no_token_of_another(
    client: Client, operator: Client, runtime: Runtime
) -> None:
    await runtime.storage.tenants.add(Tenant("acme", "Acme Corp", runtime.world.now()))
    token = await made(operator)
    stranger = client.with_token(await token_of(runtime, Role.OPERATOR, "acme"))

    answer = await stranger.request("DELETE", f"/tokens/{token['token_id']}")

    assert answer.status_code == 404
    assert (await client.with_token(token["token"]).get("/workflows")).status_code == 200


# Traces


async def test_tokens_are_audited_and_their_plain_text_is_not(operator: Client, runtime: Runtime) -> None:
    token = await made(operator)
    await operator.request("DELETE", f"/tokens/{token['token_id']}")

    records = [sealed.record for sealed in await runtime.storage.audit.chain("default")]
    about = [record for record in records if record.resource == f"token/{token['token_id']}"]

    assert [record.event_type for record in about] == ["token_created", "token_revoked"]
    assert all(record.actor_id.startswith("token:tok_test") and record.request_id for record in about)
    assert not any(token["token"].encode() in record.data for record in records)


async def test_the_last_use_is_written_at_the_end_of_a_minute_and_not_before(
    operator: Client, runtime: Runtime
) -> None:
    for _ in range(3):
        await operator.get("/workflows")
    before = (await operator.get("/tokens")).json["tokens"]

    authenticator = next(each for each in runtime.authenticators if isinstance(each, api_tokens.ApiTokens))
    await authenticator.note_use()
    after = (await operator.get("/tokens")).json["tokens"]

    assert all(token["last_used_at"] is None for token in before)
    assert [token["last_used_at"] is not None for token in after] == [token["created_by"] == "test" for token in after]


async def test_authentication_writes_nothing(
    operator: Client, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    transactions = runtime.storage.tokens._transactions  # type: ignore[attr-defined]  # the one place that all pass

    def counted(run: Callable[..., Any]) -> Callable[..., Any]:
        def call(function: Callable[..., Any], *given: Any, **named: Any) -> Any:
            asked.append(f"{run.__name__} {function.__name__}")
            return run(function, *given, **named)

        return call

    monkeypatch.setattr(transactions, "write", counted(transactions.write))
    monkeypatch.setattr(transactions, "read", counted(transactions.read))
    for _ in range(20):
        assert (await operator.get("/workers")).status_code == 200

    # The alarms forget old receipts now and then, whoever calls.
    assert [each for each in asked if each.startswith("write") and each != "write forget"] == []
    assert asked.count("read by_digest") <= 2
