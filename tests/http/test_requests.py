"""What a request may say, and what becomes of one that says something else."""

from __future__ import annotations

import pytest
from http_support import Client, step

START = {"workflow_id": "research-agent", "input": {"query": "x"}}


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"{", "byte 1"),
        (b'{"workflow_id": "a",}', "byte 20"),
        (b'{"workflow_id": "a"} x', "trailing characters"),
        (b'{"input": {"n": NaN}}', "byte 16"),
        (b'{"input": {"n": Infinity}}', "byte 16"),
        (b'{"input": {"n": 1e999}}', "out of range"),
        (b'{"workflow_id": "\xff"}', "invalid UTF-8 (byte 17)"),
        (b'{"workflow_id": "\\ud800"}', "byte"),
        (b"[" * 9000, "deeper than 128 levels"),
        (b'{"input": ' + b'{"a":' * 200 + b"1" + b"}" * 201, "deeper than 128 levels"),
        (b"[1]", "must be a JSON object, not an array"),
        (b"null", "must be a JSON object, not null"),
        (b'"text"', "must be a JSON object, not a string"),
        (b"7", "must be a JSON object, not a number"),
    ],
)
async def test_a_body_that_is_no_json_object_is_refused(client: Client, body: bytes, why: str) -> None:
    answer = await client.post("/executions", body)

    assert answer.status_code == 400
    assert answer.json["error"].startswith("bad request: the body")
    assert why in answer.json["error"]


async def test_the_last_of_two_equal_keys_counts(client: Client) -> None:
    await client.registered()

    answer = await client.post("/executions", b'{"workflow_id": "nope", "workflow_id": "research-agent"}')

    assert answer.status_code == 201


async def test_all_problems_of_a_body_are_told_at_once(client: Client) -> None:
    answer = await client.post("/executions", {"workflow_version": 1, "input": [], "inputs": {}})

    assert answer.status_code == 400
    problems = {problem["place"]: problem["message"] for problem in answer.json["details"]["problems"]}
    assert set(problems) == {"workflow_id", "workflow_version", "input", "inputs"}
    assert problems["workflow_id"] == "is required"
    assert problems["inputs"] == "is unknown; known: workflow_id, workflow_version, input, priority"


@pytest.mark.parametrize("workflow_id", ["", "a\0b", "a\nb", "x" * 300])
async def test_a_name_that_cannot_be_one_is_refused(client: Client, workflow_id: str) -> None:
    answer = await client.post("/executions", {"workflow_id": workflow_id})

    assert (answer.status_code, answer.json["details"]["problems"][0]["place"]) == (400, "workflow_id")


async def test_a_body_that_is_too_large_is_refused(client: Client) -> None:
    answer = await client.post("/executions", b" " * 10_001)

    assert (answer.status_code, answer.json["code"]) == (413, "content_too_large")
    assert "10000 bytes" in answer.json["error"]


@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/x-www-form-urlencoded", "application/json; charset=latin1", ""]
)
async def test_a_body_that_is_not_said_to_be_json_is_refused(client: Client, content_type: str) -> None:
    answer = await client.post("/executions", START, Content_Type=content_type)

    assert (answer.status_code, answer.json["code"]) == (415, "unsupported_media_type")


async def test_a_charset_of_utf_8_is_fine(client: Client) -> None:
    await client.registered()

    answer = await client.post("/executions", START, Content_Type='Application/JSON; charset="UTF-8"')

    assert answer.status_code == 201


async def test_an_unknown_parameter_is_named_with_those_that_are_known(client: Client) -> None:
    answer = await client.get("/executions", "stauts=failed")

    assert answer.status_code == 400
    assert answer.json["error"] == ("bad request: stauts is unknown; known: limit, cursor, status, workflow_id, offset")


@pytest.mark.parametrize(
    ("path", "query"),
    [
        ("/health", "x=1"),
        ("/workers", "limit=1"),
        ("/openapi.json", "x=1"),
        ("/docs", "x"),
        ("/workflows/a/1.0.0", "x=1"),
        ("/executions/exec_1", "await=1"),
        ("/executions", "limit=0"),
        ("/executions", "limit=1001"),
        ("/executions", "limit=many"),
        ("/executions", "offset=-1"),
        ("/executions", "offset=99999999999999999999"),
        ("/executions", "status=done"),
        ("/executions", "workflow_id=%00"),
        ("/executions", "workflow_id=%ff"),
        ("/executions", "limit=1&limit=2"),
        ("/executions", "&".join(f"p{n}=1" for n in range(200))),
        ("/executions/exec_1/events", "limit=1001"),
        ("/executions/exec_1/events", "after=x"),
        ("/executions/exec_1/events", "after=1&cursor=WzFd"),
        ("/approvals", "limit=0"),
    ],
)
async def test_a_query_that_is_not_understood_is_refused(client: Client, path: str, query: str) -> None:
    answer = await client.get(path, query)

    assert answer.status_code == 400
    assert answer.json["error"].startswith("bad request: ")


async def test_a_post_takes_no_query(client: Client) -> None:
    answer = await client.request("POST", "/executions", query="dry_run=1", json=START)

    assert (answer.status_code, answer.json["details"]["problems"][0]["place"]) == (400, "dry_run")


async def test_the_same_key_and_body_have_one_effect_and_the_same_answer(client: Client) -> None:
    await client.registered()

    first = await client.post("/executions", START, Idempotency_Key="order-1")
    again = await client.post("/executions", START, Idempotency_Key="order-1")

    assert (again.status_code, again.json) == (201, first.json)
    assert len((await client.get("/executions")).json["executions"]) == 1


async def test_the_same_key_with_another_body_is_a_conflict(client: Client) -> None:
    await client.registered()
    await client.post("/executions", START, Idempotency_Key="order-1")

    answer = await client.post("/executions", {**START, "input": {"query": "y"}}, Idempotency_Key="order-1")

    assert (answer.status_code, answer.json["code"]) == (409, "idempotency_key_reused")


async def test_the_same_key_for_another_path_is_a_conflict(client: Client) -> None:
    first = await client.started({"gate": "k"}, hold=step("wait_for_gate"))
    second = await client.started({"gate": "k"}, hold=step("wait_for_gate"))
    await client.post(f"/executions/{first}/pause", Idempotency_Key="once")

    answer = await client.post(f"/executions/{second}/pause", Idempotency_Key="once")

    assert (answer.status_code, answer.json["code"]) == (409, "idempotency_key_reused")


async def test_each_kind_of_change_can_be_repeated_under_its_key(client: Client) -> None:
    view = await client.ended(refuse=step("refuse_unless"))
    path = f"/executions/{view['execution_id']}/fork"

    first = await client.post(path, {"state_patch": {"allowed": True}}, Idempotency_Key="fork-1")
    again = await client.post(path, {"state_patch": {"allowed": True}}, Idempotency_Key="fork-1")

    assert (again.status_code, again.json) == (201, first.json)


@pytest.mark.parametrize("key", ["", "a b", "é", "x" * 256])
async def test_a_key_is_visible_ascii(client: Client, key: str) -> None:
    answer = await client.post("/executions", START, Idempotency_Key=key)

    assert (answer.status_code, answer.json["details"]["problems"][0]["place"]) == (400, "Idempotency-Key")
