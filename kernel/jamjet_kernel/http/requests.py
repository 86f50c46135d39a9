"""What a request says: its body, its query, its idempotency key, who sends it."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar
from urllib.parse import parse_qsl

import falcon
import msgspec
from falcon.asgi import Request
from pydantic import BaseModel, ValidationError

from ..errors import Invalid, Problem
from ..ports import Principal
from ..runtime import Once
from .models import Body, Query

B = TypeVar("B", bound=Body)
Q = TypeVar("Q", bound=Query)

MAX_DEPTH = 128
"""Of objects and arrays within each other. What follows a state recursively must not run out of stack."""

# A connection that is closed over unread data is reset, and its client may never learn why: so this much more is read.
_LINGER = 32 * 2**20
_KEY = re.compile(r"[\x21-\x7e]{1,255}")
_decode = msgspec.json.Decoder().decode


def principal_of(req: Request) -> Principal:
    """Who calls, as `access.py` found out."""
    principal: Principal = req.context.principal
    return principal


async def body(req: Request, model: type[B], max_bytes: int) -> tuple[B, Once | None]:
    """The body, validated, and what makes the request one that has its effect once."""
    no_query(req)
    raw = await _read(req, max_bytes)
    parsed = _json(raw) if raw else {}
    return _validated(model, parsed), _once(req, raw)


def query(req: Request, model: type[Q]) -> Q:
    """The query, validated. A parameter without a value counts as not given."""
    given = _parameters(req.query_string) if req.query_string else {}
    return _validated(model, {name: value for name, value in given.items() if value or name not in model.model_fields})


def no_query(req: Request) -> None:
    if req.query_string:
        query(req, Query)


HANGS_UP = "jamjet.hangs_up"
"""Where in the scope a server puts what tells whether the client is still there: its `receive`."""


async def gone(req: Request) -> None:
    """Returns when the client has hung up. To be asked once the body was read."""
    # Not Falcon's own `receive`: its test client claims to be gone as soon as it has sent its request.
    receive = req.scope.get(HANGS_UP)
    if receive is None:
        await asyncio.Event().wait()
    assert receive is not None
    while (await receive())["type"] != "http.disconnect":
        pass


# Body


async def _read(req: Request, max_bytes: int) -> bytes:
    chunks: list[bytes] = []
    size = 0
    async for chunk in req.stream:
        size += len(chunk)
        if size <= max_bytes:
            chunks.append(chunk)
        elif size > max_bytes + _LINGER:
            break
    if size > max_bytes:
        raise falcon.HTTPContentTooLarge(
            description=f"the body is larger than {max_bytes} bytes (JAMJET_MAX_BODY_BYTES)",
            headers={"Connection": "close"},
        )
    if chunks:
        _check_media_type(req.content_type)
    return b"".join(chunks)


def _check_media_type(content_type: str | None) -> None:
    media_type, _, parameters = (content_type or "").lower().partition(";")
    charset = parameters.partition("charset=")[2].strip(' "')
    if media_type.strip() != "application/json" or charset not in ("", "utf-8", "utf8"):
        got = content_type or "no Content-Type"
        raise falcon.HTTPUnsupportedMediaType(description=f"{got} is not understood; send application/json")


def _json(raw: bytes) -> Any:
    try:
        value = _decode(raw)
    except RecursionError:
        raise _too_deep() from None
    except ValueError as error:
        raise Invalid(f"the body is not JSON: {_why_not(raw, error)}") from error
    # Counting is quick; only a body that could be too deep is walked.
    if raw.count(b"[") + raw.count(b"{") > MAX_DEPTH and _is_deeper(value, MAX_DEPTH):
        raise _too_deep()
    return value


def _why_not(raw: bytes, error: ValueError) -> str:
    try:
        raw.decode()
    except UnicodeDecodeError as wrong:
        return f"invalid UTF-8 (byte {wrong.start})"
    what = str(error).removeprefix("JSON is malformed: ")
    return what if "byte" in what or "$" in what else f"{what} (byte {len(raw)})"


def _too_deep() -> Invalid:
    return Invalid(f"the body is nested deeper than {MAX_DEPTH} levels")


def _is_deeper(value: Any, levels: int) -> bool:
    level = [value]
    for _ in range(levels):
        level = [child for parent in level for child in _children(parent)]
        if not level:
            return False
    return any(isinstance(value, dict | list) for value in level)


def _children(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


# Query


def _parameters(text: str) -> dict[str, str]:
    try:
        pairs = parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=100)
    except UnicodeDecodeError as error:
        raise Invalid("the query is not UTF-8") from error
    except ValueError as error:
        raise Invalid("the query has more than 100 parameters") from error
    given: dict[str, str] = {}
    for name, value in pairs:
        if name in given:
            raise Invalid([Problem(name, "is given more than once")])
        given[name] = value
    return given


# Idempotency


def _once(req: Request, raw: bytes) -> Once | None:
    key = req.get_header("Idempotency-Key")
    if key is None:
        return None
    if not _KEY.fullmatch(key):
        raise Invalid([Problem("Idempotency-Key", "must be 1 to 255 visible ASCII characters")])
    request = b"\0".join((req.method.encode(), req.path.encode(), raw))
    return Once(key, hashlib.sha256(request).hexdigest())


# Validation


M = TypeVar("M", bound=BaseModel)


def _validated(model: type[M], given: Any) -> M:
    if not isinstance(given, dict):
        raise Invalid(f"the body must be a JSON object, not {_kind(given)}")
    try:
        return model.model_validate(given)
    except ValidationError as error:
        raise Invalid(list(_problems(model, error))) from None


def _kind(value: Any) -> str:
    kinds = {str: "a string", list: "an array", bool: "a boolean", type(None): "null"}
    return kinds.get(type(value), "a number")


def _problems(model: type[BaseModel], error: ValidationError) -> Iterator[Problem]:
    for wrong in error.errors(include_url=False, include_context=False):
        place = ".".join(map(str, wrong["loc"]))
        match wrong["type"]:
            case "missing":
                yield Problem(place, "is required")
            case "extra_forbidden":
                yield Problem(place, f"is unknown{_known(model, wrong['loc'][:-1])}")
            case "dict_type" | "model_type":
                yield Problem(place, "should be an object")
            case "string_pattern_mismatch":
                yield Problem(place, "holds a control character")
            case _:
                yield Problem(place, wrong["msg"].removeprefix("Value error, ").replace("Input should", "should"))


def _known(model: type[BaseModel], place: tuple[int | str, ...]) -> str:
    for name in place:
        field = model.model_fields.get(str(name))
        if field is None or not (isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)):
            return ""
        model = field.annotation
    return f"; known: {', '.join(model.model_fields) or 'none'}"
