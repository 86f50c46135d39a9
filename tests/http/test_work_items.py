"""POST /work-items/…: what remote workers speak."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from falcon.testing import ASGIConductor
from http_callers import calling
from http_support import WAIT, Client, Json, step

from jamjet_kernel.core.events import NodeCompleted
from jamjet_kernel.http import create_app
from jamjet_kernel.http.requests import HANGS_UP
from jamjet_kernel.runtime import Runtime, open_runtime
from jamjet_kernel.runtime.remote import ItemId
from jamjet_kernel.settings import Settings

RETRY = {"max_attempts": 2, "backoff": "fixed", "initial_delay": 0}


def remote(queue: str = "python_tool", function: str = "search", **more: Any) -> Json:
    return {**step(function), "queue": queue, **more}


async def claim(client: Client, *queues: str, worker_id: str = "w1", **more: Any) -> Json:
    body = {"worker_id": worker_id, "queue_types": list(queues or ("python_tool",)), **more}
    answer = await client.post("/work-items/claim", body)
    assert answer.status_code == 200, answer.text
    claimed: Json = answer.json
    return claimed


async def item_of(client: Client, *queues: str, **more: Any) -> Json:
    claimed = await claim(client, *queues, **{"wait": 5, **more})
    assert claimed["claimed"], claimed
    item: Json = claimed["work_item"]
    return item


async def say(client: Client, item: Json, what: str, **body: Any) -> Any:
    return await client.post(f"/work-items/{item['id']}/{what}", {"lease_fence": item["lease_fence"], **body})


async def log_of(client: Client, execution_id: str) -> list[Json]:
    events: list[Json] = (await client.get(f"/executions/{execution_id}/events")).json["events"]
    return events


async def kinds_of(client: Client, execution_id: str) -> list[str]:
    return [event["kind"] for event in await log_of(client, execution_id)]


async def end_of(client: Client, execution_id: str) -> Json:
    view: Json = (await client.get(f"/executions/{execution_id}", "wait=10")).json
    return view


# The wire


async def test_work_is_claimed_kept_and_completed(client: Client) -> None:
    execution_id = await client.started({"query": "cats"}, search=remote())

    item = await item_of(client)
    renewed = await say(client, item, "heartbeat", worker_id="w1")
    result = {"output": {"answer": "CATS"}, "state_patch": {"answer": "CATS"}, "duration_ms": 12}
    completed = await say(client, item, "complete", **result)

    assert (item["execution_id"], item["node_id"], item["queue_type"]) == (execution_id, "search", "python_tool")
    assert (item["attempt"], item["payload"]["input"]) == (1, {"query": "cats"})
    assert (renewed.json["renewed"], renewed.json["work_item_id"]) == (True, item["id"])
    assert completed.json == {"completed": True, "work_item_id": item["id"]}
    view = await end_of(client, execution_id)
    assert (view["status"], view["state"]) == ("completed", {"query": "cats", "answer": "CATS"})


async def test_the_payload_says_all_that_it_takes_to_call(client: Client) -> None:
    node = remote(node_timeout_secs=30, input_mapping={"query": "{{ state.topic }}"})
    execution_id = await client.started({"topic": "dogs", "other": 1}, search=node)

    payload = (await item_of(client))["payload"]

    config = {"module": "http_steps", "function": "search", "isolation": "thread", "resources": {}}
    assert payload == {
        "kind": "python_fn",
        "config": config,
        "input": {"query": "dogs"},
        "idempotency_key": f"{execution_id}:search:0",
        "timeout_secs": 30.0,
        "workflow_id": "research-agent",
        "workflow_version": "0.1.0",
    }


async def test_where_nothing_is_to_do_nothing_is_claimed(client: Client) -> None:
    assert await claim(client) == {"claimed": False}
    assert await claim(client, wait=0.05) == {"claimed": False}


async def test_only_the_queues_that_were_named_are_served(client: Client) -> None:
    await client.started(search=remote("privileged"))

    assert not (await claim(client, "general", "tool"))["claimed"]
    assert (await claim(client, "tool", "privileged"))["claimed"]
    assert not (await claim(client, "tool", "privileged"))["claimed"]


async def test_several_are_claimed_at_once_where_that_is_asked_for(client: Client) -> None:
    started = [await client.started({"n": n}, search=remote()) for n in range(3)]

    claimed = await claim(client, max=2)

    assert [item["execution_id"] for item in claimed["work_items"]] == started[:2]
    assert claimed["work_item"] == claimed["work_items"][0]
    assert [item["execution_id"] for item in (await claim(client, max=9))["work_items"]] == started[2:]


@pytest.mark.parametrize(
    ("wrong", "place"),
    [
        ({"worker_id": ""}, "worker_id"),
        ({"worker_id": "worker_" + "0" * 32}, "worker_id"),
        ({"queue_types": []}, "queue_types"),
        ({"queue_types": ["a\x00b"]}, "queue_types.0"),
        ({"max": 0}, "max"),
        ({"max": 101}, "max"),
        ({"wait": -1}, "wait"),
        ({"wait": 61}, "wait"),
        ({"lease": 3}, "lease"),
    ],
)
async def test_a_claim_that_makes_no_sense_is_refused(client: Client, wrong: Json, place: str) -> None:
    answer = await client.post("/work-items/claim", {"worker_id": "w1", "queue_types": ["tool"], **wrong})

    assert answer.status_code == 400
    assert answer.json["details"]["problems"][0]["place"] == place


async def test_whose_item_it_is_may_be_said_and_must_be_right(client: Client) -> None:
    execution_id = await client.started(search=remote())
    item = await item_of(client)

    wrong = await say(client, item, "complete", output=1, execution_id="exec_other", node_id="other")
    right = await say(client, item, "complete", output=1, execution_id=execution_id, node_id="search")

    places = [problem["place"] for problem in wrong.json["details"]["problems"]]
    assert (wrong.status_code, places) == (400, ["execution_id", "node_id"])
    assert right.status_code == 200


@pytest.mark.parametrize(
    "item_id",
    ["1", "work_", "work_YQ", "work_ä", "work_ZXhlY18xCmEKMQ", "work_ZXhlY18xCmEKOTk5OTk5OTk5OTk5OTk5OTk5OTk"],
)
async def test_an_item_that_there_never_was_is_not_found(client: Client, item_id: str) -> None:
    answer = await client.post(f"/work-items/{item_id}/complete", {"lease_fence": 1})

    assert (answer.status_code, answer.json["code"]) == (404, "not_found")


# Long polls


@pytest.fixture
async def patient(settings: Settings) -> AsyncIterator[Client]:
    """A runtime that looks for work only when it is told of some."""
    async with serving(settings, poll_seconds=600) as client:
        yield client


@asynccontextmanager
async def serving(settings: Settings, **changes: Any) -> AsyncIterator[Client]:
    changed = settings.model_copy(update=changes)
    async with open_runtime(changed) as runtime, ASGIConductor(create_app(runtime)) as conductor:
        document = await conductor.simulate_get("/openapi.json", host="localhost")
        yield Client(conductor, document.json, runtime)


async def waiting_claims(client: Client, count: int) -> list[asyncio.Task[Json]]:
    """Of that many workers, in order."""
    waiting = []
    for number in range(count):
        waiting.append(asyncio.create_task(claim(client, worker_id=f"w{number}", wait=30)))
        while len(client.runtime.remote.claims) <= number:
            await asyncio.sleep(0.001)
    await asyncio.sleep(0.05)
    return waiting


async def test_waiting_workers_are_served_at_once_in_the_order_in_which_they_came(patient: Client) -> None:
    waiting = await waiting_claims(patient, 5)

    started = [await patient.started(search=remote()) for _ in range(5)]

    async with asyncio.timeout(10):
        claimed = await asyncio.gather(*waiting)
    assert [one["work_item"]["execution_id"] for one in claimed] == started


async def test_news_of_one_item_costs_two_statements_however_many_wait(
    patient: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting = await waiting_claims(patient, 30)
    work = patient.runtime.storage.work
    ask, asked = work.claim, []

    async def counted(worker_id: str, *rest: Any, **more: Any) -> Any:
        asked.append(worker_id)
        return await ask(worker_id, *rest, **more)

    monkeypatch.setattr(work, "claim", counted)
    await patient.started(search=remote())
    done, rest = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    await asyncio.sleep(0.1)

    assert asked == ["w0", "w1"]
    assert (len(done), len(rest)) == (1, 29)
    for task in rest:
        task.cancel()
    await asyncio.gather(*rest, return_exceptions=True)


async def test_a_queue_that_nobody_serves_is_told_at_registration(client: Client) -> None:
    ir = {"workflow_id": "w", "version": "1.0.0", "nodes": {"a": remote("gpu")}, "edges": [{"from": "a", "to": "end"}]}

    alone = (await client.post("/workflows", {"ir": ir})).json
    await claim(client, "gpu")
    served = (await client.post("/workflows", {"ir": ir})).json
    named_empty = ir | {"version": "1.1.0", "nodes": {"a": remote("")}}
    general = (await client.post("/workflows", {"ir": named_empty})).json

    assert alone["warnings"] == ["nodes.a.queue: nobody serves 'gpu' just now; the node waits for a worker that does"]
    assert "warnings" not in served
    assert general == {"workflow_id": "w", "version": "1.1.0"}


async def test_a_retry_wakes_who_waits_when_it_is_due(client: Client) -> None:
    node = remote(retry_policy={**RETRY, "initial_delay": 0.2})
    await client.started(search=node)
    first = await item_of(client)
    failed = await say(client, first, "fail", error="not yet")

    async with asyncio.timeout(2):
        second = await item_of(client, wait=20)

    assert failed.json["retryable"] is True
    assert (second["attempt"], second["id"] == first["id"]) == (2, False)


async def test_who_hangs_up_is_handed_nothing(client: Client, runtime: Runtime) -> None:
    """As uvicorn tells it: the client's connection is gone while the claim waits."""
    events: asyncio.Queue[Json] = asyncio.Queue()
    body = json.dumps({"worker_id": "w1", "queue_types": ["python_tool"], "wait": 30}).encode()
    events.put_nowait({"type": "http.request", "body": body, "more_body": False})
    headers = [(b"content-type", b"application/json"), (b"host", b"localhost")]
    headers.append((b"content-length", str(len(body)).encode()))
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "scheme": "http",
        "path": "/work-items/claim", "raw_path": b"/work-items/claim", "query_string": b"", "headers": headers,
        "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 7700), HANGS_UP: events.get,
    }  # fmt: skip
    sent: list[Json] = []

    async def send(event: Json) -> None:
        sent.append(event)

    async with asyncio.timeout(5):
        hung = asyncio.create_task(create_app(runtime)(scope, events.get, send))
        await asyncio.sleep(0.1)
        events.put_nowait({"type": "http.disconnect"})
        await hung
    await client.started(search=remote())

    assert (await claim(client, worker_id="w2"))["claimed"]


# Leases


async def test_the_fence_of_another_claim_is_refused(client: Client) -> None:
    execution_id = await client.started(search=remote())
    item = await item_of(client)
    stale = {**item, "lease_fence": item["lease_fence"] + 1}

    answers = [
        await say(client, stale, "heartbeat", worker_id="w1"),
        await say(client, item, "heartbeat", worker_id="w2"),
        await say(client, stale, "complete", output={"answer": "stale"}),
        await say(client, stale, "fail", error="stale"),
        await say(client, stale, "release"),
        await say(client, stale, "progress", data=1),
        await say(client, {**item, "lease_fence": 0}, "complete"),
    ]

    assert {(answer.status_code, answer.json["code"]) for answer in answers} == {(409, "lease_lost")}
    assert await kinds_of(client, execution_id) == ["WorkflowStarted", "NodeScheduled", "NodeStarted"]


async def test_a_result_is_taken_once_and_its_repetition_answered_alike(client: Client) -> None:
    execution_id = await client.started(search=remote())
    item = await item_of(client)

    answers = [await say(client, item, "complete", output={"answer": n}) for n in range(3)]
    other = await say(client, item, "fail", error="too late")

    assert {answer.status_code for answer in answers} == {200}
    assert (other.status_code, other.json["code"]) == (409, "lease_lost")
    assert (await end_of(client, execution_id))["state"] == {"answer": 0}
    assert (await kinds_of(client, execution_id)).count("NodeCompleted") == 1


async def test_a_failure_is_repeated_alike_too(client: Client) -> None:
    execution_id = await client.started(search=remote(retry_policy=RETRY))
    item = await item_of(client)

    answers = [await say(client, item, "fail", error="no luck") for _ in range(2)]

    assert [answer.json for answer in answers] == [{"failed": True, "work_item_id": item["id"], "retryable": True}] * 2
    assert (await kinds_of(client, execution_id)).count("NodeFailed") == 1


async def test_a_worker_that_knows_of_no_fences_is_heard_while_it_is_the_only_one(client: Client) -> None:
    await client.started(search=remote())
    first = await item_of(client)
    assert (await client.post(f"/work-items/{first['id']}/heartbeat", {"worker_id": "w1"})).status_code == 200
    assert (await client.post(f"/work-items/{first['id']}/complete", {"output": 1})).status_code == 200


@pytest.fixture
async def hasty(settings: Settings) -> AsyncIterator[Client]:
    """A runtime whose leases end soon."""
    async with serving(settings, lease_seconds=0.6) as client:
        yield client


async def test_silent_workers_lose_their_work_to_those_who_wait(hasty: Client) -> None:
    await hasty.started(search=remote())
    first = await item_of(hasty)

    second = await item_of(hasty, worker_id="w2")

    assert (second["id"], second["attempt"]) == (first["id"], 1)
    assert second["lease_fence"] > first["lease_fence"]
    late = await say(hasty, first, "complete", output={"answer": "late"})
    unfenced = await hasty.post(f"/work-items/{first['id']}/complete", {"output": {"answer": "late"}})
    assert [answer.json["code"] for answer in (late, unfenced)] == ["lease_lost"] * 2
    assert (await say(hasty, second, "complete", output={"answer": "mine"})).status_code == 200


async def test_a_heartbeat_keeps_the_work(hasty: Client) -> None:
    await hasty.started(search=remote())
    item = await item_of(hasty)

    for _ in range(10):
        await asyncio.sleep(0.1)
        assert (await say(hasty, item, "heartbeat", worker_id="w1")).status_code == 200

    assert not (await claim(hasty, worker_id="w2"))["claimed"]
    assert (await say(hasty, item, "complete", output=1)).status_code == 200


async def test_the_interval_of_heartbeats_is_the_workflows_to_say(client: Client) -> None:
    ir = {"workflow_id": "slow", "version": "1.0.0", "nodes": {"a": remote()}, "edges": [{"from": "a", "to": "end"}]}
    registered = await client.post("/workflows", {"ir": ir | {"timeouts": {"heartbeat_interval": 40}}})
    await client.post("/executions", {"workflow_id": "slow"})

    item = await item_of(client)

    assert "heartbeat" not in registered.text
    assert item["lease_seconds"] == 120
    assert (await say(client, item, "heartbeat", worker_id="w1")).json["lease_seconds"] == 120


async def test_work_that_kills_its_workers_fails_in_the_end(hasty: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jamjet_kernel.runtime.calls.MOST_LOSSES", 1)
    execution_id = await hasty.started(search=remote())
    await item_of(hasty)

    assert not (await claim(hasty, wait=1))["claimed"]

    view = await end_of(hasty, execution_id)
    assert view["status"] == "failed"
    assert "1 workers died with it" in view["error"]["message"]


async def test_what_is_given_back_costs_no_attempt(client: Client) -> None:
    execution_id = await client.started(search=remote())
    first = await item_of(client)

    released = await say(client, first, "release", reason="w1 stops")
    second = await item_of(client, worker_id="w2")

    assert released.json == {"released": True, "work_item_id": first["id"]}
    assert (second["attempt"], second["node_id"]) == (1, "search")
    assert (await say(client, first, "complete", output=1)).status_code == 409
    parked = next(event for event in await log_of(client, execution_id) if event["kind"] == "NodeParked")
    assert parked["data"]["reason"] == "w1 stops"


async def test_what_another_side_refuses_for_now_is_claimed_later(client: Client) -> None:
    await client.started(search=remote())

    await say(client, await item_of(client), "release", retry_after=0.3, reason="429")

    assert not (await claim(client))["claimed"]
    assert (await item_of(client, wait=20))["attempt"] == 1


# What becomes of the execution


async def test_a_cancelled_execution_is_told_at_the_next_heartbeat(client: Client) -> None:
    execution_id = await client.started(search=remote())
    item = await item_of(client)
    await client.post(f"/executions/{execution_id}/cancel")

    answers = [
        await say(client, item, "heartbeat", worker_id="w1"),
        await say(client, item, "complete", output=1),
    ]

    assert [(answer.status_code, answer.json["code"]) for answer in answers] == [(409, "lease_lost")] * 2
    assert not (await claim(client))["claimed"]


async def test_a_paused_execution_hands_out_nothing_and_goes_on_later(client: Client) -> None:
    execution_id = await client.started(search=remote())
    await client.post(f"/executions/{execution_id}/pause")
    assert not (await claim(client, wait=0.1))["claimed"]
    assert (await kinds_of(client, execution_id))[-1] == "NodeHeld"

    await client.post(f"/executions/{execution_id}/resume")

    assert (await item_of(client))["execution_id"] == execution_id


async def test_who_does_it_is_in_the_log(client: Client) -> None:
    execution_id = await client.started(search=remote())

    await say(client, await item_of(client, worker_id="gpu-1"), "progress", data={"done": 0.5})

    events = {event["kind"]: event["data"] for event in await log_of(client, execution_id)}
    assert (events["NodeStarted"]["worker_id"], events["NodeStarted"]["attempt"]) == ("gpu-1", 1)
    assert events["NodeProgressed"]["data"] == {"done": 0.5}


async def test_who_did_it_is_audited(client: Client) -> None:
    execution_id = await client.started(search=remote())
    await say(client, await item_of(client, worker_id="gpu-1"), "complete", output=1)

    audited = (await client.get("/audit", f"execution_id={execution_id}&event_type=node_completed")).json["items"]

    assert [record["actor_id"] for record in audited] == ["worker:gpu-1"]


async def test_what_a_model_used_is_counted(client: Client) -> None:
    execution_id = await client.started(search=remote())
    used = {"input_tokens": 100, "output_tokens": 50, "gen_ai_system": "anthropic", "gen_ai_model": "claude"}

    await say(client, await item_of(client), "complete", output=1, finish_reason="stop", cost_usd=0.25, **used)

    completed = next(event for event in await log_of(client, execution_id) if event["kind"] == "NodeCompleted")
    usage = {"input_tokens": 100, "output_tokens": 50, "cost_usd": 0.25}
    assert completed["data"]["usage"] == {**usage, "model": "claude", "system": "anthropic", "finish_reason": "stop"}


@pytest.mark.parametrize(
    ("error", "message", "error_class"),
    [
        ("boom", "boom", "custom"),
        ({"message": "slow", "error_class": "timeout", "details": {"host": "a"}}, "slow", "timeout"),
    ],
)
async def test_a_failure_is_told_as_a_text_or_an_object(
    client: Client, error: Any, message: str, error_class: str
) -> None:
    execution_id = await client.started(search=remote())

    failed = await say(client, await item_of(client), "fail", error=error, retryable=False)

    assert failed.json["retryable"] is False
    shown = (await end_of(client, execution_id))["error"]
    assert (shown["message"], shown["error_class"]) == (message, error_class)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        ({"message": "x", "error_class": "strange"}, "error.error_class should be 'timeout', 'rate_limit'"),
        ({"message": "x", "more": 1}, "error.more is unknown; known: message, error_class, details"),
        (7, "error should be a text or an object"),
    ],
)
async def test_a_failure_that_is_told_otherwise_is_refused(client: Client, error: Any, told: str) -> None:
    await client.started(search=remote())
    item = await item_of(client)

    answer = await say(client, item, "fail", error=error)

    assert answer.status_code == 400
    assert told in answer.json["error"]


async def test_a_result_that_does_not_fit_the_state_schema_fails_the_node(client: Client) -> None:
    ir = {
        "workflow_id": "typed", "version": "1.0.0", "state_schema": {"answer": "str?"},
        "nodes": {"a": remote()}, "edges": [{"from": "a", "to": "end"}],
    }  # fmt: skip
    await client.post("/workflows", {"ir": ir})
    execution_id = (await client.post("/executions", {"workflow_id": "typed"})).json["execution_id"]

    item = await item_of(client)
    answers = [await say(client, item, "complete", output={"answer": 7}) for _ in range(2)]

    view = await end_of(client, execution_id)
    assert view["status"] == "failed"
    assert "does not fit the state schema" in view["error"]["message"]
    for answer in answers:  # the first time, and where that answer was lost
        assert (answer.status_code, answer.json["code"]) == (400, "invalid")
        assert answer.json["error"].endswith("; the attempt has failed")


async def test_a_result_that_cannot_be_taken_in_fails_the_attempt(
    client: Client, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    execution_id = await client.started(search=remote())
    item = await item_of(client)
    record = runtime.record

    async def choosy(tenant_id: str, execution_id: str, event: Any, **more: Any) -> None:
        if isinstance(event, NodeCompleted):
            raise RecursionError("too deep")
        await record(tenant_id, execution_id, event, **more)

    monkeypatch.setattr(runtime, "record", choosy)

    answer = await say(client, item, "complete", output={"answer": 1})

    view = await end_of(client, execution_id)
    assert (answer.status_code, view["status"]) == (400, "failed")
    assert view["error"]["message"] == "its result cannot be taken in: RecursionError: too deep"


async def test_an_attempt_that_takes_too_long_ends_without_its_worker(client: Client) -> None:
    execution_id = await client.started(search=remote(node_timeout_secs=0.3, retry_policy=RETRY))
    first = await item_of(client)
    for _ in range(2):  # a worker that goes on and on
        await say(client, first, "heartbeat", worker_id="w1")

    second = await item_of(client, worker_id="w2")

    assert second["attempt"] == 2
    assert (await say(client, first, "heartbeat", worker_id="w1")).json["code"] == "lease_lost"
    assert (await say(client, second, "complete", output=1)).status_code == 200
    view = await end_of(client, execution_id)
    assert view["status"] == "completed"
    failed = next(event for event in await log_of(client, execution_id) if event["kind"] == "NodeFailed")
    assert failed["data"]["error"]["error_class"] == "timeout"


async def test_an_attempt_that_is_in_time_leaves_no_timer(client: Client, runtime: Runtime) -> None:
    nodes = {"a": remote(node_timeout_secs=30), "paid": WAIT}
    execution_id = await client.started(**nodes)

    await say(client, await item_of(client), "release")
    await say(client, await item_of(client), "complete", output=1)

    await client.until(execution_id, "WorkflowPaused")
    assert not await runtime.storage.timers.claim("w9", runtime.world.now() + 10**9)


# Who may


async def test_work_of_other_tenants_is_neither_shown_nor_touched(settings: Settings) -> None:
    async with calling(settings.model_copy(update={"auth": "on"})) as caller:
        await caller.post("/tenants", {"id": "rival", "name": "Rival"})
        rival = caller.another("rival", "developer")
        await caller.started(search=remote())

        assert not (await claim(rival))["claimed"]
        item = await item_of(caller)
        for what, body in {"heartbeat": {"worker_id": "w1"}, "complete": {}, "fail": {"error": "x"}}.items():
            assert (await say(rival, item, what, **body)).status_code == 404
        workers = {one["worker_id"]: one for one in (await rival.get("/workers")).json["workers"]}
        assert workers["w1"]["running"] == 0


@pytest.mark.parametrize(("role", "status"), [("viewer", 403), ("reviewer", 403), ("developer", 200)])
async def test_who_may_change_things_may_work(settings: Settings, role: str, status: int) -> None:
    async with calling(settings.model_copy(update={"auth": "on"})) as caller:
        body = {"worker_id": "w1", "queue_types": ["tool"]}

        answer = await caller.another("default", role).post("/work-items/claim", body)

        assert answer.status_code == status


async def test_no_more_of_a_key_than_its_limit_is_handed_out(settings: Settings) -> None:
    """Whoever waits is told at once when one of them has ended."""
    async with serving(settings, poll_seconds=600) as client:
        limited = remote(concurrency={"key": "{{ state.who }}", "limit": 1}, input_mapping={"query": "{{ state.who }}"})
        workflow_id = await client.registered(search=limited)
        for who in ("ada", "ada", "bob"):
            await client.post("/executions", {"workflow_id": workflow_id, "input": {"who": who}})
        first = (await claim(client, max=5, wait=5))["work_items"]
        if len(first) < 2:
            first += (await claim(client, max=5, wait=5))["work_items"]
        assert sorted(item["payload"]["input"]["query"] for item in first) == ["ada", "bob"]
        assert not (await claim(client))["claimed"]

        waiting = asyncio.create_task(claim(client, worker_id="w2", wait=10))
        await asyncio.sleep(0.05)
        ada = next(item for item in first if item["payload"]["input"]["query"] == "ada")
        await say(client, ada, "complete", output={})

        next_ = await asyncio.wait_for(waiting, 5)
        assert next_["work_item"]["payload"]["input"] == {"query": "ada"}


async def test_the_most_urgent_is_handed_out_first(client: Client) -> None:
    workflow_id = await client.registered(search=remote(input_mapping={"query": "{{ state.n }}"}))
    for priority in (0, 7, -3, 7):
        body = {"workflow_id": workflow_id, "input": {"n": priority}, "priority": priority}
        assert (await client.post("/executions", body)).status_code == 201

    claimed = await claim(client, max=3)

    assert [item["payload"]["input"]["query"] for item in claimed["work_items"]] == [7, 7, 0]


async def test_no_more_than_a_queues_limit_is_handed_out(settings: Settings) -> None:
    async with serving(settings, queue_limits={"python_tool": 2}, poll_seconds=600) as client:
        for _ in range(3):
            await client.started(search=remote())
        held = (await claim(client, max=5))["work_items"]
        assert len(held) == 2

        (waiting,) = await waiting_claims(client, 1)
        await say(client, held[0], "complete", output=1)

        async with asyncio.timeout(10):
            assert (await waiting)["claimed"]


# The environment


async def test_a_worker_gets_the_variables_that_the_nodes_templates_name(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("API_KEY", "s3cret")
    monkeypatch.setenv("OTHER_KEY", "other")
    async with serving(settings, env_names=("API_KEY", "OTHER_KEY")) as client:
        await client.started(search=remote(input_mapping={"key": "Bearer {{ env.API_KEY }}"}))

        item = await item_of(client)

        assert item["payload"]["input"] == {"key": "Bearer s3cret"}
        assert "other" not in json.dumps(item)


# Who is there


async def test_a_remote_worker_is_among_the_workers_with_its_work(client: Client) -> None:
    execution_id = await client.started(search=remote())
    about = {"host": "gpu-box", "pid": 7, "version": "2.1", "concurrency": 4}
    item = await item_of(client, "python_tool", "model", worker_id="gpu-1", **about)

    shown = {one["worker_id"]: one for one in (await client.get("/workers")).json["workers"]}

    worker = shown["gpu-1"]
    assert (worker["kind"], worker["host"], worker["pid"], worker["version"]) == ("remote", "gpu-box", 7, "2.1")
    assert (worker["queues"], worker["concurrency"], worker["running"]) == (["python_tool", "model"], 4, 1)
    assert worker["work"] == [{"execution_id": execution_id, "node_id": "search", "attempt": 1}]
    await say(client, item, "complete", output=1)
    workers = (await client.get("/workers")).json["workers"]
    assert [one["running"] for one in workers if one["worker_id"] == "gpu-1"] == [0]


async def test_a_worker_is_not_written_down_more_often_than_it_takes(
    client: Client, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    see = runtime.storage.workers.see

    async def counted(worker: Any, lease_ms: int) -> None:
        seen.append(worker.worker_id)
        await see(worker, lease_ms)

    monkeypatch.setattr(runtime.storage.workers, "see", counted)
    for _ in range(10):
        await claim(client)

    assert seen == ["w1"]


def test_an_items_name_goes_unchanged_into_a_url() -> None:
    item_id = ItemId("exec_0199", "fan[12]", 7)

    assert str(item_id).replace("_", "").replace("-", "").isalnum()
    assert ItemId.parse(str(item_id)) == item_id


# On PostgreSQL, at two processes


@pytest.fixture
async def two(settings: Settings, postgres_url: str) -> AsyncIterator[tuple[Client, Client]]:
    """Which look for work by themselves so seldom that only a hint can be it."""
    shared = settings.model_copy(update={"database_url": postgres_url, "poll_seconds": 600})
    async with serving(shared) as one, serving(shared) as other:
        while not (one.runtime.membership.others and other.runtime.membership.others):
            await asyncio.sleep(0.01)
        yield one, other


async def test_who_waits_at_one_process_is_woken_by_another(two: tuple[Client, Client]) -> None:
    one, other = two
    (waiting,) = await waiting_claims(other, 1)

    execution_id = await one.started(search=remote())

    async with asyncio.timeout(10):
        item = (await waiting)["work_item"]
    assert item["execution_id"] == execution_id
    assert (await say(one, item, "heartbeat", worker_id="w0")).status_code == 200
    assert (await say(one, item, "complete", output={"answer": 1})).status_code == 200
    assert (await say(other, item, "complete", output={"answer": 2})).status_code == 200  # the first, said again
    assert (await end_of(other, execution_id))["state"] == {"answer": 1}


async def test_what_is_given_back_at_one_process_goes_to_who_waits_at_another(two: tuple[Client, Client]) -> None:
    one, other = two
    await one.started(search=remote())
    item = await item_of(one)
    (waiting,) = await waiting_claims(other, 1)

    await say(one, item, "release")

    async with asyncio.timeout(10):
        again = (await waiting)["work_item"]
    assert (again["attempt"], again["node_id"]) == (1, "search")
    assert (await say(one, item, "complete", output=1)).json["code"] == "lease_lost"


async def test_an_item_is_completed_once_whoever_says_it_and_wherever(two: tuple[Client, Client]) -> None:
    execution_id = await two[0].started(search=remote())
    item = await item_of(two[0])

    said = [say(two[n % 2], item, "complete", output={"answer": n}) for n in range(6)]
    answers = await asyncio.gather(*said)

    assert {answer.status_code for answer in answers} == {200}
    assert (await kinds_of(two[1], execution_id)).count("NodeCompleted") == 1


async def test_an_attempt_times_out_at_whichever_process(two: tuple[Client, Client]) -> None:
    one, other = two
    execution_id = await one.started(search=remote(node_timeout_secs=0.3))

    item = await item_of(other)

    assert (await end_of(one, execution_id))["error"]["error_class"] == "timeout"
    assert (await say(one, item, "heartbeat", worker_id="w1")).json["code"] == "lease_lost"


async def test_of_one_key_only_so_many_are_handed_out(settings: Settings, postgres_url: str) -> None:
    async with serving(settings, database_url=postgres_url, poll_seconds=600) as client:
        node = remote(concurrency={"key": "{{ state.customer }}", "limit": 1})
        for customer in ("ada", "ada", "bob"):
            await client.started({"customer": customer}, search=node)
        held = (await claim(client, max=9))["work_items"]
        assert sorted(item["payload"]["input"]["customer"] for item in held) == ["ada", "bob"]

        (waiting,) = await waiting_claims(client, 1)
        ada = next(item for item in held if item["payload"]["input"]["customer"] == "ada")
        await say(client, ada, "complete", output={})

        async with asyncio.timeout(10):
            assert (await waiting)["work_item"]["payload"]["input"] == {"customer": "ada"}
