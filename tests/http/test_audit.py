"""/audit, /audit/verify, /audit/export and /audit/key"""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from falcon.testing import ASGIConductor
from http_support import APPROVAL, WAIT, Client, Json, step, token_of, workflow

from jamjet_kernel import Settings
from jamjet_kernel.core import chain_export
from jamjet_kernel.core.chain import AuditRecord, digest_of, signed_bytes
from jamjet_kernel.errors import PluginError
from jamjet_kernel.http import create_app
from jamjet_kernel.ports import Principal, Role
from jamjet_kernel.runtime import Runtime, open_runtime
from jamjet_kernel.runtime.identity import checker


async def records(client: Client, **filters: Any) -> list[Json]:
    """The oldest first."""
    query = "&".join(f"{name}={value}" for name, value in {"limit": 200, **filters}.items())
    answer = await client.get("/audit", query)
    assert answer.status_code == 200, answer.text
    return list(reversed(answer.json["items"]))


def types(found: list[Json]) -> list[str]:
    return [item["event_type"] for item in found]


async def verified(client: Client, query: str = "") -> Json:
    answer = await client.get("/audit/verify", query)
    assert answer.status_code == 200, answer.text
    report: Json = answer.json
    return report


# What is told


async def test_an_execution_is_told_from_its_start_to_its_end(client: Client, runtime: Runtime) -> None:
    view = await client.ended({"query": "x"})

    found = await records(client, execution_id=view["execution_id"])

    assert types(found) == ["workflow_started", "node_completed", "workflow_completed"]
    assert [item["actor_id"] for item in found] == ["anonymous", f"worker:{runtime.worker_id}", "runtime"]
    assert [item["resource"] for item in found] == [
        "workflow/research-agent@0.1.0",
        "node/search",
        "workflow/research-agent@0.1.0",
    ]
    assert found[0]["request_id"]
    assert found[0]["address"]
    assert found[1]["address"] is None


async def test_records_are_answered_as_the_contract_prints_them(client: Client) -> None:
    view = await client.ended({"query": "x"})

    answer = (await client.get("/audit", f"execution_id={view['execution_id']}&event_type=node_completed")).json

    assert (answer["total"], answer["limit"], answer["offset"]) == (1, 50, 0)
    [item] = answer["items"]
    assert item["id"].startswith("audit_")
    assert item["execution_id"] == view["execution_id"]
    assert item["event_type"] == "node_completed"
    assert item["created_at"].endswith("Z")


async def test_what_people_do_is_told_with_who_they_are(client: Client) -> None:
    execution_id = await client.started(review=APPROVAL, pay=WAIT)
    await client.until(execution_id, "WorkflowPaused")
    body = {"decision": "approved", "comment": "fine", "user_id": "u-1", "state_patch": {"a": 1}}
    await client.post(f"/executions/{execution_id}/approve", body)
    await client.post(f"/executions/{execution_id}/external-event", {"correlation_key": "payment-received"})

    found = {item["event_type"]: item for item in await records(client, execution_id=execution_id)}

    decision = found["approval_received"]
    assert decision["actor_id"] == "anonymous"
    assert decision["data"] | {"sequence": 0} == {
        "sequence": 0,
        "decision": "approved",
        "comment": "fine",
        "user_id": "u-1",
        "changed": ["a"],
    }
    assert found["approval_requested"]["actor_id"] == "runtime"
    assert found["external_event_received"]["data"]["correlation_key"] == "payment-received"
    assert found["workflow_completed"]["actor_id"] == "runtime"


async def test_a_refused_change_is_not_told(client: Client) -> None:
    view = await client.ended({"query": "x"})

    assert (await client.post(f"/executions/{view['execution_id']}/cancel")).status_code == 409

    assert "workflow_cancelled" not in types(await records(client))


async def test_a_registration_is_told_once(client: Client) -> None:
    for _ in range(2):
        await client.registered()

    [told] = await records(client, event_type="workflow_registered")

    assert (told["resource"], told["actor_id"]) == ("workflow/research-agent@0.1.0", "anonymous")


async def test_a_failure_is_told_once_it_is_final(client: Client) -> None:
    view = await client.ended({}, refuse=step("refuse_unless") | {"retry_policy": {"max_attempts": 2}})

    found = await records(client, execution_id=view["execution_id"])

    assert types(found) == ["workflow_started", "node_failed", "workflow_failed"]
    assert "not allowed" in found[1]["data"]["error"]


async def test_who_is_turned_away_is_counted_and_told_together(settings: Settings) -> None:
    on = settings.model_copy(update={"auth": "on"})
    async with open_runtime(on) as runtime, ASGIConductor(create_app(runtime)) as conductor:
        client = Client(conductor, {}, runtime)
        viewer = client.with_token(await token_of(runtime, Role.VIEWER))
        for _ in range(5):
            assert (await client.with_token("jam_wrong").get("/workers")).status_code == 401
            assert (await viewer.post("/workflows", {"ir": workflow()})).status_code == 403
        await runtime.refusals.write()

        found = {item["event_type"]: item for item in await records(viewer)}

    assert found["authentication_failed"]["data"]["count"] == 5
    assert found["access_denied"]["data"]["count"] == 5
    assert found["access_denied"]["data"]["tried"] == "POST /workflows"
    assert found["access_denied"]["actor_id"] != "anonymous"
    assert found["authentication_failed"]["address"]


async def test_many_who_are_turned_away_are_not_many_records(runtime: Runtime, client: Client) -> None:
    for number in range(1500):
        nobody = Principal(address=f"10.0.{number // 256}.{number % 256}")
        runtime.refusals.note("authentication_failed", nobody, tried="GET /workers", reason="no")

    await runtime.refusals.write()

    found, total = await runtime.audit.page(Principal(), event_type="authentication_failed", actor_id="various")
    assert (total, json.loads(found[0].record.data)["count"]) == (1, 500)  # type: ignore[union-attr]
    assert (await client.get("/audit", "event_type=authentication_failed")).json["total"] == 1001


# Looking through


async def test_a_page_leads_to_the_next(client: Client) -> None:
    for _ in range(3):
        await client.ended({"query": "x"})
    whole = await records(client)

    first = (await client.get("/audit", "limit=4")).json
    second = (await client.get("/audit", f"limit=200&cursor={first['next_cursor']}")).json
    skipped = (await client.get("/audit", "limit=200&offset=4")).json

    assert [*first["items"], *second["items"]] == list(reversed(whole))
    assert skipped["items"] == second["items"]
    assert {first["total"], second["total"], skipped["total"]} == {len(whole)}


async def test_records_are_found_by_time(client: Client) -> None:
    await client.ended({"query": "x"})
    last = (await records(client))[-1]["created_at"]

    assert await records(client, since="2999-01-01T00:00:00Z") == []
    assert await records(client, until="2000-01-01T00:00:00%2B01:00") == []
    assert last in [item["created_at"] for item in await records(client, since=last)]
    assert last not in [item["created_at"] for item in await records(client, until=last)]


@pytest.mark.parametrize(
    "query",
    [
        "limit=201",
        "limit=0",
        "offset=-1",
        "since=yesterday",
        "since=2026-01-01T00:00:00",
        "cursor=x",
        "actor_id=%00",
        "who=me",
    ],
)
async def test_a_query_that_does_not_fit_is_refused(client: Client, query: str) -> None:
    assert (await client.get("/audit", query)).status_code == 400


@pytest.mark.parametrize("name", ["execution_id", "actor_id", "event_type"])
async def test_sql_in_a_filter_finds_nothing(client: Client, name: str) -> None:
    await client.ended({"query": "x"})

    assert await records(client, **{name: "' OR '1'='1"}) == []
    assert (await verified(client))["valid"]


# Verification


async def test_an_untouched_log_is_valid(client: Client) -> None:
    await asyncio.gather(*(client.ended({"query": "x"}) for _ in range(5)))

    report = await verified(client)

    assert report["valid"]
    assert report["problems"] == []
    assert report["records"] == report["head"]["sequence"] == len(await records(client))


async def test_an_empty_log_is_valid(client: Client) -> None:
    report = await verified(client)

    assert (report["valid"], report["records"]) == (True, report["head"]["sequence"])


Tamper = Callable[[sqlite3.Connection], Any]


def statement(sql: str) -> Tamper:
    return lambda connection: connection.execute(sql)


def sign_anew(connection: sqlite3.Connection) -> None:
    """All of it made anew, in itself without a fault, with a key of one's own."""
    sign = Ed25519PrivateKey.generate().sign
    columns = "sequence, audit_id, event_type, actor_id, created_at, execution_id, resource, request_id, address, data"
    previous = bytes(32)
    for sequence, *fields in connection.execute(f"SELECT {columns} FROM audit ORDER BY sequence").fetchall():
        record = AuditRecord(*fields[:2], "mallory", *fields[3:])
        digest = digest_of("default", sequence, previous, record)
        signature = sign(signed_bytes(digest))
        connection.execute(
            "UPDATE audit SET actor_id = 'mallory', previous = ?, digest = ?, signature = ? WHERE sequence = ?",
            (previous, digest, signature, sequence),
        )
        previous = digest
    connection.execute("UPDATE audit_chains SET digest = ?, signature = ?", (previous, signature))


def swap(connection: sqlite3.Connection) -> None:
    for sql in (
        "UPDATE audit SET sequence = -1 WHERE sequence = 2",
        "UPDATE audit SET sequence = 2 WHERE sequence = 3",
        "UPDATE audit SET sequence = 3 WHERE sequence = -1",
    ):
        connection.execute(sql)


def cut_with_its_end(connection: sqlite3.Connection) -> None:
    """To an earlier record that was signed: in itself without a fault."""
    connection.execute("DELETE FROM audit WHERE sequence > 2")
    connection.execute(
        "UPDATE audit_chains SET (sequence, digest, signature) = (SELECT sequence, digest, signature FROM audit"
        " ORDER BY sequence DESC LIMIT 1)"
    )


@pytest.mark.parametrize(
    ("tamper", "kind", "sequence"),
    [
        (statement("UPDATE audit SET actor_id = 'mallory' WHERE sequence = 2"), "changed", 2),
        (statement("UPDATE audit SET data = x'7b7d' WHERE sequence = 3"), "changed", 3),
        (statement("UPDATE audit SET data = x'ff' WHERE sequence = 3"), "changed", 3),
        (statement("UPDATE audit SET data = '{}' WHERE sequence = 3"), "changed", 3),
        (statement("UPDATE audit SET created_at = 'then' WHERE sequence = 3"), "changed", 3),
        (statement("UPDATE audit SET digest = 'x', signature = 'y' WHERE sequence = 4"), "forged", 4),
        (statement("UPDATE audit SET tenant_id = 'other' WHERE sequence = 3"), "missing", 3),
        (statement("UPDATE audit SET event_type = '' WHERE sequence = 2"), "removed", 2),
        (statement("UPDATE audit SET signature = zeroblob(64) WHERE sequence = 1"), "forged", 1),
        (statement("DELETE FROM audit WHERE sequence = 2"), "missing", 2),
        (statement("DELETE FROM audit WHERE sequence = 1"), "beginning", 2),
        (statement("DELETE FROM audit WHERE sequence > 2"), "truncated", 3),
        (statement("DELETE FROM audit"), "truncated", 4),
        (statement("DELETE FROM audit_chains"), "end", 4),
        (swap, "changed", 2),
        (sign_anew, "forged", 1),
    ],
)
async def test_what_is_done_to_the_database_is_found(
    client: Client, settings: Settings, tamper: Tamper, kind: str, sequence: int
) -> None:
    await four_records(client)

    tampering(settings, tamper)
    report = await verified(client)

    assert (await client.get("/audit")).status_code == (await client.get("/audit/export")).status_code == 200
    assert not report["valid"]
    assert (sequence, kind) in {(problem["sequence"], problem["kind"]) for problem in report["problems"]}


async def test_a_log_that_was_cut_with_its_end_is_found_by_a_head_that_was_kept(
    client: Client, settings: Settings
) -> None:
    await four_records(client)
    head = (await verified(client))["head"]
    kept = f"expected_sequence={head['sequence']}&expected_digest={head['digest']}"
    assert (await verified(client, kept))["valid"]

    tampering(settings, cut_with_its_end)

    assert (await verified(client))["valid"]
    report = await verified(client, kept)
    assert [(problem["sequence"], problem["kind"]) for problem in report["problems"]] == [(4, "truncated")]
    other = await verified(client, f"expected_sequence=1&expected_digest={'0' * 64}")
    assert [problem["kind"] for problem in other["problems"]] == ["rewritten"]


async def test_a_head_is_given_whole(client: Client) -> None:
    for query in ("expected_sequence=1", f"expected_digest={'0' * 64}", "expected_sequence=1&expected_digest=zz"):
        assert (await client.get("/audit/verify", query)).status_code == 400


async def four_records(client: Client) -> None:
    await client.ended({"query": "x"})
    assert types(await records(client)) == [
        "workflow_registered",
        "workflow_started",
        "node_completed",
        "workflow_completed",
    ]


def tampering(settings: Settings, tamper: Tamper) -> None:
    with closing(sqlite3.connect(settings.database_url)) as connection, connection:
        tamper(connection)


# Export and key


async def test_an_export_verifies_without_the_runtime(client: Client, tmp_path: Path) -> None:
    await client.ended({"query": "x"})

    answer = await client.get("/audit/export")
    key = (await client.get("/audit/key")).json
    header, count, faults = chain_export.verify_export(answer.content.splitlines(), checker)

    assert answer.headers["content-type"] == "application/jsonl"
    assert (header.tenant_id, header.public_key, count, faults) == ("default", key["public_key"], 4, [])
    assert key["algorithm"] == "Ed25519"


async def test_an_export_says_what_was_done(client: Client) -> None:
    await client.ended({"query": "x"})

    lines = [json.loads(line) for line in (await client.get("/audit/export")).content.splitlines()]

    assert types(lines[1:]) == types(await records(client))


async def test_records_stay_valid_when_the_runtime_gets_another_key(settings: Settings) -> None:
    async with open_runtime(settings) as runtime:
        await runtime.register(Principal(), workflow())
        earlier = runtime.audit.public_key
    (settings.home_folder / "signing.key").unlink()

    async with open_runtime(settings) as runtime:
        assert (await runtime.audit.verify(Principal())).faults
    async with open_runtime(settings.model_copy(update={"audit_keys": earlier})) as runtime:
        assert not (await runtime.audit.verify(Principal())).faults
    with pytest.raises(PluginError, match="JAMJET_AUDIT_KEYS"):
        async with open_runtime(settings.model_copy(update={"audit_keys": earlier.replace("M", "?")})):
            pass


# Retention


async def test_what_is_older_than_the_setting_goes(runtime: Runtime, client: Client) -> None:
    await client.ended({"query": "x"})
    runtime.retention = type(runtime.retention)(runtime.storage, Later(runtime.world, days=31), 30)

    await runtime.retention.look()

    assert types(await records(client)) == ["audit_forgotten"]
    assert (await verified(client))["valid"]


async def test_what_is_older_than_its_workflow_says_goes(runtime: Runtime, client: Client) -> None:
    kept = await client.ended({"query": "x"})
    ir = workflow("short-lived") | {"data_policy": {"retention_days": 7}}
    assert (await client.post("/workflows", {"ir": ir})).status_code == 201
    started = await client.post("/executions", {"workflow_id": "short-lived", "input": {"query": "y"}})
    execution_id = started.json["execution_id"]
    await client.get(f"/executions/{execution_id}", "wait=10")
    runtime.retention = type(runtime.retention)(runtime.storage, Later(runtime.world, days=8), None)

    await runtime.retention.look()

    assert await records(client, execution_id=execution_id) == []
    assert len(await records(client, execution_id=kept["execution_id"])) == 3
    report = await verified(client)
    assert report["valid"], report


class Later:
    def __init__(self, world: Any, *, days: int) -> None:
        self._world = world
        self._days = days

    def now(self) -> int:
        now: int = self._world.now()
        return now + self._days * 86_400_000

    def __getattr__(self, name: str) -> Any:
        return getattr(self._world, name)
