"""Where a list goes on: positions in it, opaque to the client."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from typing import Annotated, Any, TypeVar

import msgspec

from ..errors import Invalid, Problem

T = TypeVar("T")

Number = Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)]
Text = Annotated[str, msgspec.Meta(pattern=r"\A[^\x00]*\Z")]


def page(found: Sequence[T], limit: int, position: Callable[[T], tuple[Any, ...]]) -> tuple[Sequence[T], str | None]:
    """What to show of `limit + 1` things, and the cursor of the next page if there is one."""
    shown = found[:limit]
    return shown, write(position(shown[-1])) if len(found) > limit else None


def write(position: tuple[Any, ...]) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode(position)).rstrip(b"=").decode()


def read(cursor: str | None, shape: type[T]) -> T | None:
    """The position, which must be of the given shape."""
    if cursor is None:
        return None
    try:
        raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        return msgspec.json.decode(raw, type=shape)
    except ValueError as error:
        raise bad_cursor() from error


def bad_cursor() -> Invalid:
    return Invalid([Problem("cursor", "is not one that this list gave out; leave it out to begin at the start")])
