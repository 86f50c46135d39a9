"""What a node makes, as the log will hold it: JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import msgspec
from pydantic import BaseModel

from .errors import NodeFailed
from .ports import NodeResult


def as_json(result: NodeResult) -> NodeResult:
    """Raises `NodeFailed`, not retryable, for what has no JSON form."""
    patch = result.state_patch
    if patch is not None and not isinstance(patch, Mapping):
        raise NodeFailed(f"state_patch is an object, not {type(patch).__name__}", retryable=False)
    return NodeResult(jsonable(result.output), None if patch is None else jsonable(patch), result.usage)


def jsonable(value: Any) -> Any:
    """The value as it will be read back from the log, and a copy: what a function keeps of it changes nothing here.

    Raises `NodeFailed`, not retryable.
    """
    if value is None or isinstance(value, bool | str):
        return value
    try:
        text = _encode(value)
        copy = _decode(text)
        # msgspec writes NaN and the infinities as null, as JavaScript does.
        if b"null" in text and not _is_finite(value):
            raise ValueError("NaN and infinity have no JSON form")
        return copy
    except (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError) as error:
        raise NodeFailed(f"the result is not JSON: {error}", retryable=False) from error


def copied(value: Any) -> Any:
    """A copy of what is JSON already."""
    return _decode(_encode(value))


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    raise TypeError(f"{type(value).__name__} has no JSON form; return dicts, lists, texts, numbers or a model")


def _is_finite(value: Any) -> bool:
    match value:
        case float():
            return math.isfinite(value)
        case Mapping():
            return all(map(_is_finite, value.values()))
        case list() | tuple() | set() | frozenset():
            return all(map(_is_finite, value))
    return True


_encode = msgspec.json.Encoder(enc_hook=_plain).encode
_decode = msgspec.json.Decoder().decode
