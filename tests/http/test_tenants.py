"""/tenants, and what a tenant's status, limits and policy do."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterable
from typing import Any, cast

import http_steps
import pytest
from http_callers import Caller, calling
from http_support import APPROVAL, step, workflow
from pydantic import BaseModel

from jamjet_kernel import Settings, hookimpl
from jamjet_kernel.core.events import Usage
from jamjet_kernel.ports import NodeCall, NodeExecutor, NodeResult, Storage, Tenant
from jamjet_kernel.runtime.limits import LastMinute, _next_month, month_of
from jamjet_kernel.runtime.tenants import KnownTerms
from jamjet_kernel.runtime.world import RealWorld

Json = dict[str, Any]
GATE = {**step("wait_for_gate"), "input_mapping": {"gate": "{{ state.gate }}"}}


class Costly(BaseModel):
    tokens: int = 0
    cost: float = 0.0
    model: str | None = None


class Spending:
    """A plugin: a node that says that it consumed something."""

    kind = "costly"
    config = Costly

    @hookimpl
    def node_executors(self) -> Iterable[NodeExecutor]:
        return [self]

    async def execute(self, call: NodeCall) -> NodeResult:
        config: Costly = call.config
        return NodeResult({}, usage=Usage(config.tokens, 0, config.cost))


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"auth": "on"})


@pytest.fixture
async def root(settings: Settings) -> AsyncIterator[Caller]:
    """An operator of the default tenant."""
    http_steps.gates.clear()
    async with calling(settings, Spending()) as caller:
        yield caller


async def made(root: Caller, tenant_id: str = "acme", **more: Any) -> Caller:
    """The operator of a new tenant."""
    answer = await root.post("/tenants", {"id": tenant_id, "name": "Acme Corp", **more})
    assert answer.status_code == 201, answer.text
    return root.another(tenant_id)


async def start(caller: Caller, workflow_id: str = "research-agent", **headers: str) -> Any:
    return await caller.post("/executions", {"workflow_id": workflow_id, "input": {"gate": "g"}}, **headers)


# The routes


async def test_the_contracts_requests_are_answered_as_printed(root: Caller) -> None:
    added = await root.post("/tenants", {"id": "acme", "name": "Acme Corp"})
    changed = await root.put(
        "/tenants/acme", {"name": "Acme Corporation", "status": "active", "policy": {}, "limits": {}}
    )

    assert (added.status_code, added.json) == (201, {"tenant_id": "acme"})
    assert (changed.status_code, changed.json["name"]) == (200, "Acme Corporation")
    assert [tenant["tenant_id"] for tenant in (await root.get("/tenants")).json["tenants"]] == ["acme", "default"]


async def test_a_tenant_is_told_whole(root: Caller) -> None:
    policy, limits = {"blocked_tools": ["shell*"]}, {"workflows": 3, "cost_usd_per_month": 12.5}
    await made(root, policy=policy, limits=limits)

    told = (await root.get("/tenants/acme")).json

    assert told | {"created_at": None, "usage": None} == {
        "tenant_id": "acme",
        "name": "Acme Corp",
        "status": "active",
        "policy": policy,
        "limits": limits,
        "created_at": None,
        "updated_at": None,
        "usage": None,
    }
    assert told["usage"] | {"month": ""} == {"month": "", "tokens": 0, "cost_usd": 0}


async def test_the_default_tenant_is_there_and_stays_active(root: Caller) -> None:
    assert (await root.get("/tenants/default")).json["status"] == "active"

    for status in ("suspended", "archived"):
        assert (await root.put("/tenants/default", {"status": status})).status_code == 409
    assert (await root.post("/tenants", {"id": "default", "name": "x"})).status_code == 409


@pytest.mark.parametrize("tenant_id", ["", "-a", "_a", "A", "a b", "a" * 64, "a/b", "ä", "a\n", "a'--"])
async def test_an_id_is_plain(root: Caller, tenant_id: str) -> None:
    assert (await root.post("/tenants", {"id": tenant_id, "name": "x"})).status_code == 400


@pytest.mark.parametrize(
    "change",
    [
        {"colour": "red"},
        {"name": None},
        {"name": ""},
        {"status": None},
        {"status": "gone"},
        {"policy": {"colour": "red"}},
        {"policy": {"blocked_tools": "shell"}},
        {"policy": {"blocked_tools": [1]}},
        {"limits": {"colour": 1}},
        {"limits": {"workflows": -1}},
        {"limits": {"workflows": 1.5}},
        {"limits": {"workflows": True}},
        {"limits": {"workflows": "3"}},
        {"limits": {"cost_usd_per_month": -0.1}},
        {"limits": []},
    ],
)
async def test_nothing_unknown_or_wrong_is_taken(root: Caller, change: Json) -> None:
    await made(root)
    before = (await root.get("/tenants/acme")).json

    assert (await root.put("/tenants/acme", change)).status_code == 400
    assert (await root.post("/tenants", {"id": "b", "name": "b", **change})).status_code == 400

    assert (await root.get("/tenants/acme")).json == before
    assert (await root.get("/tenants/b")).status_code == 404


async def test_what_is_left_out_stays_and_null_clears(root: Caller) -> None:
    await made(root, policy={"blocked_tools": ["a"]}, limits={"workflows": 1, "concurrent_executions": 2})

    async def put(change: Json) -> tuple[Json, Json]:
        told = (await root.put("/tenants/acme", change)).json
        return told["policy"], told["limits"]

    both = {"workflows": 1, "concurrent_executions": 2}
    assert await put({"name": "New"}) == ({"blocked_tools": ["a"]}, both)
    assert await put({"limits": {"tokens_per_month": 9}}) == ({"blocked_tools": ["a"]}, both | {"tokens_per_month": 9})
    assert await put({"limits": {"workflows": None, "tokens_per_month": None}}) == (
        {"blocked_tools": ["a"]},
        {"concurrent_executions": 2},
    )
    assert await put({"policy": {"model_allowlist": []}}) == ({"model_allowlist": []}, {"concurrent_executions": 2})
    assert await put({"policy": None}) == ({}, {"concurrent_executions": 2})
    assert await put({"limits": None}) == ({}, {})


async def test_changes_at_the_same_time_do_not_undo_each_other(root: Caller) -> None:
    await made(root)
    names = ("concurrent_executions", "workflows", "requests_per_minute", "tokens_per_month")

    answers = await asyncio.gather(*(root.put("/tenants/acme", {"limits": {name: 1000}}) for name in names))

    assert [answer.status_code for answer in answers] == [200] * 4
    assert (await root.get("/tenants/acme")).json["limits"] == dict.fromkeys(names, 1000)


async def test_a_change_that_changes_nothing_is_none(root: Caller) -> None:
    await made(root)

    assert (await root.put("/tenants/acme", {"name": "Acme Corp"})).json["updated_at"] is None
    assert (await root.put("/tenants/acme", {"name": "Other"})).json["updated_at"] is not None


async def test_making_one_again_with_the_same_key_is_one_request(root: Caller) -> None:
    body = {"id": "acme", "name": "Acme"}

    answers = [await root.post("/tenants", body, Idempotency_Key="k") for _ in range(2)]
    without = await root.post("/tenants", body)

    assert [answer.status_code for answer in (*answers, without)] == [201, 201, 409]


async def test_tenants_come_page_by_page(root: Caller) -> None:
    for n in range(4):
        await made(root, f"t{n}")

    seen: list[str] = []
    query = "limit=2"
    while True:
        page = (await root.get("/tenants", query)).json
        seen += [tenant["tenant_id"] for tenant in page["tenants"]]
        if page["next_cursor"] is None:
            break
        query = f"limit=2&cursor={page['next_cursor']}"

    assert seen == ["default", "t0", "t1", "t2", "t3"]


async def test_a_tenants_own_operator_looks_at_it_only(root: Caller) -> None:
    acme = await made(root)
    await made(root, "rival")

    assert (await acme.get("/tenants/acme")).status_code == 200
    assert [tenant["tenant_id"] for tenant in (await acme.get("/tenants")).json["tenants"]] == ["acme"]
    assert (await acme.get("/tenants/rival")).status_code == 404
    assert (await acme.put("/tenants/rival", {"name": "x"})).status_code == 404
    assert (await acme.put("/tenants/acme", {"limits": None})).status_code == 403
    assert (await acme.post("/tenants", {"id": "more", "name": "x"})).status_code == 403


async def test_changes_are_audited_in_the_tenants_own_chain(root: Caller) -> None:
    await made(root)
    await root.put("/tenants/acme", {"status": "suspended"})

    records, total = await root.runtime.storage.audit.page("acme")

    told = [
        (sealed.record.event_type, sealed.record.actor_id, sealed.record.resource)
        for sealed in records
        if sealed.record
    ]
    assert told == [
        ("tenant_updated", "default/operator", "tenant/acme"),
        ("tenant_created", "default/operator", "tenant/acme"),
    ]
    assert total == 2
    assert records[0].record is not None
    assert json.loads(records[0].record.data) == {"changes": {"status": "suspended"}}


# Acting for another


async def test_an_operator_of_the_default_tenant_acts_for_another(root: Caller) -> None:
    acme = await made(root)

    registered = await root.post("/workflows", {"ir": workflow()}, X_JamJet_Tenant="acme")

    assert registered.status_code == 201
    assert (await acme.get("/workflows/research-agent")).status_code == 200
    assert (await root.get("/workflows/research-agent")).status_code == 404


@pytest.mark.parametrize("name", ["nobody", "", "' OR 1=1 --", "ACME", "a" * 10_000])
async def test_nobody_acts_for_a_tenant_that_is_not_there(root: Caller, name: str) -> None:
    assert (await root.get("/workflows", X_JamJet_Tenant=name)).status_code == 404


@pytest.mark.parametrize(
    "caller", ["default/developer", "default/reviewer", "default/viewer", "acme/operator", "rival/operator"]
)
async def test_nobody_else_acts_for_another(root: Caller, caller: str) -> None:
    await made(root)
    await made(root, "rival")

    answer = await root.another(*caller.split("/")).get("/workflows", X_JamJet_Tenant="acme")

    assert answer.status_code == 403
    assert "X-JamJet-Tenant" in answer.json["error"]


async def test_a_caller_of_no_tenant_is_refused(root: Caller) -> None:
    assert (await root.another("nobody").get("/workflows")).status_code == 403


# Status


async def test_a_suspended_tenant_may_be_looked_at_and_not_changed(root: Caller) -> None:
    acme = await made(root)
    execution_id = await acme.started(review=APPROVAL)
    await acme.until(execution_id, "ApprovalRequested")
    await root.put("/tenants/acme", {"status": "suspended"})

    refused = [
        await start(acme),
        await acme.post(f"/executions/{execution_id}/approve", {"decision": "approved"}),
        await acme.post("/workflows", {"ir": workflow()}),
        await acme.put("/tenants/acme", {"name": "x"}),
    ]

    assert [answer.status_code for answer in refused] == [403] * 4
    assert all("acme is suspended" in answer.json["error"] for answer in refused)
    assert (await acme.get(f"/executions/{execution_id}")).json["status"] == "paused"
    await root.put("/tenants/acme", {"status": "active"})
    assert (await acme.post(f"/executions/{execution_id}/approve", {"decision": "approved"})).status_code == 200


async def test_what_runs_in_a_suspended_tenant_goes_on(root: Caller) -> None:
    acme = await made(root)
    execution_id = await acme.started(
        {"gate": "g"}, gate=GATE, after=step("search") | {"input_mapping": {"query": "x"}}
    )
    await root.put("/tenants/acme", {"status": "suspended"})

    http_steps.gates.setdefault("g", asyncio.Event()).set()

    assert (await acme.get(f"/executions/{execution_id}", "wait=10")).json["status"] == "completed"


async def test_an_archived_tenant_is_served_to_the_default_tenants_operators_alone(root: Caller) -> None:
    acme = await made(root)
    await acme.registered()
    await root.put("/tenants/acme", {"status": "archived"})

    for path in ("/workflows", "/executions", "/tenants/acme", "/approvals", "/workers"):
        refused = await acme.get(path)
        assert refused.status_code == 403
        assert "acme is archived" in refused.json["error"]
    assert (await acme.get("/health")).status_code == 200
    assert (await root.get("/workflows/research-agent", X_JamJet_Tenant="acme")).status_code == 200


# Limits


async def test_a_burst_starts_no_more_executions_than_allowed(root: Caller) -> None:
    acme = await made(root, limits={"concurrent_executions": 3})
    await acme.registered(gate=GATE)

    answers = await asyncio.gather(*(start(acme) for _ in range(20)))

    assert sorted(answer.status_code for answer in answers) == [201] * 3 + [409] * 17
    refused = next(answer.json for answer in answers if answer.status_code == 409)
    assert refused["details"] == {"limit": "concurrent_executions", "value": 3}
    assert "concurrent_executions of 3" in refused["error"]
    assert len((await acme.get("/executions")).json["executions"]) == 3


async def test_an_execution_that_ended_makes_room(root: Caller) -> None:
    acme = await made(root, limits={"concurrent_executions": 1})
    await acme.registered(gate=GATE)
    first = (await start(acme)).json["execution_id"]
    assert (await start(acme)).status_code == 409

    await acme.post(f"/executions/{first}/cancel")

    assert (await start(acme)).status_code == 201


async def test_fork_and_retry_count_like_a_start(root: Caller) -> None:
    acme = await made(root, limits={"concurrent_executions": 1})
    failed = (await acme.ended({}, check=step("refuse_unless") | {"input_mapping": {}}))["execution_id"]
    await acme.post("/workflows", {"ir": workflow("gates", gate=GATE)})
    await start(acme, "gates")

    retried = await acme.post(f"/executions/{failed}/retry")
    forked = await acme.post(f"/executions/{failed}/fork", {})

    assert [answer.json["code"] for answer in (retried, forked)] == ["limit_reached"] * 2
    assert (await acme.get(f"/executions/{failed}")).json["status"] == "failed"


async def test_a_repeated_request_is_answered_though_the_limit_is_reached(root: Caller) -> None:
    acme = await made(root, limits={"concurrent_executions": 1})
    await acme.registered(gate=GATE)

    first = await start(acme, Idempotency_Key="k")
    again = await start(acme, Idempotency_Key="k")

    assert again.json == first.json
    assert (await start(acme, Idempotency_Key="other")).status_code == 409


async def test_a_child_counts_and_is_not_refused(root: Caller) -> None:
    acme = await made(root, limits={"concurrent_executions": 1})
    await acme.post("/workflows", {"ir": workflow("child", gate=GATE)})
    parent = await acme.started({"gate": "g"}, call={"type": "subgraph", "workflow_ref": "child"})
    await acme.until(parent, "ChildWorkflowStarted")
    async with asyncio.timeout(5):
        while len((await acme.get("/executions")).json["executions"]) < 2:
            await asyncio.sleep(0.01)

    await root.put("/tenants/acme", {"limits": {"concurrent_executions": 2}})
    assert (await start(acme, "child")).status_code == 409

    http_steps.gates.setdefault("g", asyncio.Event()).set()
    assert (await acme.get(f"/executions/{parent}", "wait=10")).json["status"] == "completed"


async def test_workflows_are_counted_by_their_ids(root: Caller) -> None:
    acme = await made(root, limits={"workflows": 2})

    answers = await asyncio.gather(*(acme.post("/workflows", {"ir": workflow(f"w{n}")}) for n in range(5)))

    assert sorted(answer.status_code for answer in answers) == [201] * 2 + [409] * 3
    refused = next(answer.json for answer in answers if answer.status_code == 409)
    assert refused["details"] == {"limit": "workflows", "value": 2}
    there = (await acme.get("/workflows")).json["workflows"][0]["workflow_id"]
    assert (await acme.post("/workflows", {"ir": workflow(there, "2.0.0")})).status_code == 201
    assert (await acme.post("/workflows", {"ir": workflow(there)})).status_code == 201


async def test_requests_are_counted_by_the_minute(root: Caller) -> None:
    acme = await made(root, limits={"requests_per_minute": 2})

    answers = [await acme.get("/workflows") for _ in range(3)]

    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert 0 < int(answers[-1].headers["retry-after"]) <= 61
    assert answers[-1].json["details"] == {"limit": "requests_per_minute", "value": 2}
    assert (await acme.get("/health")).status_code == 200
    assert (await root.get("/workflows", X_JamJet_Tenant="acme")).status_code == 200
    assert (await root.get("/workflows")).status_code == 200


async def test_a_limit_on_the_default_tenant_locks_nobody_out(root: Caller) -> None:
    await root.put("/tenants/default", {"limits": {"requests_per_minute": 0}})

    assert (await root.get("/workflows")).status_code == 429
    assert (await root.put("/tenants/default", {"limits": None})).status_code == 200
    assert (await root.get("/workflows")).status_code == 200


@pytest.mark.parametrize(
    ("limits", "used"),
    [
        ({"tokens_per_month": 100}, {"tokens": 50}),
        ({"cost_usd_per_month": 0.2}, {"cost": 0.1}),
        ({"tokens_per_month": 1000, "cost_usd_per_month": 0.2}, {"tokens": 5, "cost": 0.1}),
    ],
)
async def test_what_a_month_allows_is_used_up(root: Caller, limits: Json, used: Json) -> None:
    acme = await made(root, limits=limits)

    for _ in range(2):
        assert (await acme.ended(think={"type": "costly", **used}))["status"] == "completed"
    refused = await start(acme)

    (name,) = {"tokens_per_month", "cost_usd_per_month"} & {refused.json["details"]["limit"]}
    assert refused.status_code == 429
    assert refused.json["details"]["value"] == limits[name]
    assert int(refused.headers["retry-after"]) <= 31 * 86_400
    usage = (await root.get("/tenants/acme")).json["usage"]
    assert (usage["tokens"], usage["cost_usd"]) == (2 * used.get("tokens", 0), 2 * used.get("cost", 0))


async def test_what_was_used_survives_a_restart(settings: Settings) -> None:
    async with calling(settings, Spending()) as root:
        acme = await made(root, limits={"tokens_per_month": 5})
        await acme.ended(think={"type": "costly", "tokens": 5})

    async with calling(settings, Spending()) as root:
        assert (await start(root.another("acme"))).status_code == 429


async def test_nonsense_about_usage_breaks_nothing(root: Caller) -> None:
    acme = await made(root)

    view = await acme.ended(
        much={"type": "costly", "tokens": 2**62, "cost": 1e300}, less={"type": "costly", "tokens": -5, "cost": -1.0}
    )

    assert view["status"] == "completed"
    assert (await root.get("/tenants/acme")).json["usage"]["tokens"] == 10**12


def test_a_minute_never_holds_more_than_its_limit() -> None:
    last_minute, limit = LastMinute(), 10
    moments = range(0, 200_000, 137)

    admitted = [at for at in moments if last_minute.take(limit, at) is None]

    for first, later in zip(admitted, admitted[limit:], strict=False):
        assert later - first >= 60_000
    assert len(admitted) == 40


def test_after_the_time_that_is_told_there_is_room() -> None:
    last_minute = LastMinute()
    assert [last_minute.take(2, at) for at in (500, 30_500)] == [None, None]

    wait = last_minute.take(2, 31_000)

    assert wait is not None
    assert last_minute.take(2, 31_000 + wait * 1000) is None


def test_months_are_of_the_calendar_in_utc() -> None:
    last_second = 1_798_761_599_000  # 2026-12-31T23:59:59Z

    assert month_of(last_second) == "2026-12"
    assert _next_month(last_second) == last_second + 1000
    assert month_of(last_second + 1000) == "2027-01"


# Policy


TOOL = {"type": "tool", "fn": "http_steps:search", "input": {"query": "x"}}


async def test_the_tenants_policy_is_around_every_workflow(root: Caller) -> None:
    acme = await made(root, policy={"blocked_tools": ["http_steps:*"]})

    blocked = await acme.ended(call=TOOL)
    elsewhere = await root.ended(call=TOOL)

    assert (blocked["status"], elsewhere["status"]) == ("failed", "completed")
    assert "blocks the tool" in blocked["error"]["message"]


async def test_a_changed_policy_counts_from_the_next_decision_on(root: Caller) -> None:
    acme = await made(root)
    execution_id = await acme.started({"gate": "g"}, gate=GATE, call=TOOL)
    await root.put("/tenants/acme", {"policy": {"require_approval_for": ["*"]}})

    http_steps.gates.setdefault("g", asyncio.Event()).set()
    await acme.until(execution_id, "ApprovalRequested")
    await acme.post(f"/executions/{execution_id}/approve", {"decision": "approved"})

    assert (await acme.get(f"/executions/{execution_id}", "wait=10")).json["status"] == "completed"


async def test_a_model_must_be_allowed_by_every_layer(root: Caller) -> None:
    acme = await made(root, policy={"model_allowlist": ["small"]})

    async def ends(model: str, allowed: list[str] | None) -> str:
        ir = workflow("-".join([model, *(allowed or [])]), ask={"type": "costly", "model": model})
        if allowed is not None:
            ir["policy"] = {"model_allowlist": allowed}
        await acme.post("/workflows", {"ir": ir})
        started = await start(acme, ir["workflow_id"])
        view = await acme.get(f"/executions/{started.json['execution_id']}", "wait=10")
        return str(view.json["status"])

    assert await ends("small", None) == "completed"
    assert await ends("small", ["small", "large"]) == "completed"
    assert await ends("large", ["small", "large"]) == "failed"
    assert await ends("small", ["large"]) == "failed"


# What is known of a tenant


class Rows:
    """Of the storage, only what terms are read from."""

    def __init__(self, exclusive: bool) -> None:
        self.exclusive = exclusive
        self.tenants = self
        self.reads = 0
        self.pause = asyncio.Event()
        self.pause.set()

    async def get(self, tenant_id: str) -> Tenant:
        self.reads += 1
        read = Tenant(tenant_id, f"read {self.reads}", 0)
        await self.pause.wait()
        return read


class Clock(RealWorld):
    at = 0.0

    def stopwatch(self) -> float:
        return self.at


async def name_in(known: KnownTerms) -> str | None:
    tenant = (await known.get("acme")).tenant
    return tenant and tenant.name


async def test_a_request_reads_no_database_to_know_its_tenant() -> None:
    rows, clock = Rows(exclusive=True), Clock()
    known = KnownTerms(cast(Storage, rows), clock)

    for clock.at in range(0, 100_000, 1000):
        await known.get("acme")

    assert rows.reads == 1


async def test_all_who_ask_at_the_same_time_cost_one_read() -> None:
    rows, clock = Rows(exclusive=False), Clock()
    known = KnownTerms(cast(Storage, rows), clock)

    for clock.at in (0, 5000):
        await asyncio.gather(*(known.get("acme") for _ in range(1000)))

    assert rows.reads == 2


async def test_what_another_process_changed_is_known_soon() -> None:
    rows, clock = Rows(exclusive=False), Clock()
    known = KnownTerms(cast(Storage, rows), clock)

    names = []
    for clock.at in (0, 4999, 5000):
        names.append(await name_in(known))

    assert names == ["read 1", "read 1", "read 2"]


async def test_what_was_read_before_a_change_is_not_kept_after_it() -> None:
    rows = Rows(exclusive=True)
    known = KnownTerms(cast(Storage, rows), Clock())
    rows.pause.clear()
    slow = asyncio.create_task(name_in(known))
    while not rows.reads:
        await asyncio.sleep(0)

    known.changed("acme")
    rows.pause.set()

    assert (await slow, await name_in(known)) == ("read 1", "read 2")
