"""Events on their way: from one execution to another, and from the clock.

A delivery is stored by the commit that caused it and deleted by the commit that takes it in, so it arrives
exactly once, whatever dies in between.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

import msgspec

from ..core import events as ev
from ..errors import Conflict, Invalid, NotFound, StorageError
from ..ports import Delivery, Timer
from .live import Key

if TYPE_CHECKING:
    from .runtime import Runtime

log = logging.getLogger("jamjet.deliveries")


class Deliveries:
    """What goes to one execution arrives in order; different executions do not wait for each other."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._last: dict[Key, asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._on_their_way: set[tuple[str, str]] = set()

    def has(self, delivery: Delivery) -> bool:
        """Whether it is on its way."""
        return _key(delivery) in self._on_their_way

    def send(self, delivery: Delivery) -> None:
        key = (delivery.tenant_id, delivery.execution_id)
        task = asyncio.create_task(self._deliver(delivery, self._last.get(key)))
        self._last[key] = task
        self._own(task)
        self._on_their_way.add(_key(delivery))
        task.add_done_callback(lambda _: self._on_their_way.discard(_key(delivery)))
        task.add_done_callback(lambda done: self._last.pop(key) if self._last.get(key) is done else None)

    def fire(self, timer: Timer) -> None:
        self._own(asyncio.create_task(self._fire(timer)))

    async def stop(self) -> None:
        """What has not arrived is stored and goes on at the next start."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def abandon(self) -> None:
        """All of it is others' by now."""
        for task in self._tasks:
            task.cancel()

    def _own(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _deliver(self, delivery: Delivery, before: asyncio.Task[None] | None) -> None:
        if before is not None:
            await asyncio.wait([before])
        event = ev.decode(delivery.body)
        while True:
            try:
                return await self._take_in(delivery, event)
            except StorageError as error:
                log.warning("cannot deliver %s to %s: %s", ev.kind_of(event), delivery.execution_id, error)
                await asyncio.sleep(1)
            except Exception:  # a bug must not go unheard; the delivery is stored and comes again
                log.exception("cannot deliver %s to %s before the next start", ev.kind_of(event), delivery.execution_id)
                return None

    async def _take_in(self, delivery: Delivery, event: ev.Event) -> None:
        runtime, tenant_id = self._runtime, delivery.tenant_id
        try:
            if isinstance(event, ev.WorkflowStarted):
                return await self._start_child(delivery, event)
            await runtime.record(tenant_id, delivery.execution_id, event, delivered=delivery.delivery_id)
        except (Conflict, NotFound) as late:
            log.info("%s is not wanted by %s: %s", ev.kind_of(event), delivery.execution_id, late)
            await runtime.storage.work.drop_delivery(tenant_id, delivery.delivery_id)
        return None

    async def _start_child(self, delivery: Delivery, event: ev.WorkflowStarted) -> None:
        runtime, tenant_id = self._runtime, delivery.tenant_id
        await self._check_wanted(tenant_id, event)
        try:
            version = event.workflow_version or await runtime.workflow_cache.latest(tenant_id, event.workflow_id)
            started = msgspec.structs.replace(event, workflow_version=version)
            await runtime.begin(tenant_id, started, delivered=delivery.delivery_id)
        except (NotFound, Invalid) as error:
            assert event.parent is not None
            failure = ev.Failure(f"the child execution could not start: {error}")
            news = ev.ChildWorkflowFailed(
                at=0, node_id=event.parent.node_id, child_execution_id=event.execution_id, error=failure
            )
            await runtime.record(tenant_id, event.parent.execution_id, news, delivered=delivery.delivery_id)

    async def _check_wanted(self, tenant_id: str, event: ev.WorkflowStarted) -> None:
        """Raises `Conflict` for a child whose parent does not wait for it any more: nothing of it starts."""
        assert event.parent is not None
        above = (await self._runtime.lives.get(tenant_id, event.parent.execution_id)).committed
        if above.run(event.parent.node_id).child_execution_id != event.execution_id:
            raise Conflict(f"{event.parent.execution_id} is {above.status} and does not wait for it")

    async def _fire(self, timer: Timer) -> None:
        event = ev.TimerFired(at=0, timer_id=timer.timer_id, fire_at=timer.fire_at, node_id=timer.node_id)
        while True:
            try:
                return await self._runtime.record(timer.tenant_id, timer.execution_id, event)
            except StorageError as error:
                log.warning("the timer %s of %s could not be recorded: %s", timer.timer_id, timer.execution_id, error)
                await asyncio.sleep(1)
            except (Conflict, NotFound) as late:
                log.debug("the timer %s of %s comes too late: %s", timer.timer_id, timer.execution_id, late)
                return None


def _key(delivery: Delivery) -> tuple[str, str]:
    return delivery.tenant_id, delivery.delivery_id
