"""How an error is answered: one table from error to status, and the body of the contract."""

from __future__ import annotations

import logging
import math
from typing import Any

import falcon
import msgspec
from falcon.asgi import App, Request, Response

from ..errors import (
    Conflict,
    Forbidden,
    Invalid,
    JamJetError,
    NotFound,
    Overloaded,
    PluginError,
    Problem,
    RateExceeded,
    RemoteFailed,
    StorageError,
    StorageSilent,
    Unauthenticated,
)

STATUSES: dict[type[JamJetError], tuple[int, str]] = {
    Invalid: (400, "bad request: "),
    Unauthenticated: (401, ""),
    Forbidden: (403, ""),
    NotFound: (404, "not found: "),
    Conflict: (409, "conflict: "),
    RateExceeded: (429, "too many requests: "),
    Overloaded: (429, "too many requests: "),
    PluginError: (500, "internal error: "),
    RemoteFailed: (424, "failed dependency: "),
    StorageError: (503, "unavailable: "),
    JamJetError: (500, "internal error: "),
}
"""What an error and its heirs are answered with: the status, and how the message begins."""

_PREFIXES = {400: "bad request: ", 403: "forbidden: ", 404: "not found: ", 500: "internal error: "}
_log = logging.getLogger("jamjet.http")
_encode = msgspec.json.Encoder(enc_hook=str).encode


def install(app: App[Request, Response]) -> None:
    app.add_error_handler(Exception, _unexpected)
    app.add_error_handler(JamJetError, _ours)
    app.add_error_handler(falcon.HTTPError, _of_http)


async def _ours(req: Request, resp: Response, error: JamJetError, params: dict[str, Any]) -> None:
    status, prefix = next(STATUSES[kind] for kind in type(error).__mro__ if kind in STATUSES)
    # While the database is silent, every request would say so again.
    if status >= 500 and not isinstance(error, StorageSilent):
        # Many requests meet one outage: a line each is enough.
        is_known = isinstance(error, StorageError) and not _log.isEnabledFor(logging.DEBUG)
        _log.error("%s %s: %s", req.method, req.path, error, extra=_extra(req), exc_info=None if is_known else error)
    if status == 401:
        # RFC 6750, 3.1: who brought no credential is not told that one is wrong.
        brought = req.get_header("Authorization") is not None
        resp.set_header("WWW-Authenticate", 'Bearer error="invalid_token"' if brought else "Bearer")
    if isinstance(error, RateExceeded | Overloaded | StorageError):
        resp.set_header("Retry-After", str(math.ceil(error.retry_after)))
    message = _sentences(error.problems) if isinstance(error, Invalid) else str(error)
    _answer(resp, status, prefix + message, error.code, error.details)


async def _of_http(req: Request, resp: Response, error: falcon.HTTPError, params: dict[str, Any]) -> None:
    """What HTTP itself has a word for: no such route, no such method, a body that is too large …"""
    title = error.title.partition(" ")[2] or "error"
    if error.headers:
        resp.set_headers(error.headers)
    match error:
        case falcon.HTTPRouteNotFound():
            description = f"there is nothing at {req.path}; see /docs"
        case falcon.HTTPMethodNotAllowed():
            description = f"{req.method} is not possible at {req.path}; {resp.get_header('Allow')} are"
        case _:
            description = error.description or title.lower()
    prefix = _PREFIXES.get(error.status_code, f"{title.lower()}: ")
    _answer(resp, error.status_code, prefix + description, title.lower().replace(" ", "_"), {})


async def _unexpected(req: Request, resp: Response, error: Exception, params: dict[str, Any]) -> None:
    """A defect of ours. What it says stays in the log; the request id leads there."""
    _log.error("%s %s failed", req.method, req.path, extra=_extra(req), exc_info=error)
    request_id = _extra(req)["request_id"]
    _answer(resp, 500, f"internal error: see the log for request {request_id}", "internal", {"request_id": request_id})


def _sentences(problems: list[Problem]) -> str:
    sentences = [_sentence(problem) for problem in problems]
    # The contract's answer to a definition without a name, whatever else is wrong with it.
    return sentences[0] if sentences[0] == "ir.workflow_id is required" else "; ".join(sentences)


def _sentence(problem: Problem) -> str:
    if problem.place and problem.message.startswith(("is ", "must ", "should ", "holds ", "cannot ")):
        return f"{problem.place} {problem.message}"
    return str(problem)


def _answer(resp: Response, status: int, message: str, code: str, details: dict[str, Any]) -> None:
    resp.status = status
    resp.content_type = falcon.MEDIA_JSON
    readable = message.encode("utf-8", "backslashreplace").decode()
    resp.data = _encode({"error": readable, "code": code, "details": details})


def _extra(req: Request) -> dict[str, str]:
    return {"request_id": getattr(req.context, "request_id", "-")}
