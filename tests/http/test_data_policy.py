"""What a workflow's `data_policy` keeps out of the database and the audit log."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import Any

from http_support import APPROVAL, WAIT, Client, Json, step, workflow

from jamjet_kernel import Settings

SECRETS = ("anna@example.com", "078-05-1120", "4111 1111 1111 1111", "Anna Smith")
POLICY = {"pii_fields": ["full_name"], "pii_detectors": ["email", "ssn", "credit_card"]}


async def registered(client: Client, policy: Json, **nodes: Json) -> Any:
    return await client.post("/workflows", {"ir": workflow("private", **nodes) | {"data_policy": policy}})


async def started(client: Client, policy: Json, input: Json, **nodes: Json) -> str:
    answer = await registered(client, policy, **nodes)
    assert answer.status_code == 201, answer.text
    answer = await client.post("/executions", {"workflow_id": "private", "input": input})
    assert answer.status_code == 201, answer.text
    return str(answer.json["execution_id"])


def stored(settings: Settings) -> bytes:
    """Every value of every table."""
    with closing(sqlite3.connect(settings.database_url)) as connection:
        names = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        rows = [row for name in names for row in connection.execute(f"SELECT * FROM {name}")]
    return b"\n".join(value if isinstance(value, bytes) else str(value).encode() for row in rows for value in row)


async def test_nothing_personal_is_stored_anywhere(client: Client, settings: Settings) -> None:
    mail, ssn, card, name = SECRETS
    nodes = {"ask": APPROVAL, "pay": WAIT, "search": step("search"), "refuse": step("refuse_unless")}
    given = {"query": f"mail {mail}", "person": {"full_name": name}, "note": f"{ssn} pays by {card}"}
    execution_id = await started(client, POLICY, given, **nodes)
    path = f"/executions/{execution_id}"
    await client.until(execution_id, "WorkflowPaused")
    decision = {"decision": "approved", "comment": f"ask {mail}", "user_id": mail, "state_patch": {"full_name": name}}
    assert (await client.post(f"{path}/approve", decision)).status_code == 200
    payload = {"card": card, "from": [{"full_name": name}]}
    await client.post(f"{path}/external-event", {"correlation_key": "payment-received", "payload": payload})
    await client.get(path, "wait=10")
    await client.post(f"{path}/fork", {"sequence": 3, "state_patch": {"x": mail, "full_name": name}})

    kept = stored(settings)

    assert execution_id.encode() in kept
    assert [secret for secret in SECRETS if secret.encode() in kept] == []
    assert (await client.get(path)).json["state"]["query"] == "mail ***"


async def test_the_texts_of_errors_are_redacted(client: Client, settings: Settings) -> None:
    execution_id = await started(client, POLICY, {"message": SECRETS[0]}, fail=step("fail_with"))

    view = (await client.get(f"/executions/{execution_id}", "wait=10")).json

    assert view["status"] == "failed"
    assert "***" in view["error"]["message"]
    assert SECRETS[0].encode() not in stored(settings)


async def test_a_workflow_without_a_policy_keeps_what_it_is_given(client: Client) -> None:
    view = await client.ended({"query": "anna@example.com"})

    assert view["state"]["answer"] == "ANNA@EXAMPLE.COM"


async def test_outputs_are_kept_only_where_the_policy_says_so(client: Client) -> None:
    execution_id = await started(client, {"retain_outputs": False}, {"query": "x"}, search=step("search"))

    view = (await client.get(f"/executions/{execution_id}", "wait=10")).json
    events = (await client.get(f"/executions/{execution_id}/events")).json["events"]

    [completed] = [event["data"] for event in events if event["kind"] == "NodeCompleted"]
    assert completed["output"] is None
    assert view["state"]["answer"] == "X"


async def test_a_detector_that_is_not_there_is_a_problem(client: Client) -> None:
    answer = await registered(client, {"pii_detectors": ["email", "mood"]})

    assert answer.status_code == 400
    [problem] = answer.json["details"]["problems"]
    assert problem["place"] == "ir.data_policy.pii_detectors"
    assert "'mood'; there are email, phone, credit_card, ssn, ip_address" in problem["message"]


async def test_what_is_not_applied_is_warned_of(client: Client) -> None:
    assert "warnings" not in (await registered(client, POLICY)).json

    answer = await client.post("/workflows", {"ir": workflow("other") | {"data_policy": {"retain_prompts": False}}})

    assert "retain_prompts" in answer.json["warnings"][0]
