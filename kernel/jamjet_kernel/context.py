"""What a function learns about the attempt it runs in, when it asks by a parameter."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as StillRunning
from dataclasses import dataclass, field
from typing import Any

from .ports import NodeCall

Emit = Callable[[Any], Any]


@dataclass(frozen=True)
class NodeContext:
    """The attempt that a function runs in; a parameter annotated with this class gets it.

    `idempotency_key` is the same for all attempts of one run: hand it to whatever must not be done twice.
    `deadline` is a reading of `time.monotonic()`, or None.
    """

    execution_id: str
    node_id: str
    attempt: int
    idempotency_key: str
    deadline: float | None = None
    logger: logging.Logger = field(default_factory=lambda: logging.getLogger("jamjet.node"))
    _emit: Emit | None = field(default=None, repr=False, compare=False)

    def remaining(self) -> float | None:
        """Seconds until the deadline, at least 0."""
        return None if self.deadline is None else max(0.0, self.deadline - time.monotonic())

    def emit(self, data: Any) -> Any:
        """Records a progress event: `await context.emit(…)` in an async function, a plain call in a sync one.

        Either way the event is recorded when it returns. Raises when the attempt is over by then.
        """
        if self._emit is None:
            raise RuntimeError(f"emit() is not available to {self.node_id} here; it needs isolation: thread")
        return self._emit(data)


def context_of(call: NodeCall, loop: asyncio.AbstractEventLoop) -> NodeContext:
    return NodeContext(
        execution_id=call.execution_id,
        node_id=call.node_id,
        attempt=call.attempt,
        idempotency_key=call.idempotency_key,
        deadline=call.deadline,
        logger=call.logger,
        _emit=_emitter(call.emit, loop) if call.emit is not None else None,
    )


def _emitter(emit: Callable[[Any], Awaitable[None]], loop: asyncio.AbstractEventLoop) -> Emit:
    async def record(data: Any) -> None:
        await emit(data)

    def either(data: Any) -> Any:
        if asyncio._get_running_loop() is loop:
            # A task, so that it is recorded also where somebody forgets to await it.
            return loop.create_task(record(data))
        return _wait(asyncio.run_coroutine_threadsafe(record(data), loop), loop)

    return either


def _wait(recorded: Future[None], loop: asyncio.AbstractEventLoop) -> None:
    while True:
        try:
            return recorded.result(timeout=1)
        except StillRunning:
            if recorded.done():
                raise
            # A loop that stopped in between never answers, and a waiting thread would keep the process alive.
            if loop.is_closed():
                raise RuntimeError("the runtime has stopped") from None
