"""/workflows"""

from __future__ import annotations

from http_support import Client, step, workflow


async def test_a_definition_is_registered_as_the_contract_prints_it(client: Client) -> None:
    ir = {
        "workflow_id": "research-agent",
        "version": "0.1.0",
        "state_schema": {"query": "str"},
        "nodes": {"search": step("search")},
        "edges": [{"from": "search", "to": "end"}],
    }

    answer = await client.post("/workflows", {"ir": ir})

    assert answer.status_code == 201
    assert answer.json == {"workflow_id": "research-agent", "version": "0.1.0"}
    assert answer.headers["location"] == "/workflows/research-agent/0.1.0"


async def test_a_definition_without_a_name_gets_the_contracts_error(client: Client) -> None:
    ir = workflow()
    del ir["workflow_id"]

    answer = await client.post("/workflows", {"ir": ir})

    assert answer.status_code == 400
    assert answer.json["error"] == "bad request: ir.workflow_id is required"
    assert answer.json["code"] == "invalid"
    assert answer.json["details"] == {"problems": [{"place": "ir.workflow_id", "message": "is required"}]}


async def test_all_problems_are_told_at_once_with_their_place(client: Client) -> None:
    ir = workflow(first={"type": "no-such-kind"}, second={**step("search"), "colour": "red"})
    ir["edges"].append({"from": "second", "to": "nowhere"})

    answer = await client.post("/workflows", {"ir": ir})

    assert answer.status_code == 400
    places = {problem["place"] for problem in answer.json["details"]["problems"]}
    assert any(place.startswith("ir.nodes.first") for place in places)
    assert any(place.startswith("ir.nodes.second") for place in places)
    assert any(place.startswith("ir.edges") for place in places)


async def test_a_definition_that_is_no_object_is_refused(client: Client) -> None:
    answer = await client.post("/workflows", {"ir": ["a"]})

    assert answer.status_code == 400
    assert answer.json["error"] == "bad request: ir must be an object, not list"


async def test_the_same_content_again_gets_the_same_answer(client: Client) -> None:
    first = await client.post("/workflows", {"ir": workflow()})

    again = await client.post("/workflows", {"ir": workflow()})

    assert (again.status_code, again.json) == (201, first.json)


async def test_other_content_under_a_registered_version_is_a_conflict(client: Client) -> None:
    await client.post("/workflows", {"ir": workflow()})

    answer = await client.post("/workflows", {"ir": workflow(other=step("search"))})

    assert (answer.status_code, answer.json["code"]) == (409, "conflict")
    assert "research-agent" in answer.json["error"]


async def test_workflows_are_listed_with_their_latest_version(client: Client) -> None:
    for workflow_id, version in (("b", "0.9.0"), ("b", "0.10.0"), ("a", "1.0.0")):
        await client.post("/workflows", {"ir": workflow(workflow_id, version)})

    listed = (await client.get("/workflows")).json

    assert [(one["workflow_id"], one["version"]) for one in listed["workflows"]] == [("a", "1.0.0"), ("b", "0.10.0")]
    assert listed["next_cursor"] is None


async def test_a_cursor_leads_through_all_workflows(client: Client) -> None:
    for workflow_id in "abc":
        for version in ("0.1.0", "0.2.0"):
            await client.post("/workflows", {"ir": workflow(workflow_id, version)})

    first = (await client.get("/workflows", "limit=2")).json
    second = (await client.get("/workflows", f"limit=2&cursor={first['next_cursor']}")).json

    assert [one["workflow_id"] for one in first["workflows"] + second["workflows"]] == ["a", "b", "c"]
    assert second["next_cursor"] is None


async def test_versions_are_listed_the_latest_first(client: Client) -> None:
    for version in ("0.9.0", "0.10.0", "0.10.0-rc.1"):
        await client.post("/workflows", {"ir": workflow(version=version)})

    listed = (await client.get("/workflows/research-agent")).json

    assert [one["version"] for one in listed["versions"]] == ["0.10.0", "0.10.0-rc.1", "0.9.0"]


async def test_a_cursor_leads_through_all_versions(client: Client) -> None:
    for version in ("0.1.0", "0.2.0", "0.3.0"):
        await client.post("/workflows", {"ir": workflow(version=version)})

    first = (await client.get("/workflows/research-agent", "limit=2")).json
    second = (await client.get("/workflows/research-agent", f"cursor={first['next_cursor']}")).json

    assert [one["version"] for one in first["versions"] + second["versions"]] == ["0.3.0", "0.2.0", "0.1.0"]


async def test_a_definition_comes_back_as_it_was_registered(client: Client) -> None:
    await client.post("/workflows", {"ir": workflow()})

    named = await client.get("/workflows/research-agent/0.1.0")
    latest = await client.get("/workflows/research-agent/latest")

    assert named.json == latest.json == workflow()


async def test_a_missing_workflow_is_not_found(client: Client) -> None:
    missing = await client.get("/workflows/nope")
    version = await client.get("/workflows/nope/1.0.0")

    assert (missing.status_code, missing.json["error"]) == (404, "not found: workflow nope")
    assert (version.status_code, version.json["error"]) == (404, "not found: workflow nope version 1.0.0")


async def test_what_a_definition_says_in_vain_is_told(client: Client) -> None:
    needy = {"resources": {"num_gpus": 1}}
    fan = {"type": "map", "items": "[1]", "body": step("search") | needy, "retry_policy": "fast"}
    search = step("search") | needy | {"queue": "gpu"}
    ir = workflow(fan=fan, search=search) | {"timeouts": {"heartbeat_interval": "5s"}}

    warnings = (await client.post("/workflows", {"ir": ir})).json["warnings"]

    assert [warning.partition(":")[0] for warning in warnings] == [
        "nodes.fan.retry_policy",
        "nodes.search.queue",
        "nodes.fan.body.resources",
        "nodes.search.resources",
    ]
