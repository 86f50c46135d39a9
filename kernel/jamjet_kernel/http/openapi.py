"""The OpenAPI document, made from the table of routes and the models that validate."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from falcon.asgi import Request, Response
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from ..ports import Access, Operation, Route
from ..runtime import Runtime
from . import models
from .access import ACTING_FOR
from .answers import encode, send_unless_known
from .events import STREAM, Streamed
from .requests import no_query

Json = dict[str, Any]

_TOKEN = {
    "type": "http",
    "scheme": "bearer",
    "description": "An API token (`POST /tokens`, `jamjet tokens create`), or a JSON Web Token where they are taken.",
}
_REF = "#/components/schemas/{model}"

_MEANINGS = {
    200: "Done",
    201: "Made",
    204: "There is nothing to follow any more",
    304: "It is still what If-None-Match says",
    400: "The request is not valid; `details.problems` lists each problem with its place",
    401: "The token is missing, wrong or expired",
    403: "The caller's role or tenant, or the page of another site that it is, may not do this",
    404: "There is no such thing",
    409: "The thing is not in a state that allows this, or the Idempotency-Key belongs to another request",
    413: "The body is too large",
    415: "The body is not JSON",
    421: "The Host header names another server",
    424: "Another server did not answer as it should",
    429: "The tenant has used up what it may for now; `Retry-After` says in how many seconds there may be room",
    500: "A defect of the runtime; its log says more under the request id",
    503: "Not available just now; nothing was changed",
}


class OpenApi:
    """The table may still grow until the first request."""

    def __init__(self, runtime: Runtime, table: Sequence[Route]) -> None:
        self._runtime = runtime
        self._table = table

    async def on_get(self, req: Request, resp: Response) -> None:
        no_query(req)
        send_unless_known(req, resp, self._encoded)

    @functools.cached_property
    def _encoded(self) -> bytes:
        prefix = urlsplit(self._runtime.settings.url).path or "/"
        return encode(document(self._table, version=self._runtime.version, server=prefix))


def document(table: Sequence[Route], *, version: str, server: str) -> Json:
    schemas = _schemas(table)
    paths = {
        route.path: {
            method.lower(): _operation(route.path, method, operation, schemas)
            for method, operation in route.operations.items()
        }
        for route in table
        if route.operations
    }
    queries = {operation.query.__name__ for operation in _operations(table) if operation.query}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "JamJet Runtime",
            "version": version,
            "summary": "Durable workflows of AI agents",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": server}],
        "tags": [{"name": tag} for tag in dict.fromkeys(operation.tag for operation in _operations(table))],
        "paths": paths,
        "components": {
            "schemas": {name: schema for name, schema in schemas.items() if name not in queries},
            "securitySchemes": {"token": _TOKEN},
            "headers": {
                "RequestId": {
                    "description": "Names the request in the log; taken from the request where it has one.",
                    "schema": {"type": "string"},
                }
            },
        },
    }


def _operations(table: Iterable[Route]) -> Iterator[Operation]:
    for route in table:
        yield from route.operations.values()


def _schemas(table: Iterable[Route]) -> Mapping[str, Json]:
    used: list[type[BaseModel] | None] = [models.Error]
    for operation in _operations(table):
        used += [operation.body, operation.query, *operation.answers.values()]
    # "validation" for answers too: there a field with a default is one that may be left out.
    described = [(model, "validation") for model in dict.fromkeys(used) if model is not None]
    _, definitions = models_json_schema(described, ref_template=_REF)  # type: ignore[arg-type]
    schemas: Mapping[str, Json] = definitions["$defs"]
    return schemas


def _operation(path: str, method: str, operation: Operation, schemas: Mapping[str, Json]) -> Json:
    described: Json = {
        "operationId": "_".join(re.findall(r"[A-Za-z0-9]+", f"{method.lower()} {path}")),
        "summary": operation.summary,
        "tags": [operation.tag],
        "parameters": list(_parameters(path, method, operation, schemas)),
        "responses": _responses(path, operation),
        "security": [] if operation.access is Access.OPEN else [{"token": []}],
    }
    if operation.description:
        described["description"] = inspect.cleandoc(operation.description)
    if operation.body:
        described["requestBody"] = {
            "required": bool(schemas[operation.body.__name__].get("required")),
            "content": {"application/json": {"schema": _ref(operation.body)}},
        }
    return described


# Parameters


def _parameters(path: str, method: str, operation: Operation, schemas: Mapping[str, Json]) -> Iterator[Json]:
    for name in re.findall(r"{(\w+)", path):
        yield {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
    if operation.query:
        for name, schema in schemas[operation.query.__name__].get("properties", {}).items():
            yield {"name": name, "in": "query", "required": False, **_described(_without_null(schema))}
    if operation.access is not Access.OPEN:
        yield _header(ACTING_FOR, "For operators of the default tenant: the tenant to act for.", {"type": "string"})
    if isinstance(operation, Streamed):
        yield _header(
            "Last-Event-ID", "For a stream: the sequence to go on after.", {"type": "string", "pattern": r"^\d{1,15}$"}
        )
    if method == "POST":
        key = {"type": "string", "minLength": 1, "maxLength": 255, "pattern": r"^[\x21-\x7e]+$"}
        yield _header("Idempotency-Key", "The same key and body have one effect and the same answer.", key)


def _header(name: str, description: str, schema: Json) -> Json:
    return {"name": name, "in": "header", "required": False, "description": description, "schema": schema}


def _without_null(schema: Json) -> Json:
    """A parameter of a URL is given or not; null is a matter of JSON."""
    kept = {key: value for key, value in schema.items() if key != "anyOf" and (key, value) != ("default", None)}
    kinds = [kind for kind in schema.get("anyOf", ()) if kind != {"type": "null"}]
    return {**kinds[0], **kept} if len(kinds) == 1 else {**kept, **({"anyOf": kinds} if kinds else {})}


def _described(schema: Json) -> Json:
    description = {"description": schema["description"]} if "description" in schema else {}
    return {
        **description,
        "schema": {key: value for key, value in schema.items() if key not in ("description", "title")},
    }


# Responses


def _responses(path: str, operation: Operation) -> Json:
    answers = {str(status): _response(status, model) for status, model in operation.answers.items()}
    if isinstance(operation, Streamed):
        answers["200"]["content"][STREAM] = {"schema": {"type": "string"}}
        answers["204"] = _response(204, None)
    for status in _errors(path, operation):
        answers.setdefault(str(status), _response(status, models.Error))
    return {**answers, "default": {**_response(500, models.Error), "description": "Any other error"}}


def _errors(path: str, operation: Operation) -> list[int]:
    statuses = {400, 421, 500, 503}
    if operation.access is not Access.OPEN:
        statuses |= {401, 403, 404, 429}
    if "{" in path or operation.body:
        statuses.add(404)
    if operation.body:
        statuses |= {403, 409, 413, 415}
    return sorted(statuses)


def _response(status: int, model: type[BaseModel] | None) -> Json:
    response: Json = {
        "description": _MEANINGS.get(status, "An answer"),
        "headers": {"X-Request-ID": {"$ref": "#/components/headers/RequestId"}},
    }
    if status == 429:
        response["headers"]["Retry-After"] = {"description": "In seconds.", "schema": {"type": "integer"}}
    if status == 401:
        response["headers"]["WWW-Authenticate"] = {"description": "What is wanted.", "schema": {"type": "string"}}
    if status == 201:
        response["headers"]["Location"] = {"description": "Where it is.", "schema": {"type": "string"}}
    if model:
        response["content"] = {"application/json": {"schema": _ref(model)}}
    return response


def _ref(model: type[BaseModel]) -> Json:
    return {"$ref": _REF.format(model=model.__name__)}
