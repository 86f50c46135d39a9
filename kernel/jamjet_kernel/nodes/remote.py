"""One call of a function in another process: what is done there, and what comes back.

For computes. An answer is JSON, so that who reads it needs none of the function's classes and trusts no pickle.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import msgspec

from ..context import Emit, NodeContext
from ..core.events import Usage
from ..errors import NodeFailed
from ..ports import NodeResult
from ..results import as_json, jsonable
from .failures import as_values, failure_of, from_values
from .functions import Function, find

__all__ = ["failed", "perform", "succeeded", "value_of"]


def perform(name: str, allowed: Sequence[str], input: Any, context: NodeContext, emit: Emit | None = None) -> bytes:
    """Finds the function, binds its parameters and calls it. The answer is for `value_of`; raises nothing.

    `emit` is what the context's `emit` does.
    """
    try:
        return succeeded(_called(_found(name, tuple(allowed)), input, replace(context, _emit=emit)))
    except BaseException as error:
        return failed(error)


def succeeded(value: Any) -> bytes:
    """Raises `NodeFailed` for what has no JSON form."""
    if not isinstance(value, NodeResult):
        return _encode(_Answer(output=jsonable(value)))
    result = as_json(value)
    return _encode(_Answer(result.output, is_result=True, state_patch=result.state_patch, usage=result.usage))


def failed(error: BaseException) -> bytes:
    failure = failure_of(error)
    if isinstance(failure, NodeFailed):
        failure.details = _plain(failure.details)
    return _encode(_Answer(failure=as_values(failure)))


def value_of(answer: bytes) -> Any:
    """What the function returned. Raises `NodeFailed` or `RateLimited`, as it did."""
    read = _decode(answer)
    if read.failure is not None:
        raise from_values(read.failure)
    return NodeResult(read.output, read.state_patch, read.usage) if read.is_result else read.output


class _Answer(msgspec.Struct, omit_defaults=True):
    output: Any = None
    is_result: bool = False
    state_patch: dict[str, Any] | None = None
    usage: Usage | None = None
    failure: tuple[Any, ...] | None = None


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(_Answer).decode
_found = functools.lru_cache(maxsize=None)(find)


def _called(function: Function, input: Any, context: NodeContext) -> Any:
    named_alike = logging.getLogger(context.logger.name)
    positional, named = function.bind(input, lambda: replace(context, logger=named_alike))
    result = function.target(*positional, **named)
    return asyncio.run(_finished(result)) if inspect.isawaitable(result) else result


async def _finished(result: Any) -> Any:
    return await result


def _plain(details: dict[str, Any]) -> dict[str, Any]:
    """As JSON; what has no such form is told in words."""
    try:
        plain: dict[str, Any] = jsonable(details)
        return plain
    except NodeFailed:
        return {str(name): repr(value) for name, value in details.items()}
