"""What a function's exception means to the node that called it."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Any

from ..errors import NodeFailed, RateLimited

_OURS = str(Path(__file__).parent)
_FRAMES = 8


def failure_of(error: BaseException) -> NodeFailed | RateLimited:
    """The failure that an exception stands for. What a function raises on purpose stays what it is."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    if isinstance(error, NodeFailed | RateLimited):
        return error
    return NodeFailed(
        described(error),
        error_class=_class_of(error),
        details={"type": type(error).__qualname__, "traceback": user_frames(error)},
    )


def described(error: BaseException) -> str:
    text = str(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def user_frames(error: BaseException) -> list[str]:
    """The innermost frames, without the ones between the runtime and the function."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not _is_ours(frame.filename)]
    return [f"{frame.filename}:{frame.lineno} in {frame.name}: {frame.line}" for frame in frames[-_FRAMES:]]


def as_values(failure: NodeFailed | RateLimited) -> tuple[Any, ...]:
    """The failure in a form that travels between processes whatever its class does to its arguments."""
    if isinstance(failure, RateLimited):
        return failure.retry_after, str(failure)
    return str(failure), failure.retryable, failure.error_class, failure.details


def from_values(values: tuple[Any, ...]) -> NodeFailed | RateLimited:
    if len(values) == 2:
        return RateLimited(*values)
    message, retryable, error_class, details = values
    return NodeFailed(message, retryable=retryable, error_class=error_class, details=details)


def _class_of(error: BaseException) -> str:
    match error:
        case TimeoutError():
            return "timeout"
        case ConnectionResetError():
            return "connection_reset"
        case OSError():
            return "io_error"
    return "custom"


def _is_ours(filename: str) -> bool:
    return filename.startswith((_OURS, "<frozen importlib"))
