"""Remote workers: functions in other places and languages, over REST.

Such a worker holds a lease per piece of work, by the database's clock, and prolongs it by heartbeats. What it brings
stands on the fence of that lease, so who lost it changes nothing any more.
"""

from __future__ import annotations

import asyncio
import base64
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import msgspec

from ..core import events as ev
from ..core.progress import Run
from ..errors import Conflict, Invalid, LeaseLost, NodeFailed, NotFound, Problem, StorageError
from ..ports import Lease, NodeResult, Principal, WorkItem
from ..results import as_json
from .calls import Prepared, failed, obstacle, prepared, unfit, wanted
from .claims import Claims
from .commits import FENCES
from .live import Live
from .presence import Claimant, Presence, check_name, is_of_a_process

if TYPE_CHECKING:
    from .runtime import Runtime

log = logging.getLogger("jamjet.remote")

BEATS = 3
"""Heartbeats in the time of a lease: two in a row may be lost."""

_PAGE = 1000


@dataclass(frozen=True, slots=True)
class ItemId:
    """What a work item is called on the wire. `begun` is the sequence of the commit that enqueued it, which tells it
    from an earlier one of the same run."""

    execution_id: str
    run_id: str
    begun: int

    @classmethod
    def of(cls, item: WorkItem) -> ItemId:
        return cls(item.execution_id, item.run_id, item.fence >> FENCES)

    @classmethod
    def parse(cls, text: str) -> ItemId:
        """Raises `NotFound`."""
        with suppress(ValueError):
            encoded = text.removeprefix("work_")
            padded = (encoded + "=" * (-len(encoded) % 4)).encode("ascii")
            execution_id, run_id, begun = base64.urlsafe_b64decode(padded).decode().split("\n")
            found = cls(execution_id, run_id, int(begun))
            if str(found) == text and found.first_fence < 2**63:
                return found
        raise NotFound(f"work item {text}")

    def __str__(self) -> str:
        text = f"{self.execution_id}\n{self.run_id}\n{self.begun}"
        return "work_" + base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")

    @property
    def first_fence(self) -> int:
        """Of the first that it was handed to."""
        return (self.begun << FENCES) + 1


@dataclass(frozen=True, slots=True)
class Handed:
    """A piece of work as a remote worker gets it; `payload` is plain JSON."""

    item_id: str
    item: WorkItem
    payload: Mapping[str, Any]
    lease_seconds: float


@dataclass(frozen=True, slots=True)
class Held:
    """A piece of work that a remote worker says it holds.

    Without the fence it is meant as it was handed out first: a worker that knows of no fences may go on as long as
    nobody else has had it. The other two are checked where they are said.
    """

    item_id: str
    lease_fence: int | None = None
    execution_id: str | None = None
    node_id: str | None = None


class Remote:
    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._storage = runtime.storage
        self._lease = runtime.settings.lease_seconds
        self._presence = Presence(runtime.storage, runtime.world, round(self._lease * 1000))
        self.claims = Claims(
            runtime.storage, runtime.settings, runtime.world, runtime.alarms, runtime.patience, self._left
        )
        self.with_work = self._presence.with_work

    # Handing out

    async def claim(self, principal: Principal, claimant: Claimant, *, most: int, seconds: float) -> list[Handed]:
        """Up to `most` pieces of work of the caller's tenant, which are waited for where there are none.

        Raises `Invalid`, `StorageError`.
        """
        check_name(claimant.worker_id)
        await self._presence.claims(principal, claimant, seconds)
        try:
            return await self._claim(principal, claimant, most, seconds)
        except asyncio.CancelledError:
            self._runtime.own(self._presence.hangs_up(principal, claimant.worker_id))
            raise

    async def _claim(self, principal: Principal, claimant: Claimant, most: int, seconds: float) -> list[Handed]:
        clock = asyncio.get_running_loop().time
        deadline = clock() + seconds
        while True:
            items = await self.claims.claim(
                principal.tenant_id,
                claimant.worker_id,
                claimant.queues,
                most,
                round(self._lease * 1000),
                max(0.0, deadline - clock()),
            )
            handed = await self._hand_out(principal, items)
            # All that was claimed may be such that nobody is to do it now.
            if handed or not items:
                return handed

    async def _hand_out(self, principal: Principal, items: Sequence[WorkItem]) -> list[Handed]:
        try:
            answers = await asyncio.gather(*(self._try_to_hand_out(principal, item) for item in items))
        except asyncio.CancelledError:
            self._left(items)
            raise
        handed = [answer for answer in answers if isinstance(answer, Handed)]
        errors = [answer for answer in answers if isinstance(answer, StorageError)]
        if errors and not handed:
            raise errors[0]
        return handed

    async def _try_to_hand_out(self, principal: Principal, item: WorkItem) -> Handed | StorageError | None:
        try:
            return await self._handed(principal, item)
        except StorageError as error:
            self._left([item])
            return error

    async def _handed(self, principal: Principal, item: WorkItem) -> Handed | None:
        """None: nobody is to do it."""
        while True:
            live = await self._live(item.tenant_id, item.execution_id)
            run = None if live is None else wanted(live.committed, item)
            if live is None or run is None:
                log.info("the work at %s of %s is not wanted any more", item.run_id, item.execution_id)
                return None
            call = self._prepared(live, item, run)
            if isinstance(call, Prepared):
                return await self._start(principal, live, item, call)
            if await self._settled(item, call):
                return None

    def _prepared(self, live: Live, item: WorkItem, run: Run) -> Prepared | ev.Event:
        """What is to be called, or what becomes of the work instead."""
        if (instead := obstacle(live.committed, item, run)) is not None:
            return instead
        try:
            return prepared(live, item, run, self._runtime.env)
        except NodeFailed as failure:
            return failed(item.run_id, run, failure)

    async def _start(self, principal: Principal, live: Live, item: WorkItem, call: Prepared) -> Handed | None:
        worker_id, attempt = item.lease_owner or "", item.attempt
        event = ev.NodeStarted(at=0, node_id=item.run_id, attempt=attempt, worker_id=worker_id, actor=principal.id)
        try:
            await self._runtime.record(item.tenant_id, item.execution_id, event)
        except (Conflict, NotFound) as late:
            log.info("the work at %s of %s is not wanted any more: %s", item.run_id, item.execution_id, late)
            return None
        seconds = self._lease_of(live)
        if seconds != self._lease:
            await self._storage.work.renew(item, round(seconds * 1000))
        self._runtime.readiness.look_within(seconds)
        return Handed(str(ItemId.of(item)), item, _payload(live, call), seconds)

    async def _settled(self, item: WorkItem, event: ev.Event) -> bool:
        """False: things have changed meanwhile, look again."""
        try:
            await self._runtime.record(item.tenant_id, item.execution_id, event, lease=Lease(item.run_id, item.fence))
        except (LeaseLost, NotFound):
            return True
        except Conflict:
            return False
        return True

    def undelivered(self, handed: Sequence[Handed]) -> None:
        """The worker has hung up before it could be told."""
        self._left([one.item for one in handed])

    def _left(self, items: Sequence[WorkItem]) -> None:
        """They were leased to somebody who does not learn of it."""
        if items:
            self._runtime.own(self._give_back(items))

    async def _give_back(self, items: Sequence[WorkItem]) -> None:
        await self._storage.work.give_back(items)
        self._runtime.tell_of_work()

    # While it is done

    async def heartbeat(self, principal: Principal, held: Held, worker_id: str) -> float:
        """Prolongs the lease, and answers for how many seconds. Raises `Invalid`, `NotFound`, `LeaseLost`."""
        item_id = _parsed(held)
        fence = item_id.first_fence if held.lease_fence is None else held.lease_fence
        live = await self._live(principal.tenant_id, item_id.execution_id)
        if live is None:
            raise NotFound(f"work item {held.item_id}")
        seconds = self._lease_of(live)
        item = WorkItem(
            item_id.execution_id, item_id.run_id, 0, "", 0, principal.tenant_id, lease_owner=worker_id, fence=fence
        )
        if ItemId.of(item) != item_id or not await self._storage.work.renew(item, round(seconds * 1000)):
            raise _lost(item_id)
        self._runtime.readiness.look_within(seconds)
        await self._presence.beats(principal, worker_id, seconds)
        return seconds

    async def tell(self, principal: Principal, held: Held, data: Any) -> None:
        """What the running function has to say. Raises `Invalid`, `NotFound`, `LeaseLost`."""
        item, run = await self._held(principal, held)
        event = ev.NodeProgressed(at=0, node_id=item.run_id, attempt=run.attempt, data=data)
        await self._record(principal, item, event)

    # Taking back

    async def complete(
        self, principal: Principal, held: Held, result: NodeResult, *, duration_ms: float | None = None
    ) -> None:
        """Raises `NotFound`, `LeaseLost`, and `Invalid` for a result that cannot be taken in: then the attempt failed.

        Who asks again because the answer was lost is answered the same.
        """

        def event(item: WorkItem, run: Run) -> ev.Event:
            made = as_json(result)
            return ev.NodeCompleted(
                at=0,
                node_id=item.run_id,
                attempt=run.attempt,
                iteration=run.iteration,
                output=made.output,
                state_patch=made.state_patch,
                usage=made.usage,
                duration_ms=duration_ms,
                lease_fence=item.fence,
            )

        recorded = await self._take_back(principal, held, event)
        if isinstance(recorded, ev.NodeFailed):
            raise Invalid(f"{recorded.error.message}; the attempt has failed")

    async def fail(
        self, principal: Principal, held: Held, failure: NodeFailed, *, duration_ms: float | None = None
    ) -> bool:
        """Whether another attempt follows. Raises and repeats itself as `complete`."""

        def event(item: WorkItem, run: Run) -> ev.Event:
            return self._failure(item, run, failure, duration_ms)

        recorded = await self._take_back(principal, held, event)
        if not isinstance(recorded, ev.NodeFailed):
            raise _lost(_parsed(held))
        return not recorded.final

    async def release(self, principal: Principal, held: Held, *, reason: str | None, seconds: float = 0) -> None:
        """The same attempt is made again, by whoever takes it, after so many seconds. Raises as `complete`."""
        item, run = await self._held(principal, held)
        event = ev.NodeParked(
            at=0,
            node_id=item.run_id,
            attempt=run.attempt,
            iteration=run.iteration,
            until=self._runtime.world.now() + round(seconds * 1000),
            reason=reason or f"given back by {item.lease_owner}",
        )
        await self._record(principal, item, event, Lease(item.run_id, item.fence))

    async def _take_back(
        self, principal: Principal, held: Held, make: Callable[[WorkItem, Run], ev.Event]
    ) -> ev.NodeCompleted | ev.NodeFailed:
        """What is recorded of it, now or earlier under the same lease."""
        lost = None
        try:
            item, run = await self._held(principal, held)
            await self._bring(principal, item, run, make)
        except LeaseLost as error:
            lost = error
        if (recorded := await self._brought(principal, held)) is None:
            raise lost or _lost(_parsed(held))
        return recorded

    async def _bring(
        self, principal: Principal, item: WorkItem, run: Run, make: Callable[[WorkItem, Run], ev.Event]
    ) -> None:
        """Raises `Invalid` where the result cannot be taken in, once that is recorded as a failure: the worker would
        bring it again and again."""
        lease = Lease(item.run_id, item.fence)
        try:
            await self._record(principal, item, make(item, run), lease)
        except (LeaseLost, NotFound, StorageError):
            raise
        except Exception as error:
            log.warning("the result of %s in %s is refused", item.run_id, item.execution_id, exc_info=error)
            failure = unfit(error)
            await self._record(principal, item, self._failure(item, run, failure, None), lease)
            raise Invalid(f"{failure}; the attempt has failed") from error

    def _failure(self, item: WorkItem, run: Run, failure: NodeFailed, duration_ms: float | None) -> ev.NodeFailed:
        chance = self._runtime.world.chance()
        event = failed(item.run_id, run, failure, jitter=chance, duration_ms=duration_ms)
        return msgspec.structs.replace(event, lease_fence=item.fence)

    async def _record(self, principal: Principal, item: WorkItem, event: ev.Event, lease: Lease | None = None) -> None:
        by = replace(principal, id=f"worker:{item.lease_owner}")
        try:
            await self._runtime.record(item.tenant_id, item.execution_id, event, principal=by, lease=lease)
        except LeaseLost:
            raise
        except Conflict as late:
            raise LeaseLost(
                f"the work at {item.run_id} of {item.execution_id} is not wanted any more: {late}"
            ) from late

    # What is known of it

    async def _live(self, tenant_id: str, execution_id: str) -> Live | None:
        try:
            live = await self._runtime.lives.current(tenant_id, execution_id)
        except NotFound:
            return None
        return live if live.committed.sequence else None

    async def _held(self, principal: Principal, held: Held) -> tuple[WorkItem, Run]:
        """Raises `Invalid`, `NotFound`, `LeaseLost`."""
        item_id = _parsed(held)
        fence = item_id.first_fence if held.lease_fence is None else held.lease_fence
        item = await self._storage.work.get(principal.tenant_id, item_id.execution_id, item_id.run_id)
        live = await self._live(principal.tenant_id, item_id.execution_id)
        if live is None:
            raise NotFound(f"work item {held.item_id}")
        if item is None or ItemId.of(item) != item_id or item.fence != fence or _is_none_of_ours(item):
            raise _lost(item_id)
        if (run := wanted(live.committed, item)) is None:
            raise _lost(item_id)
        return item, run

    async def _brought(self, principal: Principal, held: Held) -> ev.NodeCompleted | ev.NodeFailed | None:
        """What a remote worker brought under just this lease."""
        item_id = _parsed(held)
        fence = item_id.first_fence if held.lease_fence is None else held.lease_fence
        after = item_id.begun
        while True:
            page = await self._storage.executions.events(principal.tenant_id, item_id.execution_id, after, _PAGE)
            for event in (ev.decode(recorded.body) for recorded in page):
                match event:
                    case ev.NodeCompleted(lease_fence=brought) | ev.NodeFailed(lease_fence=brought) if (
                        event.node_id == item_id.run_id
                    ):
                        return event if brought == fence else None
            if len(page) < _PAGE:
                return None
            after = page[-1].sequence

    def _lease_of(self, live: Live) -> float:
        interval = live.graph.definition.timeouts.heartbeat_interval
        return self._lease if interval is None else interval * BEATS


def _payload(live: Live, call: Prepared) -> dict[str, Any]:
    definition = live.graph.definition
    return {
        "kind": call.node.kind,
        "config": call.config.model_dump(mode="json", by_alias=True, exclude_none=True),
        "input": call.input,
        "idempotency_key": call.idempotency_key,
        "timeout_secs": call.node.timeout,
        "workflow_id": definition.workflow_id,
        "workflow_version": definition.version,
    }


def _parsed(held: Held) -> ItemId:
    item_id = ItemId.parse(held.item_id)
    said = {"execution_id": (held.execution_id, item_id.execution_id), "node_id": (held.node_id, item_id.run_id)}
    problems = [
        Problem(field, f"is {given!r}, and the work item is of {actual!r}")
        for field, (given, actual) in said.items()
        if given is not None and given != actual
    ]
    if problems:
        raise Invalid(problems)
    return item_id


def _is_none_of_ours(item: WorkItem) -> bool:
    """Nobody holds it, or a process of the runtime does."""
    return item.lease_owner is None or is_of_a_process(item.lease_owner)


def _lost(item_id: ItemId) -> LeaseLost:
    return LeaseLost(
        f"the work at {item_id.run_id} of {item_id.execution_id} is in other hands by now, or nobody wants it any more"
    )
