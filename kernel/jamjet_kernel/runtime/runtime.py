"""The door, and the use cases that lead to it.

Whatever happens to an execution is an event that enters by `Runtime.record`: the core decides what follows, the
journal makes it durable, and only then is it acted on.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec
from pluggy import PluginManager

from ..core import events as ev
from ..core import progress as core
from ..core.decide import SettleWork, decide
from ..core.definition import Subgraph
from ..core.graph import Graph, parse
from ..core.progress import Progress, Status
from ..core.redaction import Redactor
from ..errors import (
    Conflict,
    Evicted,
    Invalid,
    InvalidTransition,
    JamJetError,
    KeyTaken,
    LimitReached,
    NotFound,
    Problem,
    SequenceConflict,
    StorageError,
)
from ..plugins import contributed, observers
from ..ports import (
    Authenticator,
    DeadLetter,
    Head,
    Lease,
    NodeExecutor,
    OpenApproval,
    Principal,
    Receipt,
    Recorded,
    Route,
    Storage,
    Timer,
    WorkflowVersion,
    WorkItem,
)
from ..ports import Worker as WorkerProcess
from ..settings import Settings
from .agents import Agents
from .alarms import Alarms
from .audit import audited
from .audit_log import AuditLog, Retention
from .commits import Commits
from .deliveries import Deliveries
from .gossip import Gossip, mark_of
from .identity import Identity
from .inventory import Inventory
from .journal import Entry, Journal, Void
from .live import Live, LiveExecutions, head_of, replay
from .membership import Membership
from .patience import Patience
from .readiness import Readiness
from .recovery import Recovery
from .refusals import Refusals
from .remote import Remote
from .tenants import Tenants, Terms
from .worker import Worker
from .workflows import WorkflowCache, in_order, queues_of, warnings_of
from .world import RealWorld, World

log = logging.getLogger("jamjet.runtime")

RACES = 20
"""Lost in a row, something is wrong that trying again does not mend."""

KEEP_ALIVE = 15.0


@dataclass(frozen=True, slots=True)
class Once:
    """An `Idempotency-Key`, and a hash of the request that it came with."""

    key: str
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Registration:
    workflow_id: str
    version: str
    warnings: list[str]


@dataclass(frozen=True, slots=True)
class View:
    """An execution as it is stored."""

    head: Head
    progress: Progress


class Runtime:
    """Made by `open_runtime`, which also runs its tasks."""

    def __init__(
        self,
        settings: Settings,
        storage: Storage,
        plugins: PluginManager,
        executors: Mapping[str, NodeExecutor],
        *,
        identity: Identity,
        version: str,
        world: World | None = None,
    ) -> None:
        self.settings = settings
        self.storage = storage
        self.plugins = plugins
        self.executors = executors
        self.identity = identity
        self.version = version
        self.world = world or RealWorld()
        self.authenticators: Sequence[Authenticator] = contributed(
            plugins.hook.authenticators, settings=settings, storage=storage, world=self.world
        )
        self.ready = False
        self.is_draining = False
        self.patience = Patience()
        self.encode_view: Callable[[View], bytes] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.env = {name: os.environ[name] for name in settings.env_names if name in os.environ}
        self._observers = observers(plugins)
        self._kinds = {kind: executor.config for kind, executor in executors.items()}
        self.tenants = Tenants(self)
        self.agents = Agents(self)
        self.workflow_cache = WorkflowCache(storage, self._kinds)
        self.lives = LiveExecutions(storage, self.workflow_cache, settings.live_executions)
        self.journal = Journal(storage, self._committed)
        self.membership = Membership(
            storage,
            self.world,
            version=version,
            lease_seconds=settings.lease_seconds,
            about=self._about,
            evicted=self._evicted,
            met=self._met,
        )
        self._commits = Commits(self.world, self)
        self._redaction_key = identity.secret("redaction")
        self.audit = AuditLog(storage, identity, settings.audit_keys)
        self.refusals = Refusals(storage, self.world)
        self.retention = Retention(storage, self.world, settings.audit_retention_days)
        self.alarms = Alarms(self.world)
        self.worker = Worker(self, executors, self.env, settings.concurrency)
        self.deliveries = Deliveries(self)
        self.recovery = Recovery(self)
        self.remote = Remote(self)
        self.inventory = Inventory(self)
        self.gossip = Gossip(
            storage,
            self.membership,
            work=self.hear_of_work,
            left=self.recovery.wake_for_all,
            moved=self._moved_elsewhere,
        )
        self.readiness = Readiness(self)

    # Among other processes

    def drain(self) -> None:
        """It is about to stop: what is new goes to others, what runs here goes on."""
        if not self.is_draining:
            self.is_draining = True
            self.worker.drain()
            self.readiness.suspect()  # so that others see it among the workers

    @property
    def worker_id(self) -> str:
        return self.membership.worker_id

    def room(self, queue: str) -> int:
        """How many more pieces of work of the queue may be leased to this process as they are decided."""
        if self.is_draining or queue not in self.settings.queues or queue in self.settings.queue_limits:
            return 0
        return self.worker.room

    def _about(self) -> dict[str, Any]:
        return {
            "queues": list(self.settings.queues),
            "kinds": sorted(self.executors),
            "concurrency": self.settings.concurrency,
            "running": self.worker.running,
            "waiting": self.worker.waiting,
            "draining": self.is_draining,
            "key": self.identity.fingerprint,
        }

    def _met(self, other: WorkerProcess) -> None:
        theirs, ours = other.details.get("key"), self.identity.fingerprint
        if theirs not in (None, ours):
            log.warning(
                "THE PROCESS %s ON %s SIGNS WITH ANOTHER KEY (%s) THAN THIS ONE (%s): each takes the other's records in"
                " the audit log for forged, and pseudonyms differ; give all processes of a database the same"
                " JAMJET_SIGNING_KEY, or the same signing.key in their JAMJET_HOME",
                other.worker_id,
                other.host,
                theirs,
                ours,
            )

    def _evicted(self) -> None:
        """All that this process held is others' by now."""
        self.worker.abandon()
        self.deliveries.abandon()
        self.alarms.clear()
        self.lives.clear()
        self.recovery.wake_for_all()

    def _moved_elsewhere(self, marks: set[int]) -> None:
        self.own(self.lives.refresh(lambda key: mark_of(key) in marks))

    def hear_of_work(self) -> None:
        """There may be some that nobody holds."""
        self.recovery.wake()
        self.remote.claims.look_again()

    def tell_of_work(self) -> None:
        """To the other processes too."""
        self.gossip.work()
        self.hear_of_work()

    def own(self, work: Coroutine[Any, Any, None]) -> None:
        """Does it beside everything else; what fails of it is told in the log."""
        task = asyncio.create_task(_logged(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def finish(self) -> None:
        """Returns when all that is done beside is done."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    # The door

    async def record(
        self,
        tenant_id: str,
        execution_id: str,
        event: ev.Event,
        *,
        principal: Principal | None = None,
        receipt: Receipt | None = None,
        delivered: str | None = None,
        lease: Lease | None = None,
    ) -> None:
        """Returns when the event and all that follows from it are durable. The time is put on it here.

        `principal`: who made it happen, where somebody did. `lease`: what a worker's result stands on.

        Raises `NotFound`, `InvalidTransition`, `LeaseLost` or another `Conflict`, `Invalid`, `StorageError`.
        """
        for _ in range(RACES):
            terms = await self.tenants.terms(tenant_id)
            live = await self.lives.get(tenant_id, execution_id)
            try:
                return await self._advance(live, terms, event, principal, receipt, delivered, lease)
            except SequenceConflict:
                continue
            except Evicted as error:
                await self.membership.rejoin(error.worker_id)
        raise StorageError(f"execution {execution_id} is changed by others faster than this could be recorded")

    async def _advance(
        self,
        live: Live,
        terms: Terms,
        event: ev.Event,
        principal: Principal | None,
        receipt: Receipt | None,
        delivered: str | None,
        lease: Lease | None = None,
    ) -> None:
        # Nothing is awaited before the journal: a copy that nothing is in flight of may be dropped any time.
        if live.is_stale:
            self.lives.forget(live)
            raise SequenceConflict
        stamped = self._redacted(live.graph, msgspec.structs.replace(event, at=self.world.now()))
        try:
            decision = decide(live.graph, live.progress, stamped, self.env, terms.policies)
        except JamJetError:
            # A refusal is final for the work or the delivery behind it, so it must rest on what is durable.
            if await live.becomes_durable(live.progress) and await self.lives.is_current(live):
                raise
            self.lives.forget(live)
            raise SequenceConflict from None
        commit = self._commits.of(
            live, decision, cause=stamped, principal=principal, receipt=receipt, delivered=delivered, lease=lease
        )
        if _opens(live.progress, decision.progress):
            commit = replace(commit, max_open=terms.limits.concurrent_executions)
        live.progress = decision.progress
        live.in_flight += 1
        try:
            await self.journal.write(commit, live, decision)
        except JamJetError as error:
            self.lives.forget(live)
            if isinstance(error, StorageError):
                self.readiness.doubt()
                self.inventory.doubt()
            raise
        finally:
            live.in_flight -= 1
            self.lives.release(live)

    def _redacted(self, graph: Graph, event: ev.Event) -> ev.Event:
        return event if graph.redaction is None else Redactor(graph.redaction, self._redaction_key).event(event)

    def _committed(self, entry: Entry) -> None:
        """What was decided is durable: it is shown, and carried out."""
        live, commit = entry.live, entry.commit
        live.commit(entry.decision.progress, commit.head)
        for run_id in commit.settle:
            self.worker.withdraw(live.tenant_id, live.execution_id, run_id)
        for item in commit.enqueue:
            if item.lease_owner == self.worker_id:
                self.start_work(item)
            elif item.lease_owner is None:
                self._offer(item)
        for timer_id in commit.cancel_timers:
            self.alarms.cancel((live.tenant_id, live.execution_id, timer_id))
        for timer in commit.set_timers:
            self.set_timer(timer)
        for delivery in commit.send:
            self.deliveries.send(delivery)
        if any(isinstance(command, SettleWork) and self._is_limited(command) for command in entry.decision.commands):
            self.tell_of_work()
        self.gossip.execution((live.tenant_id, live.execution_id))
        self._tell_observers(live, entry.decision.events)

    def _is_limited(self, ended: SettleWork) -> bool:
        """Something else may have waited for the place that it had."""
        return ended.concurrency is not None or ended.queue in self.settings.queue_limits

    def _offer(self, item: WorkItem) -> None:
        """Nobody holds it: whoever serves its queue and has room."""
        self.gossip.work()
        self.remote.claims.offer(item)
        if item.queue in self.settings.queues:
            self.recovery.wake()

    def _tell_observers(self, live: Live, events: Sequence[ev.Event]) -> None:
        for observer in self._observers:
            try:
                observer({"tenant_id": live.tenant_id, "execution_id": live.execution_id, "events": events})
            except Exception:  # an observer cannot veto
                log.exception("a plugin's events_recorded failed")

    def start_work(self, item: WorkItem) -> None:
        """Runs it now, or when it is due."""
        if item.available_at <= self.world.now():
            self.worker.dispatch(item)
        else:
            self.alarms.set(_alarm_of(item), item.available_at, lambda: self.worker.dispatch(item))

    def has_begun(self, item: WorkItem) -> bool:
        """Whether it was given to `start_work`, and is not done yet."""
        return self.worker.has(item) or _alarm_of(item) in self.alarms

    def set_timer(self, timer: Timer) -> None:
        """When it is due soon; what is due later is found by a later look at the storage."""
        if timer.lease_owner != self.worker_id:
            return
        self.alarms.set(_alarm_of(timer), timer.fire_at, lambda: self.deliveries.fire(timer))

    def has_set(self, timer: Timer) -> bool:
        return _alarm_of(timer) in self.alarms

    # Workflows

    async def register(self, principal: Principal, ir: Any, *, once: Once | None = None) -> Registration:
        """Raises `Invalid` with all problems, `Conflict` when the version has other content."""
        graph = parse(ir, self._kinds)
        await self._check_references(principal, graph)
        definition = graph.definition
        stored = WorkflowVersion(definition.workflow_id, definition.version, msgspec.json.encode(ir), self.world.now())

        resource = f"workflow/{stored.workflow_id}@{stored.version}"
        told = audited(self.world, principal, "workflow_registered", resource=resource)

        async def add(receipt: Receipt | None) -> None:
            try:
                limit = (await self.tenants.terms(principal.tenant_id)).limits.workflows
                await self.storage.workflows.add(principal.tenant_id, stored, receipt, [told], limit)
                self.workflow_cache.added(principal.tenant_id, stored.workflow_id)
            except (KeyTaken, LimitReached):
                raise
            except Conflict:
                await self._check_same(principal, stored)

        await self.once(principal, once, f"{stored.workflow_id}@{stored.version}", add)
        warnings = warnings_of(graph, await self._served(principal, graph), self.executors)
        return Registration(stored.workflow_id, stored.version, warnings)

    async def _served(self, principal: Principal, graph: Graph) -> set[str]:
        """The queues that somebody who lives takes work from."""
        served = set(self.settings.queues)
        if not queues_of(graph) <= served:
            for worker in await self.membership.page(principal.tenant_id):
                served.update(worker.details.get("queues", ()))
        return served

    async def _check_same(self, principal: Principal, offered: WorkflowVersion) -> None:
        """The same content may be written with its keys in another order."""
        found = await self.storage.workflows.get(principal.tenant_id, offered.workflow_id, offered.version)
        if found is None or msgspec.json.decode(found.ir) != msgspec.json.decode(offered.ir):
            raise Conflict(
                f"workflow {offered.workflow_id} version {offered.version} is registered with other content;"
                " a version never changes: give this one a new number"
            )

    async def _check_references(self, principal: Principal, graph: Graph) -> None:
        problems = []
        for node in graph.nodes.values():
            config = (node.body or node).config
            if isinstance(config, Subgraph) and config.workflow_ref != graph.definition.workflow_id:
                try:
                    await self._version(principal, config.workflow_ref, config.workflow_version)
                except NotFound as missing:
                    place = f"nodes.{node.id}.kind.workflow_ref"
                    problems.append(Problem(place, f"there is no {missing}; register it first"))
        if problems:
            raise Invalid(problems)

    async def _version(self, principal: Principal, workflow_id: str, version: str | None) -> str:
        """The version that is meant, once it is known to be there."""
        if version in (None, "", "latest"):
            return await self.workflow_cache.latest(principal.tenant_id, workflow_id)
        assert version is not None
        await self.workflow_cache.get(principal.tenant_id, workflow_id, version)
        return version

    async def workflows(
        self, principal: Principal, *, limit: int = 50, after: str | None = None
    ) -> list[tuple[str, str, int]]:
        return await self.storage.workflows.page(principal.tenant_id, limit=limit, after=after)

    async def workflow_versions(self, principal: Principal, workflow_id: str) -> list[tuple[str, int]]:
        """Latest first. Raises `NotFound`."""
        found = await self.storage.workflows.versions(principal.tenant_id, workflow_id)
        if not found:
            raise NotFound(f"workflow {workflow_id}")
        return in_order(found)

    async def workflow_ir(self, principal: Principal, workflow_id: str, version: str | None) -> bytes:
        """The IR as it was registered, in JSON. Raises `NotFound`."""
        wanted = await self._version(principal, workflow_id, version)
        stored = await self.storage.workflows.get(principal.tenant_id, workflow_id, wanted)
        if stored is None:
            raise NotFound(f"workflow {workflow_id} version {wanted}")
        return stored.ir

    # Executions

    async def start(
        self,
        principal: Principal,
        workflow_id: str,
        workflow_version: str | None,
        input: dict[str, Any],
        *,
        priority: int = 0,
        once: Once | None = None,
    ) -> str:
        """The new execution's id. Raises `NotFound`, and `Invalid` when the input does not fit."""
        with self.readiness.one_more_start():
            version = await self._version(principal, workflow_id, workflow_version)
            execution_id = self.world.new_id("exec")
            event = ev.WorkflowStarted(
                at=0,
                execution_id=execution_id,
                workflow_id=workflow_id,
                workflow_version=version,
                input=input,
                actor=principal.id,
                priority=priority,
            )

            async def begin(receipt: Receipt | None) -> None:
                await self.check_start(principal.tenant_id)
                await self.begin(principal.tenant_id, event, principal=principal, receipt=receipt)

            return await self.once(principal, once, execution_id, begin)

    async def begin(
        self,
        tenant_id: str,
        event: ev.WorkflowStarted,
        *,
        principal: Principal | None = None,
        receipt: Receipt | None = None,
        delivered: str | None = None,
    ) -> None:
        """Creates the execution. Raises `SequenceConflict` when it is there already."""
        terms = await self.tenants.terms(tenant_id)
        graph = await self.workflow_cache.get(tenant_id, event.workflow_id, event.workflow_version)
        nothing = Progress(execution_id=event.execution_id)
        while True:
            live = Live(tenant_id, event.execution_id, graph, nothing, nothing, head_of(nothing))
            self.lives.add(live)
            try:
                return await self._advance(live, terms, event, principal, receipt, delivered)
            except Evicted as error:
                self.lives.forget(live)
                await self.membership.rejoin(error.worker_id)
            except Void:  # this process was taken for dead since, and forgot all that it had
                continue
            except JamJetError:
                self.lives.forget(live)
                raise

    async def check_start(self, tenant_id: str) -> None:
        """Raises what speaks against one more execution."""
        self.readiness.check_journal()
        self.readiness.check_backlog()
        await self.tenants.check_start(tenant_id)

    async def execution(self, principal: Principal, execution_id: str) -> View:
        """Raises `NotFound`."""
        live = await self._committed_live(principal, execution_id)
        return View(live.head, live.committed)

    async def execution_json(self, principal: Principal, execution_id: str) -> bytes:
        """What `encode_view` makes of it, kept until the next commit. Raises `NotFound`."""
        assert self.encode_view is not None
        live = await self._committed_live(principal, execution_id)
        if live.answer is None:
            live.answer = self.encode_view(View(live.head, live.committed))
        return live.answer

    async def _committed_live(self, principal: Principal, execution_id: str) -> Live:
        live = await self.lives.current(principal.tenant_id, execution_id)
        if live.committed.sequence == 0:  # its first commit is still on its way
            raise NotFound(f"execution {execution_id}")
        return live

    async def wait(self, principal: Principal, execution_id: str, seconds: float) -> View:
        """The execution once it has ended, or as it is when patience is over. Raises `NotFound`."""
        live = await self._committed_live(principal, execution_id)
        try:
            async with self.patience.of(seconds):
                while not live.committed.is_terminal:
                    await live.watch()
                    live = await self.lives.get(principal.tenant_id, execution_id)
        except TimeoutError:
            pass
        return View(live.head, live.committed)

    async def executions(
        self,
        principal: Principal,
        *,
        status: Status | None = None,
        workflow_id: str | None = None,
        limit: int = 50,
        offset: int = 0,
        before: tuple[int, str] | None = None,
    ) -> list[Head]:
        return await self.storage.executions.page(
            principal.tenant_id, status=status, workflow_id=workflow_id, limit=limit, offset=offset, before=before
        )

    async def events(
        self, principal: Principal, execution_id: str, *, after: int = 0, limit: int = 1000
    ) -> list[Recorded]:
        """Raises `NotFound`."""
        await self._committed_live(principal, execution_id)
        return await self.storage.executions.events(principal.tenant_id, execution_id, after, limit)

    async def follow(
        self, principal: Principal, execution_id: str, *, after: int = 0
    ) -> AsyncIterator[Recorded | None]:
        """Each committed event once, as it comes, until the execution has ended; None when it was quiet for a while."""
        while True:
            live = await self._committed_live(principal, execution_id)
            change = live.watch()
            try:
                for recorded in await self.storage.executions.events(principal.tenant_id, execution_id, after):
                    yield recorded
                    after = recorded.sequence
                if after < live.committed.sequence:
                    continue
                if live.committed.is_terminal:
                    return
                async with asyncio.timeout(KEEP_ALIVE):
                    await change
            except TimeoutError:
                yield None
            finally:  # who left does not keep the copy in memory
                change.cancel()

    async def cancel(
        self, principal: Principal, execution_id: str, *, reason: str | None = None, once: Once | None = None
    ) -> None:
        """Cancelling what is cancelled changes nothing. Raises `Conflict` when it has ended otherwise."""
        try:
            event = ev.WorkflowCancelled(at=0, reason=reason, actor=principal.id)
            await self._happen(principal, execution_id, event, once)
        except InvalidTransition:
            if (await self.execution(principal, execution_id)).head.status is not Status.CANCELLED:
                raise

    async def pause(self, principal: Principal, execution_id: str, *, once: Once | None = None) -> None:
        event = ev.WorkflowPaused(at=0, reason="requested", actor=principal.id)
        await self._happen(principal, execution_id, event, once)

    async def resume(self, principal: Principal, execution_id: str, *, once: Once | None = None) -> None:
        event = ev.WorkflowResumed(at=0, reason="requested", actor=principal.id)
        await self._happen(principal, execution_id, event, once)

    async def retry(self, principal: Principal, execution_id: str, *, once: Once | None = None) -> None:
        """A failed execution goes on from what failed."""
        self.readiness.check_journal()
        await self._happen(principal, execution_id, ev.WorkflowRetried(at=0, actor=principal.id), once)

    async def requeue(self, principal: Principal, execution_id: str, run_id: str, *, once: Once | None = None) -> None:
        """The execution of a dead letter goes on from what failed, all of it. Raises `NotFound`."""
        self.readiness.check_journal()

        async def retry(receipt: Receipt | None) -> None:
            await self.dead_letter(principal, execution_id, run_id)
            await self.check_start(principal.tenant_id)
            event = ev.WorkflowRetried(at=0, actor=principal.id)
            await self.record(principal.tenant_id, execution_id, event, principal=principal, receipt=receipt)

        await self.once(principal, once, execution_id, retry)

    async def dead_letter(self, principal: Principal, execution_id: str, run_id: str) -> DeadLetter:
        """Raises `NotFound`."""
        found = await self.storage.dead_letters.get(principal.tenant_id, execution_id, run_id)
        if found is None:
            raise NotFound(f"dead letter of {run_id} in {execution_id}")
        return found

    async def dead_letters(
        self,
        principal: Principal,
        *,
        queue: str | None = None,
        limit: int = 50,
        after: tuple[str, str] | None = None,
    ) -> list[DeadLetter]:
        """What failed for good and took its execution with it, by (execution_id, run_id)."""
        return await self.storage.dead_letters.page(principal.tenant_id, queue=queue, limit=limit, after=after)

    async def approve(
        self,
        principal: Principal,
        execution_id: str,
        *,
        decision: str,
        node_id: str | None = None,
        user_id: str | None = None,
        comment: str | None = None,
        state_patch: dict[str, Any] | None = None,
        once: Once | None = None,
    ) -> None:
        event = ev.ApprovalReceived(
            at=0,
            node_id=node_id,
            decision=decision,
            user_id=user_id,
            comment=comment,
            state_patch=state_patch,
            actor=principal.id,
        )
        await self._happen(principal, execution_id, event, once)

    async def external_event(
        self,
        principal: Principal,
        execution_id: str,
        *,
        correlation_key: str,
        payload: Any = None,
        once: Once | None = None,
    ) -> None:
        event = ev.ExternalEventReceived(at=0, correlation_key=correlation_key, payload=payload, actor=principal.id)
        await self._happen(principal, execution_id, event, once)

    async def fork(
        self,
        principal: Principal,
        execution_id: str,
        *,
        sequence: int | None = None,
        state: dict[str, Any] | None = None,
        state_patch: dict[str, Any] | None = None,
        once: Once | None = None,
    ) -> str:
        """A new execution that goes on from an event of another, with an edited state."""
        self.readiness.check_journal()
        await self._committed_live(principal, execution_id)
        source, sequence = await self._at(principal, execution_id, sequence)
        edited = source.state if state is None else state
        progress, rerun = core.branched(source, core.merge(edited, state_patch or {}))
        new_id = self.world.new_id("exec")
        event = ev.WorkflowStarted(
            at=0,
            execution_id=new_id,
            workflow_id=source.workflow_id,
            workflow_version=source.workflow_version,
            input=source.input,
            forked_from=ev.Origin(execution_id, sequence),
            progress=progress,
            rerun=rerun,
            actor=principal.id,
            priority=source.priority,
        )

        async def begin(receipt: Receipt | None) -> None:
            await self.check_start(principal.tenant_id)
            await self.begin(principal.tenant_id, event, principal=principal, receipt=receipt)

        return await self.once(principal, once, new_id, begin)

    async def _at(self, principal: Principal, execution_id: str, sequence: int | None) -> tuple[Progress, int]:
        """The progress right after an event. A loop that the event closed is taken along."""
        loaded = await self.storage.executions.load(principal.tenant_id, execution_id, sequence)
        if loaded is None or (sequence is not None and not 0 < sequence <= loaded.head.sequence):
            last = 0 if loaded is None else loaded.head.sequence
            raise Invalid([Problem("sequence", f"there is no event {sequence}; the last one is {last}")])
        progress = replay(loaded)
        following = await self.storage.executions.events(principal.tenant_id, execution_id, progress.sequence, 100)
        for event in (ev.decode(recorded.body) for recorded in following):
            if not isinstance(event, ev.IterationStarted):
                break
            progress = core.evolve(progress, event)
        return progress, progress.sequence

    async def approvals(
        self,
        principal: Principal,
        *,
        execution_id: str | None = None,
        limit: int = 50,
        after: tuple[str, str] | None = None,
    ) -> list[OpenApproval]:
        """What waits for a person. Raises `NotFound` for an execution that is not there."""
        if execution_id is not None:
            await self._committed_live(principal, execution_id)
        return await self.storage.approvals.page(
            principal.tenant_id, execution_id=execution_id, limit=limit, after=after
        )

    async def workers(self, principal: Principal) -> list[WorkerProcess]:
        """The processes of the runtime, and the tenant's remote workers."""
        return await self.remote.with_work(principal.tenant_id, await self.membership.page(principal.tenant_id))

    def routes(self) -> list[Route]:
        """What plugins add to the REST surface."""
        return contributed(self.plugins.hook.http_routes, runtime=self)

    async def _happen(self, principal: Principal, execution_id: str, event: ev.Event, once: Once | None) -> None:
        await self._committed_live(principal, execution_id)

        async def record(receipt: Receipt | None) -> None:
            if isinstance(event, ev.WorkflowRetried):
                await self.check_start(principal.tenant_id)
            await self.record(principal.tenant_id, execution_id, event, principal=principal, receipt=receipt)

        await self.once(principal, once, execution_id, record)

    async def once(
        self,
        principal: Principal,
        once: Once | None,
        result: str,
        act: Callable[[Receipt | None], Awaitable[None]],
    ) -> str:
        """Acts, unless a request with this key did already; answers what the request led to.

        The receipt is part of the act's own commit, so there is no moment at which one is there without the other.
        """
        if once is None:
            await act(None)
            return result
        found = await self.storage.receipts.get(principal.tenant_id, once.key)
        if found is None:
            try:
                await act(Receipt(once.key, once.fingerprint, result, self.world.now()))
                return result
            except Conflict:  # with this request itself, when it was on its way twice
                found = await self.storage.receipts.get(principal.tenant_id, once.key)
                if found is None:
                    raise
        if found.fingerprint != once.fingerprint:
            raise KeyReused(f"the Idempotency-Key {once.key!r} was used with another request")
        return found.result


class KeyReused(Conflict):
    """The idempotency key belongs to another request."""

    code = "idempotency_key_reused"


async def _logged(work: Coroutine[Any, Any, None]) -> None:
    try:
        await work
    except JamJetError as error:
        log.warning("what others told could not be looked at: %s", error)


def _alarm_of(later: WorkItem | Timer) -> tuple[str, ...]:
    match later:
        case Timer():
            return (later.tenant_id, later.execution_id, later.timer_id)
        case WorkItem():
            return (later.tenant_id, later.execution_id, later.run_id, "work")


def _opens(before: Progress, after: Progress) -> bool:
    """Whether there is one more to run, on its own account: a child is part of what its parent was allowed."""
    return (before.sequence == 0 or before.is_terminal) and not after.is_terminal and after.parent is None
