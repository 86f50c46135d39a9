"""The worker of this process: runs the nodes that wait for one.

Work is committed already leased to this process and starts when the commit returns, so nothing is polled. What was
not finished when the process died is in the storage, and is run again by whoever takes it over.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import logging
from collections.abc import Awaitable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from ..core import events as ev
from ..core.progress import Run
from ..errors import Conflict, NodeFailed, NotFound, RateLimited, StorageError
from ..ports import Lease, NodeCall, NodeExecutor, NodeResult, WorkItem
from ..results import as_json, jsonable
from .calls import Prepared, failed, obstacle, prepared, refused, wanted
from .commits import FENCES
from .live import Live

if TYPE_CHECKING:
    from .runtime import Runtime

log = logging.getLogger("jamjet.worker")
node_log = logging.getLogger("jamjet.node")

RunKey: TypeAlias = tuple[str, str, str]
"""(tenant_id, execution_id, run_id)"""

Fence: TypeAlias = int
"""Tells a run's pieces of work apart."""


class Worker:
    """Runs at most `concurrency` nodes at a time; of the others the most urgent is the next, then what came first."""

    def __init__(
        self, runtime: Runtime, executors: Mapping[str, NodeExecutor], env: Mapping[str, str], concurrency: int
    ) -> None:
        self._runtime = runtime
        self._executors = executors
        self._env = env
        self._concurrency = concurrency
        self._tasks: dict[RunKey, dict[Fence, asyncio.Task[None]]] = {}
        self._alive: set[asyncio.Task[None]] = set()
        self._running: set[asyncio.Task[None]] = set()
        self._backlog = Backlog()
        self._not_begun: list[WorkItem] = []
        self._known: set[tuple[RunKey, Fence]] = set()
        self._stopping = False

    @property
    def running(self) -> int:
        return len(self._running)

    @property
    def waiting(self) -> int:
        return len(self._backlog)

    @property
    def room(self) -> int:
        """How many more there could be at work."""
        return 0 if self._stopping else max(0, self._concurrency - self.running - self.waiting)

    def has(self, item: WorkItem) -> bool:
        """Whether it is at work here, or waits its turn."""
        return _piece(item) in self._known

    def dispatch(self, item: WorkItem) -> None:
        run = _run_key(item)
        if item.fence in self._tasks.get(run, ()):
            return
        if self._stopping:
            self._hand_back([item])
            return
        self._known.add(_piece(item))
        if self.running >= self._concurrency:
            self._backlog.add(item)
            return
        task = asyncio.create_task(self._work(item))
        self._tasks.setdefault(run, {})[item.fence] = task
        self._alive.add(task)
        self._running.add(task)
        task.add_done_callback(lambda ended: self._end(item, ended))

    def withdraw(self, tenant_id: str, execution_id: str, run_id: str) -> None:
        """The run is over without its result: tells a running function to stop."""
        for task in self._tasks.pop((tenant_id, execution_id, run_id), {}).values():
            task.cancel()

    def abandon(self) -> None:
        """All of it is others' by now."""
        self._known.difference_update(map(_piece, self._backlog.clear()))
        for task in list(self._running):
            task.cancel()

    def drain(self) -> None:
        """Starts nothing more. What has not begun goes to others."""
        self._stopping = True
        self._hand_back(self._backlog.clear())

    def _hand_back(self, items: Iterable[WorkItem]) -> None:
        if self._runtime.storage.exclusive:  # it is free for the next start as soon as this process has left
            return
        is_under_way = bool(self._not_begun)
        self._not_begun.extend(items)
        if self._not_begun and not is_under_way:
            task = asyncio.create_task(self._give_back())
            self._alive.add(task)
            task.add_done_callback(self._alive.discard)

    async def _give_back(self) -> None:
        items, self._not_begun = self._not_begun, []
        try:
            await self._runtime.storage.work.give_back(items)
        except StorageError as error:
            log.warning("%d nodes go to others only when this process has left: %s", len(items), error)
        else:
            self._runtime.gossip.work()

    async def stop(self, grace: float) -> None:
        """Gives what runs some seconds. The rest is free for others as soon as this process has left."""
        self.drain()
        if tasks := set(self._alive):
            _, late = await asyncio.wait(tasks, timeout=grace)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def _work(self, item: WorkItem) -> None:
        task = asyncio.current_task()
        assert task is not None
        event = await self._attempt(item)
        while isinstance(event, ev.NodeHeld) and not await self._report(item, event):
            event = await self._attempt(item)
        self._leave(item, task)
        if event is not None and not isinstance(event, ev.NodeHeld):
            await self._report(item, event)

    def _end(self, item: WorkItem, task: asyncio.Task[None]) -> None:
        """A task that is cancelled before its first step has not left by itself."""
        self._alive.discard(task)
        self._known.discard(_piece(item))
        self._leave(item, task)
        if not task.cancelled() and (error := task.exception()):
            log.error("cannot run %s of %s before the next start", item.run_id, item.execution_id, exc_info=error)

    def _leave(self, item: WorkItem, task: asyncio.Task[None]) -> None:
        """The function is done; its result is still to be recorded, which nobody may cancel."""
        self._running.discard(task)
        run = _run_key(item)
        pieces = self._tasks.get(run, {})
        if pieces.get(item.fence) is task:
            del pieces[item.fence]
            if not pieces:
                del self._tasks[run]
        while self._backlog and self.running < self._concurrency and not self._stopping:
            self.dispatch(self._backlog.take())
        self._runtime.recovery.room()

    async def _live(self, item: WorkItem) -> Live | None:
        while True:
            try:
                lives = self._runtime.lives
                # What was not leased to this process when it was enqueued may have moved on elsewhere since.
                find = lives.current if _was_claimed(item) else lives.get
                return await find(item.tenant_id, item.execution_id)
            except NotFound:
                return None
            except StorageError as error:
                log.warning("cannot load %s to run %s: %s", item.execution_id, item.run_id, error)
                await asyncio.sleep(1)

    async def _attempt(self, item: WorkItem) -> ev.Event | None:
        """Runs the node once; answers what became of it, or None when nobody waits for it any more."""
        live = await self._live(item)
        if live is None:
            return None
        run = wanted(live.committed, item)
        if run is None:
            return None
        if (instead := obstacle(live.committed, item, run)) is not None:
            return instead
        began = self._runtime.world.stopwatch()
        try:
            result = await self._execute(live, item, run)
        except RateLimited as limit:
            until = self._runtime.world.now() + round(max(0.0, limit.retry_after) * 1000)
            return ev.NodeParked(
                at=0, node_id=item.run_id, attempt=run.attempt, iteration=run.iteration, until=until, reason=str(limit)
            )
        except NodeFailed as failure:
            return failed(
                item.run_id, run, failure, jitter=self._runtime.world.chance(), duration_ms=self._since(began)
            )
        return ev.NodeCompleted(
            at=0,
            node_id=item.run_id,
            attempt=run.attempt,
            iteration=run.iteration,
            output=result.output,
            state_patch=result.state_patch,
            usage=result.usage,
            duration_ms=self._since(began),
        )

    def _since(self, began: float) -> float:
        return round(self._runtime.world.stopwatch() - began, 3)

    async def _execute(self, live: Live, item: WorkItem, run: Run) -> NodeResult:
        call = prepared(live, item, run, self._env)
        executor, given = self._executors[call.node.kind], self._call(call, item, run)
        try:
            if call.node.timeout is None:
                return as_json(await executor.execute(given))
            return as_json(await _within(call.node.timeout, executor.execute(given)))
        except (NodeFailed, RateLimited):
            raise
        except TimeoutError as error:
            raise NodeFailed(f"TimeoutError: {error}", error_class="timeout") from error
        except asyncio.CancelledError as error:
            if (task := asyncio.current_task()) and task.cancelling():
                raise
            raise NodeFailed("the node cancelled itself") from error
        except Exception as error:  # an executor's bug fails its node and nothing else
            log.warning("node %s of %s broke", item.run_id, item.execution_id, exc_info=error)
            raise NodeFailed(f"{type(error).__name__}: {error}") from error

    def _call(self, call: Prepared, item: WorkItem, run: Run) -> NodeCall:
        async def emit(data: Any) -> None:
            event = ev.NodeProgressed(at=0, node_id=item.run_id, attempt=run.attempt, data=jsonable(data))
            await self._runtime.record(item.tenant_id, item.execution_id, event)

        timeout = call.node.timeout
        return NodeCall(
            execution_id=item.execution_id,
            node_id=item.run_id,
            attempt=run.attempt,
            config=call.config,
            input=call.input,
            idempotency_key=call.idempotency_key,
            tenant_id=item.tenant_id,
            deadline=None if timeout is None else asyncio.get_running_loop().time() + timeout,
            logger=node_log,
            emit=emit,
        )

    async def _report(self, item: WorkItem, event: ev.Event) -> bool:
        """Records the result. A storage that fails is asked again: the work is done, its result is not kept yet.

        False: nobody wants it."""
        lease = Lease(item.run_id, item.fence)
        while True:
            try:
                await self._runtime.record(item.tenant_id, item.execution_id, event, lease=lease)
                return True
            except (Conflict, NotFound) as late:
                log.info("the result of %s in %s is not wanted: %s", item.run_id, item.execution_id, late)
                return False
            except StorageError as error:
                log.warning("cannot store the result of %s in %s: %s", item.run_id, item.execution_id, error)
                await asyncio.sleep(1)
            except Exception as error:  # what cannot be taken in would be made again at each start
                if not isinstance(event, ev.NodeCompleted):
                    raise
                log.warning("the result of %s in %s is refused", item.run_id, item.execution_id, exc_info=error)
                event = refused(event, error)


class Backlog:
    """What waits, the most urgent first, then what came first."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, WorkItem]] = []
        self._count = itertools.count()

    def __len__(self) -> int:
        return len(self._heap)

    def add(self, item: WorkItem) -> None:
        heapq.heappush(self._heap, (-item.priority, next(self._count), item))

    def take(self) -> WorkItem:
        return heapq.heappop(self._heap)[-1]

    def clear(self) -> list[WorkItem]:
        """Answers what there was."""
        left, self._heap = self._heap, []
        return [item for _, _, item in left]


async def _within(seconds: float, work: Awaitable[NodeResult]) -> NodeResult:
    limit = asyncio.timeout(seconds)
    try:
        async with limit:
            return await work
    except TimeoutError as error:
        if not limit.expired():
            raise
        raise NodeFailed(f"took longer than {seconds:g} s", error_class="timeout") from error


def _run_key(item: WorkItem) -> RunKey:
    return (item.tenant_id, item.execution_id, item.run_id)


def _piece(item: WorkItem) -> tuple[RunKey, Fence]:
    return _run_key(item), item.fence


def _was_claimed(item: WorkItem) -> bool:
    return item.fence & ((1 << FENCES) - 1) > 0
