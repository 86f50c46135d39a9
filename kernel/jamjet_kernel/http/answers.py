"""How answers are written."""

from __future__ import annotations

import functools
import hashlib
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import msgspec
from falcon.asgi import Request, Response

encode = msgspec.json.Encoder().encode

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def answer(resp: Response, value: Any, status: int = 200) -> None:
    resp.status = status
    resp.data = encode(value)


def created(resp: Response, value: Any, *place: str) -> None:
    answer(resp, value, 201)
    resp.set_header("Location", "/" + "/".join(quote(part, safe=":") for part in place))


def send_unless_known(req: Request, resp: Response, content: bytes) -> None:
    """For what seldom changes: a browser keeps it, and asks each time whether it is still the same."""
    tag = f'"{_digest(content)}"'
    resp.cache_control = ["no-cache"]
    resp.set_header("ETag", tag)
    if tag in (req.get_header("If-None-Match") or ""):
        resp.status = 304
    else:
        resp.data = content


@functools.lru_cache(maxsize=16)
def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:32]


def timestamp(milliseconds: int) -> str:
    """RFC 3339, UTC, with milliseconds."""
    # Not by way of a float: that would print 1.2 s as 1.199 now and then.
    moment = _EPOCH + timedelta(milliseconds=milliseconds)
    return moment.isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"


def optional_timestamp(milliseconds: int | None) -> str | None:
    return None if milliseconds is None else timestamp(milliseconds)
