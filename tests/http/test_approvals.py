"""/approvals, /executions/{id}/approvals and /executions/{id}/approve"""

from __future__ import annotations

from http_support import APPROVAL, Client, Json


async def paused(client: Client, **nodes: Json) -> str:
    execution_id = await client.started(**(nodes or {"manager-review": APPROVAL}))
    await client.until(execution_id, "WorkflowPaused")
    return execution_id


async def test_a_decision_is_taken_as_the_contract_prints_it(client: Client) -> None:
    execution_id = await paused(client)

    answer = await client.post(
        f"/executions/{execution_id}/approve",
        {
            "decision": "approved",
            "node_id": "manager-review",
            "user_id": "user-42",
            "comment": "Looks good, proceed.",
            "state_patch": {"priority": "high"},
        },
    )

    assert (answer.status_code, answer.json) == (200, {"execution_id": execution_id, "accepted": True})
    view = (await client.get(f"/executions/{execution_id}", "wait=10")).json
    assert (view["status"], view["state"]["priority"]) == ("completed", "high")


async def test_only_the_decision_is_required(client: Client) -> None:
    execution_id = await paused(client)

    answer = await client.post(f"/executions/{execution_id}/approve", {"decision": "rejected"})

    assert answer.status_code == 200
    assert (await client.get(f"/executions/{execution_id}", "wait=10")).json["status"] == "failed"


async def test_a_decision_is_one_of_two(client: Client) -> None:
    answer = await client.post("/executions/exec_1/approve", {"decision": "perhaps"})

    assert answer.status_code == 400
    assert "'approved' or 'rejected'" in answer.json["error"]


async def test_what_is_decided_cannot_be_decided_again(client: Client) -> None:
    execution_id = await paused(client)
    await client.post(f"/executions/{execution_id}/approve", {"decision": "approved"})

    answer = await client.post(f"/executions/{execution_id}/approve", {"decision": "rejected"})

    assert answer.status_code == 409


async def test_what_waits_for_a_person_is_listed(client: Client) -> None:
    execution_id = await paused(client)

    everywhere = (await client.get("/approvals")).json["approvals"]
    here = (await client.get(f"/executions/{execution_id}/approvals")).json["approvals"]

    assert everywhere == here
    assert (here[0]["node_id"], here[0]["description"]) == ("manager-review", "May it go out?")


async def test_a_decided_approval_is_listed_no_more(client: Client) -> None:
    execution_id = await paused(client)

    await client.post(f"/executions/{execution_id}/approve", {"decision": "approved"})

    assert (await client.get("/approvals")).json == {"approvals": [], "next_cursor": None}


async def test_a_cursor_leads_through_all_approvals(client: Client) -> None:
    ids = {await paused(client) for _ in range(3)}

    first = (await client.get("/approvals", "limit=2")).json
    second = (await client.get("/approvals", f"limit=2&cursor={first['next_cursor']}")).json

    found = [one["execution_id"] for one in first["approvals"] + second["approvals"]]
    assert (len(found), set(found)) == (3, ids)
    assert second["next_cursor"] is None


async def test_a_missing_execution_asks_nobody(client: Client) -> None:
    answer = await client.get("/executions/exec_abc123/approvals")

    assert answer.status_code == 404
