"""Where Python functions run by default: the event loop, threads and processes of this machine."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ..context import NodeContext, context_of
from ..errors import NodeFailed
from ..ports import NodeCall
from .failures import failure_of
from .functions import Function, find
from .processes import Processes

FUNCTION_THREADS = "jamjet-function"


class LocalCompute:
    """Async functions run on the loop, sync ones on threads; with isolation `process` both run in a process.

    A thread cannot be stopped: a sync function whose attempt is cancelled or timed out keeps its thread until
    it returns. A process is killed.
    """

    places = False

    def __init__(self, *, threads: int, processes: int, python_modules: Sequence[str] = ("*",)) -> None:
        self._allowed = tuple(python_modules)
        self._functions: dict[str, Function] = {}
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix=FUNCTION_THREADS)
        self._processes = Processes(processes, self._allowed)

    async def call(
        self, function: str, input: Any, *, isolation: str, resources: Mapping[str, float] | None = None, node: NodeCall
    ) -> Any:
        """Binds the parameters from `input` (mostly an object, but any JSON will do) and calls.

        Raises `NodeFailed` or `RateLimited`, whatever the function raised.
        """
        if isolation == "process":
            return await self._processes.call(function, input, node)
        found = self._functions.get(function) or await self._find(function)
        if found.is_async:
            return await _call(found, input, node)
        return await self._call_in_thread(found, input, node)

    async def close(self) -> None:
        """Does not wait for functions that still run on threads; kills those in processes."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        await self._processes.close()

    async def _find(self, name: str) -> Function:
        # An import can take seconds.
        found = await asyncio.get_running_loop().run_in_executor(self._threads, find, name, self._allowed)
        return self._functions.setdefault(name, found)

    async def _call_in_thread(self, function: Function, input: Any, node: NodeCall) -> Any:
        loop = asyncio.get_running_loop()
        run = contextvars.copy_context().run
        result = await loop.run_in_executor(self._threads, run, _call_sync, function, input, node, loop)
        # A decorated async function may look like a sync one.
        return await _awaited(result) if inspect.isawaitable(result) else result


async def _call(function: Function, input: Any, node: NodeCall) -> Any:
    def context() -> NodeContext:
        return context_of(node, asyncio.get_running_loop())

    try:
        positional, named = function.bind(input, context)
        return await function.target(*positional, **named)
    except asyncio.CancelledError as error:
        raise _unless_asked(error) from error
    except BaseException as error:
        raise failure_of(error) from error


def _call_sync(function: Function, input: Any, node: NodeCall, loop: asyncio.AbstractEventLoop) -> Any:
    try:
        positional, named = function.bind(input, lambda: context_of(node, loop))
        return function.target(*positional, **named)
    except BaseException as error:
        raise failure_of(error) from error


async def _awaited(result: Any) -> Any:
    try:
        return await result
    except asyncio.CancelledError as error:
        raise _unless_asked(error) from error
    except BaseException as error:
        raise failure_of(error) from error


def _unless_asked(error: asyncio.CancelledError) -> BaseException:
    """A cancellation passes; one that the function made up is its failure, or the work would be lost."""
    task = asyncio.current_task()
    return error if task is None or task.cancelling() else NodeFailed("the function cancelled itself")
