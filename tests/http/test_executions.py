"""/executions"""

from __future__ import annotations

import re

import pytest
from http_support import APPROVAL, Client, step

TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


async def test_an_execution_is_started_as_the_contract_prints_it(client: Client) -> None:
    await client.registered()

    answer = await client.post(
        "/executions",
        {
            "workflow_id": "research-agent",
            "workflow_version": "0.1.0",
            "input": {"query": "Latest AI agent frameworks?"},
        },
    )

    assert answer.status_code == 201
    assert list(answer.json) == ["execution_id"]
    assert answer.json["execution_id"].startswith("exec_")
    assert answer.headers["location"] == f"/executions/{answer.json['execution_id']}"


async def test_an_execution_is_started_with_a_priority(client: Client) -> None:
    workflow_id = await client.registered()

    urgent = await client.post("/executions", {"workflow_id": workflow_id, "priority": 7})
    refused = await client.post("/executions", {"workflow_id": workflow_id, "priority": 1001})

    assert (await client.get(f"/executions/{urgent.json['execution_id']}")).json["priority"] == 7
    assert refused.status_code == 400
    assert "priority" in refused.json["error"]


async def test_an_execution_is_shown_with_its_state(client: Client) -> None:
    view = await client.ended({"query": "frameworks?"}, search=step("search"))

    assert view["status"] == "completed"
    assert (view["workflow_id"], view["workflow_version"]) == ("research-agent", "0.1.0")
    assert view["state"] == {"query": "frameworks?", "answer": "FRAMEWORKS?"}
    assert view["input"] == {"query": "frameworks?"}
    assert (view["steps_executed"], view["error"], view["parent"], view["forked_from"]) == (1, None, None, None)
    assert view["nodes"]["search"] == {"status": "completed", "attempt": 1}
    assert TIMESTAMP.fullmatch(view["created_at"])
    assert TIMESTAMP.fullmatch(view["completed_at"])


async def test_a_running_execution_has_no_end(client: Client) -> None:
    execution_id = await client.started({"gate": "a"}, hold=step("wait_for_gate"))

    view = (await client.get(f"/executions/{execution_id}")).json

    assert (view["status"], view["completed_at"]) == ("running", None)


async def test_a_failed_execution_says_why(client: Client) -> None:
    view = await client.ended(refuse=step("refuse_unless"))

    assert view["status"] == "failed"
    assert "not allowed" in view["error"]["message"]
    assert view["nodes"]["refuse"]["status"] == "failed"


async def test_a_missing_execution_is_not_found(client: Client) -> None:
    answer = await client.get("/executions/exec_abc123")

    assert answer.status_code == 404
    assert answer.json == {"error": "not found: execution exec_abc123", "code": "not_found", "details": {}}


async def test_a_missing_workflow_cannot_be_started(client: Client) -> None:
    answer = await client.post("/executions", {"workflow_id": "nope"})

    assert (answer.status_code, answer.json["error"]) == (404, "not found: workflow nope")


async def test_waiting_answers_when_the_execution_ends(client: Client) -> None:
    execution_id = await client.started({"query": "x"}, search=step("search"))

    view = (await client.get(f"/executions/{execution_id}", "wait=30")).json

    assert view["status"] == "completed"


async def test_waiting_answers_after_the_time(client: Client) -> None:
    execution_id = await client.started({"gate": "b"}, hold=step("wait_for_gate"))

    view = (await client.get(f"/executions/{execution_id}", "wait=0.01")).json

    assert view["status"] == "running"


@pytest.mark.parametrize("wait", ["-1", "61", "nan", "soon"])
async def test_a_wait_is_between_0_and_60_seconds(client: Client, wait: str) -> None:
    answer = await client.get("/executions/exec_1", f"wait={wait}")

    assert answer.status_code == 400
    assert answer.json["details"]["problems"][0]["place"] == "wait"


async def test_executions_are_listed_the_newest_first(client: Client) -> None:
    ids = [await client.started({"query": str(n)}) for n in range(3)]

    listed = (await client.get("/executions", "status=&limit=&offset=")).json

    assert [one["execution_id"] for one in listed["executions"]] == ids[::-1]
    assert set(listed["executions"][0]) >= {"execution_id", "workflow_id", "status", "created_at", "completed_at"}


async def test_a_list_can_be_filtered(client: Client) -> None:
    waiting = await client.started(review=APPROVAL)
    await client.until(waiting, "WorkflowPaused")

    found = (await client.get("/executions", "status=paused&workflow_id=research-agent")).json["executions"]
    others = (await client.get("/executions", "status=completed")).json["executions"]

    assert [one["execution_id"] for one in found] == [waiting]
    assert others == []


async def test_limit_and_offset_cut_the_list(client: Client) -> None:
    ids = [await client.started({"query": str(n)}) for n in range(4)]

    listed = (await client.get("/executions", "limit=2&offset=1")).json

    assert [one["execution_id"] for one in listed["executions"]] == [ids[2], ids[1]]


async def test_a_cursor_leads_through_all_executions(client: Client) -> None:
    ids = [await client.started({"query": str(n)}) for n in range(5)]

    found, query = [], "limit=2"
    while query:
        listed = (await client.get("/executions", query)).json
        found += [one["execution_id"] for one in listed["executions"]]
        query = f"limit=2&cursor={listed['next_cursor']}" if listed["next_cursor"] else ""

    assert found == ids[::-1]


@pytest.mark.parametrize("cursor", ["x", "!", "bnVsbA", "WzEsMl0", "Wy0xLCJ4Il0", "é"])
async def test_a_cursor_that_was_tampered_with_is_refused(client: Client, cursor: str) -> None:
    answer = await client.get("/executions", f"cursor={cursor}")

    assert answer.status_code == 400
    assert answer.json["details"]["problems"][0]["place"] == "cursor"


async def test_an_execution_is_cancelled_as_the_contract_prints_it(client: Client) -> None:
    execution_id = await client.started({"gate": "c"}, hold=step("wait_for_gate"))

    answer = await client.post(f"/executions/{execution_id}/cancel")

    assert (answer.status_code, answer.json) == (200, {"execution_id": execution_id, "status": "cancelled"})
    assert (await client.get(f"/executions/{execution_id}")).json["status"] == "cancelled"


async def test_what_has_ended_cannot_be_cancelled(client: Client) -> None:
    view = await client.ended({"query": "x"})

    answer = await client.post(f"/executions/{view['execution_id']}/cancel", {"reason": "too late"})

    assert (answer.status_code, answer.json["code"]) == (409, "invalid_transition")


async def test_an_execution_is_paused_and_resumed(client: Client) -> None:
    execution_id = await client.started({"gate": "d"}, hold=step("wait_for_gate"), search=step("search"))

    paused = await client.post(f"/executions/{execution_id}/pause", {})
    status = (await client.get(f"/executions/{execution_id}")).json["status"]
    resumed = await client.post(f"/executions/{execution_id}/resume", {})

    assert paused.json == {"execution_id": execution_id, "status": "paused"}
    assert status == "paused"
    assert resumed.json == {"execution_id": execution_id, "status": "running"}


async def test_a_failed_execution_goes_on_after_a_retry(client: Client) -> None:
    view = await client.ended(refuse=step("refuse_unless"))
    path = f"/executions/{view['execution_id']}"

    answer = await client.post(f"{path}/retry")

    assert answer.json == {"execution_id": view["execution_id"], "status": "running"}
    assert (await client.get(path, "wait=10")).json["status"] == "failed"


async def test_a_fork_goes_on_with_an_edited_state(client: Client) -> None:
    view = await client.ended(refuse=step("refuse_unless"))
    path = f"/executions/{view['execution_id']}"

    answer = await client.post(f"{path}/fork", {"sequence": 2, "state_patch": {"allowed": True}})

    assert answer.status_code == 201
    origin = {"execution_id": view["execution_id"], "sequence": 2}
    assert answer.json["forked_from"] == origin
    forked = (await client.get(f"/executions/{answer.json['execution_id']}", "wait=10")).json
    assert (forked["status"], forked["forked_from"]) == ("completed", origin)
    assert forked["state"] == {"allowed": True, "done": True}


async def test_a_fork_from_a_missing_event_is_refused(client: Client) -> None:
    view = await client.ended({"query": "x"})

    answer = await client.post(f"/executions/{view['execution_id']}/fork", {"sequence": 999})

    assert answer.status_code == 400
    assert answer.json["details"]["problems"][0]["place"] == "sequence"


@pytest.mark.parametrize("verb", ["cancel", "pause", "resume", "retry", "fork"])
async def test_a_missing_execution_cannot_be_changed(client: Client, verb: str) -> None:
    answer = await client.post(f"/executions/exec_abc123/{verb}", {})

    assert (answer.status_code, answer.json["error"]) == (404, "not found: execution exec_abc123")


async def test_the_items_of_a_map_are_only_counted(client: Client) -> None:
    fan = {"type": "map", "items": "state.queries", "body": step("search")}

    view = await client.ended({"queries": [{"query": "a"}, {"query": "b"}]}, fan=fan)

    assert view["status"] == "completed", view
    assert list(view["nodes"]) == ["fan"]
