"""GET /openapi.json. That answers are as it says is checked by the client of all tests here."""

from __future__ import annotations

from typing import Any

import jsonschema_rs
from http_support import Client


async def test_the_document_is_openapi_3_1(client: Client) -> None:
    document = client.document

    assert document["openapi"] == "3.1.0"
    assert document["info"]["title"] == "JamJet Runtime"
    assert document["servers"] == [{"url": "/"}]


async def test_every_schema_is_one_and_every_reference_leads_somewhere(client: Client) -> None:
    schemas = client.document["components"]["schemas"]

    for schema in schemas.values():
        jsonschema_rs.meta.validate(schema)
    for reference in references(client.document):
        assert resolved(client.document, reference) is not None


async def test_every_route_is_described(client: Client) -> None:
    described = {
        f"{method.upper()} {path}" for path, operations in client.document["paths"].items() for method in operations
    }

    one = "/executions/{execution_id}"
    assert described >= {
        "GET /health",
        "POST /workflows",
        "GET /workflows",
        "GET /workflows/{workflow_id}",
        "GET /workflows/{workflow_id}/{version}",
        "POST /executions",
        "GET /executions",
        f"GET {one}",
        f"GET {one}/events",
        f"GET {one}/approvals",
        f"POST {one}/cancel",
        f"POST {one}/pause",
        f"POST {one}/resume",
        f"POST {one}/retry",
        f"POST {one}/fork",
        f"POST {one}/approve",
        f"POST {one}/external-event",
        "GET /approvals",
        "GET /workers",
    }


async def test_operations_have_names_of_their_own(client: Client) -> None:
    names = [operation["operationId"] for operation in operations(client.document)]

    assert len(names) == len(set(names))


async def test_every_post_takes_an_idempotency_key(client: Client) -> None:
    for path, methods in client.document["paths"].items():
        if "post" in methods:
            assert "Idempotency-Key" in {parameter["name"] for parameter in methods["post"]["parameters"]}, path


async def test_parameters_are_described_as_they_are_validated(client: Client) -> None:
    parameters = {
        parameter["name"]: parameter["schema"]
        for parameter in client.document["paths"]["/executions"]["get"]["parameters"]
    }

    assert parameters["limit"] == {"type": "integer", "minimum": 1, "maximum": 1000, "default": 50}
    assert parameters["status"] == {"$ref": "#/components/schemas/Status"}


async def test_the_stream_of_events_is_described(client: Client) -> None:
    operation = client.document["paths"]["/executions/{execution_id}/events"]["get"]

    assert set(operation["responses"]["200"]["content"]) == {"application/json", "text/event-stream"}
    assert "Last-Event-ID" in {parameter["name"] for parameter in operation["parameters"]}


async def test_an_unchanged_document_is_not_sent_again(client: Client) -> None:
    first = await client.get("/openapi.json")

    again = await client.get("/openapi.json", If_None_Match=first.headers["etag"])

    assert (again.status_code, again.text) == (304, "")


def operations(document: dict[str, Any]) -> list[dict[str, Any]]:
    return [operation for methods in document["paths"].values() for operation in methods.values()]


def references(value: Any) -> list[str]:
    if isinstance(value, dict):
        own = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
        return own + [reference for child in value.values() for reference in references(child)]
    return [reference for child in value for reference in references(child)] if isinstance(value, list) else []


def resolved(document: Any, reference: str) -> Any:
    for step in reference.removeprefix("#/").split("/"):
        document = document[step]
    return document
