"""/dead-letters"""

from __future__ import annotations

import base64

import pytest
from http_support import Client, Json, step

REFUSE = step("refuse_unless")


async def failed(client: Client, **nodes: Json) -> str:
    view = await client.ended(**(nodes or {"refuse": REFUSE}))
    assert view["status"] == "failed"
    return str(view["execution_id"])


async def letters(client: Client, query: str = "") -> list[Json]:
    found: list[Json] = (await client.get("/dead-letters", query)).json["dead_letters"]
    return found


async def test_what_failed_for_good_is_listed_and_shown(client: Client) -> None:
    execution_id = await failed(client)

    (letter,) = await letters(client)

    assert {name: letter[name] for name in ("execution_id", "node_id", "workflow_id", "queue_type", "attempts")} == {
        "execution_id": execution_id,
        "node_id": "refuse",
        "workflow_id": "research-agent",
        "queue_type": "general",
        "attempts": 1,
    }
    assert (letter["error"], letter["error_class"]) == ("ValueError: not allowed", "custom")
    assert (await client.get(f"/dead-letters/{letter['id']}")).json == letter


async def test_what_is_requeued_goes_on_and_is_listed_no_more(client: Client) -> None:
    execution_id = await failed(client)
    (letter,) = await letters(client)

    answer = await client.post(f"/dead-letters/{letter['id']}/requeue")

    assert (answer.status_code, answer.json) == (200, {"execution_id": execution_id, "status": "running"})
    view = (await client.get(f"/executions/{execution_id}", "wait=10")).json
    assert view["status"] == "failed"
    (again,) = await letters(client)
    assert (again["id"], again["failed_at"] > letter["failed_at"]) == (letter["id"], True)


async def test_a_requeue_that_comes_twice_is_answered_alike(client: Client) -> None:
    execution_id = await failed(client, hold={**step("wait_for_gate"), "input_mapping": {"gat": "1"}})
    (letter,) = await letters(client)

    answers = [await client.post(f"/dead-letters/{letter['id']}/requeue", Idempotency_Key="k") for _ in range(2)]

    assert [answer.status_code for answer in answers] == [200, 200]
    view = (await client.get(f"/executions/{execution_id}/events")).json
    assert [event["kind"] for event in view["events"]].count("WorkflowRetried") == 1


async def test_what_goes_on_already_cannot_be_requeued(client: Client) -> None:
    hold = {**step("refuse_unless"), "input_mapping": {"allowed": "{{ state.allowed }}"}}
    execution_id = await failed(client, refuse=hold)
    (letter,) = await letters(client)
    await client.post(f"/executions/{execution_id}/retry")
    await client.get(f"/executions/{execution_id}", "wait=10")
    (again,) = await letters(client)

    await client.post(f"/dead-letters/{again['id']}/requeue")
    answer = await client.post(f"/dead-letters/{'dead_' + 'x' * 8}/requeue")

    assert letter["id"] == again["id"]
    assert answer.status_code == 404


async def test_the_list_is_by_queue_and_page(client: Client) -> None:
    for _ in range(2):
        await failed(client)
    await client.post("/workflows", {"ir": {**workflow_in("model")}})

    first = (await client.get("/dead-letters", "limit=1")).json
    second = (await client.get("/dead-letters", f"limit=1&cursor={first['next_cursor']}")).json

    assert second["next_cursor"] is None
    assert first["dead_letters"][0]["id"] != second["dead_letters"][0]["id"]
    assert len(await letters(client, "queue=general")) == 2
    assert await letters(client, "queue=model") == []


def workflow_in(queue: str) -> Json:
    return {
        "workflow_id": "other",
        "version": "0.1.0",
        "nodes": {"a": {**REFUSE, "queue": queue}},
        "edges": [{"from": "a", "to": "end"}],
    }


async def test_what_an_error_route_takes_care_of_is_none(client: Client) -> None:
    nodes = {"refuse": {**REFUSE, "on_error": "search"}, "search": {**step("search"), "input_mapping": {"query": "x"}}}

    assert (await client.ended(**nodes))["status"] == "completed"

    assert await letters(client) == []


async def test_what_a_policy_forbids_never_came_to_an_attempt(client: Client) -> None:
    tool = {"type": "tool", "fn": "http_steps:search", "policy": {"blocked_tools": ["*"]}}

    await failed(client, search=tool)

    (letter,) = await letters(client)
    assert letter["attempts"] == 0
    assert "blocks the tool" in letter["error"]


@pytest.mark.parametrize(
    "letter_id",
    [
        "dead_",
        "nothing",
        "dead_ä",
        "dead_" + base64.urlsafe_b64encode(b"exec_1").decode(),
        "dead_" + base64.urlsafe_b64encode(b"exec_1\na\x00").decode(),
        "dead_" + base64.urlsafe_b64encode(b"exec_1\nnode").decode(),
        "dead_" + base64.urlsafe_b64encode(b"\xff\xfe").decode(),
    ],
)
async def test_a_letter_that_is_not_there_is_not_found(client: Client, letter_id: str) -> None:
    assert (await client.get(f"/dead-letters/{letter_id}")).status_code == 404
    assert (await client.post(f"/dead-letters/{letter_id}/requeue")).status_code == 404
