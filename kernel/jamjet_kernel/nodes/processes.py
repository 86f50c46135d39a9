"""Functions in processes of their own.

Each worker process has a `ProcessPoolExecutor` to itself: a broken executor fails everything it
holds, and here a process that dies, or is killed because its call was cancelled, takes nobody with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..context import NodeContext
from ..errors import NodeFailed
from ..ports import NodeCall
from .remote import perform, value_of

if TYPE_CHECKING:
    from concurrent.futures import ProcessPoolExecutor


class Processes:
    """At most `count` worker processes. They are started when they are needed, and stay."""

    def __init__(self, count: int, allowed: Sequence[str]) -> None:
        self._allowed = tuple(allowed)
        self._free = asyncio.Semaphore(count)
        self._idle: list[_Worker] = []
        self._busy: set[_Worker] = set()

    async def call(self, function: str, input: Any, node: NodeCall) -> Any:
        """Raises `NodeFailed` as `io_error` when the process dies. A cancelled call kills its process."""
        async with self._free:
            worker = self._idle.pop() if self._idle else await _start(function)
            self._busy.add(worker)
            try:
                answer = await worker.run(function, self._allowed, input, _plain_context(node))
                self._idle.append(worker)
            except BaseException:
                worker.kill()
                raise
            finally:
                self._busy.discard(worker)
        return value_of(answer)

    async def close(self) -> None:
        workers = [*self._idle, *self._busy]
        self._idle.clear()
        for worker in workers:
            worker.kill()
        await asyncio.gather(*(asyncio.to_thread(worker.executor.shutdown) for worker in workers))


class _Worker:
    def __init__(self, executor: ProcessPoolExecutor, pid: int) -> None:
        self.executor = executor
        self.pid = pid

    async def run(self, function: str, allowed: tuple[str, ...], input: Any, context: NodeContext) -> bytes:
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self.executor, perform, function, allowed, input, context)
        except (EOFError, OSError, RuntimeError) as error:
            # BrokenProcessPool is a RuntimeError.
            raise _died(function, f"the process that ran {function} died without an answer") from error

    def kill(self) -> None:
        # ProcessPoolExecutor can kill its workers from Python 3.14 on.
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        self.executor.shutdown(wait=False, cancel_futures=True)


async def _start(function: str) -> _Worker:
    executor = await asyncio.to_thread(_executor)
    pid: int | None = None
    try:
        # The first submit starts the process, which takes 10 ms.
        pid = await asyncio.wrap_future(await asyncio.to_thread(executor.submit, os.getpid))
        return _Worker(executor, pid)
    except (OSError, RuntimeError) as error:
        hint = "a script that starts the runtime must do so under `if __name__ == '__main__':`"
        raise _died(function, f"no process could be started to run {function}; {hint}") from error
    finally:
        # Only a worker that was made has somebody to end it.
        if pid is None:
            executor.shutdown(wait=False, cancel_futures=True)


def _executor() -> ProcessPoolExecutor:
    # These imports cost more than all the other imports of this package together, and few need them.
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    # Not fork: this process has threads.
    return ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"), initializer=_prepare)


def _died(function: str, message: str) -> NodeFailed:
    return NodeFailed(message, error_class="io_error", details={"function": function})


def _plain_context(node: NodeCall) -> NodeContext:
    return NodeContext(
        execution_id=node.execution_id,
        node_id=node.node_id,
        attempt=node.attempt,
        idempotency_key=node.idempotency_key,
        deadline=node.deadline,
        logger=node.logger,
    )


# In the worker process


def _prepare() -> None:
    # A terminal sends Ctrl-C to all; the runtime decides what becomes of its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A worker holds both ends of its queue, so it would wait forever for a runtime that was killed."""
    import multiprocessing

    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
