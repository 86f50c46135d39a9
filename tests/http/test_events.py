"""/executions/{id}/events and /executions/{id}/external-event"""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from http_support import WAIT, Client, step

STREAM = "text/event-stream"


async def test_the_timeline_has_the_contracts_fields(client: Client) -> None:
    view = await client.ended({"query": "x"}, search=step("search"))

    answer = await client.get(f"/executions/{view['execution_id']}/events")

    events = answer.json["events"]
    assert [event["sequence"] for event in events] == list(range(1, len(events) + 1))
    assert [(event["kind"], event["node_id"]) for event in events] == [
        ("WorkflowStarted", None),
        ("NodeScheduled", "search"),
        ("NodeCompleted", "search"),
        ("WorkflowCompleted", None),
    ]
    assert all(re.fullmatch(r".*T\d\d:\d\d:\d\d\.\d{3}Z", event["created_at"]) for event in events)
    assert events[2]["data"]["output"] == {"answer": "X"}
    assert not {"kind", "at", "node_id"} & set(events[2]["data"])


async def test_a_cursor_leads_through_all_events(client: Client) -> None:
    view = await client.ended({"query": "x"})
    path = f"/executions/{view['execution_id']}/events"

    first = (await client.get(path, "limit=3")).json
    second = (await client.get(path, f"limit=3&cursor={first['next_cursor']}")).json

    assert [event["sequence"] for event in first["events"] + second["events"]] == [1, 2, 3, 4]
    assert second["next_cursor"] is None


async def test_events_can_begin_after_a_sequence(client: Client) -> None:
    view = await client.ended({"query": "x"})

    answer = await client.get(f"/executions/{view['execution_id']}/events", "after=2")

    assert [event["sequence"] for event in answer.json["events"]] == [3, 4]


async def test_a_stream_has_each_event_once_and_ends_with_the_last(client: Client) -> None:
    execution_id = await client.started({"query": "x"}, search=step("search"))
    path = f"/executions/{execution_id}/events"

    events = sent(await client.stream(path))

    page = (await client.get(path)).json["events"]
    assert [json.loads(event["data"]) for event in events] == page
    assert [event["event"] for event in events] == [event["kind"] for event in page]
    assert [event["id"] for event in events] == ["1", "2", "3", "4"]


async def test_a_stream_goes_on_after_the_last_event_that_was_seen(client: Client) -> None:
    view = await client.ended({"query": "x"})
    path = f"/executions/{view['execution_id']}/events"

    resumed = sent(await client.stream(path, "after=1", Last_Event_ID="3"))

    assert [event["id"] for event in resumed] == ["4"]


async def test_a_stream_follows_what_happens_while_it_is_read(client: Client) -> None:
    execution_id = await client.started(pay=WAIT)
    path = f"/executions/{execution_id}/events"
    headers = {"Accept": STREAM}

    text = ""
    async with client.conductor.simulate_get_stream(path, headers=headers, host="localhost") as stream:
        while "WorkflowPaused" not in text:
            text += (await stream.stream.read()).decode()
        await client.post(f"/executions/{execution_id}/external-event", {"correlation_key": "payment-received"})
        while "WorkflowCompleted" not in text:
            text += (await stream.stream.read()).decode()

    ids = [int(event["id"]) for event in sent(text)]
    assert ids == list(range(1, len(ids) + 1))


async def test_a_client_that_has_seen_all_is_told_to_stop(client: Client) -> None:
    view = await client.ended({"query": "x"})

    answer = await client.get(f"/executions/{view['execution_id']}/events", Accept=STREAM, Last_Event_ID="4")

    assert (answer.status_code, answer.text) == (204, "")


@pytest.mark.parametrize("last", ["x", "-1", "1.5", "9" * 40])
async def test_a_last_event_id_that_is_no_sequence_is_refused(client: Client, last: str) -> None:
    view = await client.ended({"query": "x"})

    answer = await client.get(f"/executions/{view['execution_id']}/events", Accept=STREAM, Last_Event_ID=last)

    assert (answer.status_code, answer.json["details"]["problems"][0]["place"]) == (400, "Last-Event-ID")


async def test_a_stream_has_no_pages(client: Client) -> None:
    answer = await client.get("/executions/exec_1/events", "limit=3", Accept=STREAM)

    assert (answer.status_code, answer.json["details"]["problems"][0]["place"]) == (400, "limit")


@pytest.mark.parametrize("accept", ["application/json", STREAM])
async def test_a_missing_execution_has_no_events(client: Client, accept: str) -> None:
    answer = await client.get("/executions/exec_abc123/events", Accept=accept)

    assert (answer.status_code, answer.json["error"]) == (404, "not found: execution exec_abc123")


async def test_an_external_event_is_taken_as_the_contract_prints_it(client: Client) -> None:
    execution_id = await client.started(pay=WAIT)
    path = f"/executions/{execution_id}"

    answer = await client.post(
        f"{path}/external-event",
        {"correlation_key": "payment-received", "payload": {"amount": 500, "currency": "USD"}},
    )

    assert (answer.status_code, answer.json) == (200, {"execution_id": execution_id, "accepted": True})
    view = (await client.get(path, "wait=10")).json
    assert (view["status"], view["state"]) == ("completed", {"amount": 500, "currency": "USD"})


async def test_an_external_event_needs_its_key(client: Client) -> None:
    answer = await client.post("/executions/exec_1/external-event", {"payload": 1})

    assert (answer.status_code, answer.json["error"]) == (400, "bad request: correlation_key is required")


def sent(text: str) -> list[dict[str, Any]]:
    blocks = [dict(re.findall(r"^(\w+): (.*)$", block, re.MULTILINE)) for block in text.split("\n\n")]
    return [block for block in blocks if "data" in block]
