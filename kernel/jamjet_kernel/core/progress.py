"""What a log adds up to.

`evolve` folds one event into a progress and answers the next one; replay is `reduce(evolve, log)`.
Both are values: nothing is changed in place, so a progress may be read while the next is being made.
An event that cannot happen raises `InvalidTransition` and changes nothing.

An edge is settled when its source is over, and live when it was taken. `arrivals` counts both per node,
so what an event costs does not depend on how many events came before it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Any

import msgspec
from msgspec.structs import replace

from ..errors import InvalidTransition
from . import events as ev
from .graph import item_of, map_of
from .layers import changed, without


class Status(StrEnum):
    """Of an execution."""

    RUNNING = "running"
    PAUSED = "paused"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_terminal(self) -> bool:
        return self in _TERMINAL


_TERMINAL = frozenset({Status.COMPLETED, Status.FAILED, Status.CANCELLED})


class RunStatus(StrEnum):
    """Of one run of one node."""

    PENDING = "pending"
    #: Work is queued or being done.
    SCHEDULED = "scheduled"
    #: For a person, an event or a time; or for a child execution that does.
    WAITING = "waiting"
    #: For a child execution or the items of a map.
    DELEGATED = "delegated"
    COMPLETED = "completed"
    FAILED = "failed"
    SKIPPED = "skipped"
    CANCELLED = "cancelled"
    #: Stopped because the execution ended; a retry or a fork runs it again.
    INTERRUPTED = "interrupted"


BUSY = frozenset({RunStatus.SCHEDULED, RunStatus.DELEGATED})
OPEN = BUSY | {RunStatus.WAITING}


class Run(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is known of one node in this execution; `fan[3]` has a run of its own."""

    status: RunStatus = RunStatus.PENDING
    attempt: int = 1
    iteration: int = 0
    output: Any = None
    error: ev.Failure | None = None
    #: A failure that an error route took care of.
    handled: bool = False
    taken: tuple[str, ...] = ()
    #: UNSET: the run is a map's item and its input is the item.
    input: Any = msgspec.UNSET
    config: dict[str, Any] | None = None
    concurrency: ev.Concurrency | None = None
    available_at: int | None = None
    approval: ev.ApprovalRequested | None = None
    correlation_key: str | None = None
    child_execution_id: str | None = None
    items: list[Any] | None = None
    items_begun: int = 0
    items_done: int = 0
    #: Of a run that failed for good: when, and after how many attempts; none where it never came to one.
    failed_at: int | None = None
    tries: int = 0


class Consumed(msgspec.Struct, frozen=True, omit_defaults=True):
    """What all nodes together reported."""

    input_tokens: int = 0
    output_tokens: int = 0
    cost_usd: float = 0.0


class Progress(msgspec.Struct, frozen=True, omit_defaults=True):
    """An execution at one sequence. Sequence 0 is before the beginning."""

    sequence: int = 0
    status: Status = Status.RUNNING
    execution_id: str = ""
    workflow_id: str = ""
    workflow_version: str = ""
    priority: int = 0
    input: dict[str, Any] = {}
    state: dict[str, Any] = {}
    nodes: Mapping[str, Run] = {}
    arrivals: Mapping[str, tuple[int, int]] = {}
    #: Heads of loops that were closed and have not begun their next iteration.
    looping: tuple[str, ...] = ()
    #: External events that came before their wait, by correlation key.
    inbox: dict[str, list[Any]] = {}
    timers: dict[str, int] = {}
    busy: int = 0
    waiting: int = 0
    #: Somebody asked to pause: facts are taken in, nothing new starts.
    held: bool = False
    #: Runs that a worker came to meanwhile, and left.
    left: tuple[str, ...] = ()
    finalizing: bool = False
    error: ev.Failure | None = None
    last: str | None = None
    steps: int = 0
    consumed: Consumed = Consumed()
    parent: ev.Parent | None = None
    forked_from: ev.Origin | None = None
    started_at: int = 0
    ended_at: int | None = None
    boundary: int = 0

    @property
    def is_terminal(self) -> bool:
        return self.status in _TERMINAL

    def run(self, run_id: str) -> Run:
        run = self.nodes.get(run_id)
        if run is None:
            fan = map_of(run_id)
            return Run(iteration=self.run(fan).iteration) if fan else _NO_RUN
        return run

    def input_of(self, run_id: str) -> Any:
        run = self.run(run_id)
        if run.input is msgspec.UNSET and (fan := map_of(run_id)):
            items = self.run(fan).items or []
            return items[item_of(run_id)]
        return None if run.input is msgspec.UNSET else run.input

    def open_runs(self) -> list[str]:
        if not self.busy and not self.waiting:
            return []
        return [run_id for run_id, run in self.nodes.items() if run.status in OPEN]

    def unfinished_runs(self) -> list[str]:
        """What a retry runs again."""
        return [run_id for run_id in self.nodes if self._is_unfinished(run_id)]

    def failed_runs(self) -> list[str]:
        """Those that no error route took care of: why the execution fails. Of a map that failed, its items."""
        failed = [run_id for run_id in self.unfinished_runs() if self.run(run_id).status is RunStatus.FAILED]
        maps = {map_of(run_id) for run_id in failed}
        return [run_id for run_id in failed if run_id not in maps]

    def _is_unfinished(self, run_id: str) -> bool:
        run, fan = self.run(run_id), map_of(run_id)
        if fan is not None:
            return run.status is not RunStatus.COMPLETED and self._is_unfinished(fan)
        return run.status is RunStatus.INTERRUPTED or (run.status is RunStatus.FAILED and not run.handled)


_NO_RUN = Run()

encode = msgspec.json.Encoder(enc_hook=dict).encode
decode = msgspec.json.Decoder(Progress).decode


def evolve(progress: Progress, event: ev.Event) -> Progress:
    """The progress after the event. Raises `InvalidTransition`."""
    _check(progress, event)
    changed = _fold(progress, event)
    return replace(changed, sequence=progress.sequence + 1)


def _check(progress: Progress, event: ev.Event) -> None:
    if (progress.sequence == 0) != isinstance(event, ev.WorkflowStarted):
        raise _impossible(progress, event, "a log begins with WorkflowStarted, once")
    if progress.status in _TERMINAL and not (
        isinstance(event, ev.WorkflowRetried) and progress.status is Status.FAILED
    ):
        raise _impossible(progress, event, f"the execution is {progress.status}")


def _fold(progress: Progress, event: ev.Event) -> Progress:
    match event:
        case ev.NodeCompleted(node_id=str(node_id)):
            return _completed(progress, node_id, event)
        case ev.NodeScheduled(node_id=str(node_id)):
            return _scheduled(progress, node_id, event)
        case ev.WorkflowStarted():
            return _started(event)
        case ev.WorkflowCompleted(at=at):
            return _ended(progress, event, Status.COMPLETED, at, None)
        case ev.WorkflowFailed(at=at, error=error):
            return _ended(progress, event, Status.FAILED, at, error)
        case ev.WorkflowCancelled(at=at):
            return _ended(_stopped(progress), event, Status.CANCELLED, at, progress.error)
        case ev.WorkflowPaused(reason=reason):
            return replace(progress, status=Status.PAUSED, held=progress.held or reason == "requested")
        case ev.WorkflowResumed():
            return replace(progress, status=Status.RUNNING, held=False, left=())
        case ev.WorkflowRetried(nodes=nodes):
            return _retried(progress, nodes)
        case ev.WorkflowFinalizing(error=error):
            return replace(progress, status=Status.RUNNING, held=False, finalizing=True, error=error)
        case ev.NodeFailed(node_id=str(node_id)):
            return _failed(progress, node_id, event)
        case ev.NodeSkipped(node_id=str(node_id), dead=dead):
            run = _set_out(progress, event, node_id, RunStatus.SKIPPED)
            return _with_run(progress, node_id, run, settle=((), dead))
        case ev.NodeCancelled(node_id=str(node_id), reason=reason, dead=dead):
            run = _expect(progress, event, node_id, OPEN)
            status = RunStatus.INTERRUPTED if reason == INTERRUPTION else RunStatus.CANCELLED
            return _with_run(progress, node_id, _closed(run, status), settle=((), dead))
        case ev.NodeParked(node_id=str(node_id), until=until) | ev.RetryScheduled(node_id=str(node_id), until=until):
            run = _expect(progress, event, node_id, {RunStatus.SCHEDULED})
            requeued = _with_run(progress, node_id, replace(run, attempt=event.attempt, available_at=until))
            return replace(requeued, timers=_without_timers(progress, node_id))
        case ev.NodeHeld(node_id=str(node_id)):
            _expect(progress, event, node_id, {RunStatus.SCHEDULED})
            return replace(progress, left=(*progress.left, node_id), timers=_without_timers(progress, node_id))
        case ev.MapStarted(node_id=str(node_id), items=items):
            run = _set_out(progress, event, node_id, RunStatus.DELEGATED)
            return _with_run(progress, node_id, replace(run, items=items))
        case ev.WaitStarted(node_id=str(node_id), correlation_key=key):
            run = _set_out(progress, event, node_id, RunStatus.WAITING)
            return _with_run(progress, node_id, replace(run, correlation_key=key))
        case ev.ApprovalRequested(node_id=str(node_id)):
            run = _set_out(progress, event, node_id, RunStatus.WAITING)
            return _with_run(progress, node_id, replace(run, approval=event))
        case ev.ApprovalReceived(node_id=str(node_id)):
            return _decided(progress, node_id, event)
        case ev.TimerCreated(timer_id=timer_id, fire_at=fire_at):
            return replace(progress, timers={**progress.timers, timer_id: fire_at})
        case ev.TimerFired(timer_id=timer_id, fire_at=fire_at):
            return _timer_fired(progress, event, timer_id, fire_at)
        case ev.ExternalEventReceived(correlation_key=key, payload=payload, node_id=node_id):
            return progress if node_id else _kept(progress, key, payload)
        case ev.ExternalEventConsumed(correlation_key=key):
            return _consumed_event(progress, event, key)
        case ev.ChildWorkflowStarted(node_id=str(node_id), child_execution_id=child):
            run = _set_out(progress, event, node_id, RunStatus.DELEGATED)
            return _with_run(progress, node_id, replace(run, child_execution_id=child))
        case (
            ev.ChildWorkflowCompleted(node_id=str(node_id), child_execution_id=child)
            | ev.ChildWorkflowFailed(node_id=str(node_id), child_execution_id=child)
        ):
            run = _with_child(progress, event, node_id, child, {RunStatus.DELEGATED, RunStatus.WAITING})
            delegated = replace(run, status=RunStatus.DELEGATED, child_execution_id=None)
            return _with_run(progress, node_id, delegated)
        case ev.ChildWorkflowPaused(node_id=str(node_id), child_execution_id=child):
            run = _with_child(progress, event, node_id, child, {RunStatus.DELEGATED})
            return _with_run(progress, node_id, replace(run, status=RunStatus.WAITING))
        case ev.ChildWorkflowResumed(node_id=str(node_id), child_execution_id=child):
            run = _with_child(progress, event, node_id, child, {RunStatus.WAITING})
            return _with_run(progress, node_id, replace(run, status=RunStatus.DELEGATED))
        case ev.NodeStarted(node_id=str(node_id)) | ev.NodeProgressed(node_id=str(node_id)):
            run = _expect(progress, event, node_id, {RunStatus.SCHEDULED})
            if run.attempt != event.attempt:
                raise _impossible(progress, event, f"{node_id} is in attempt {run.attempt}")
            return progress
        case ev.IterationStarted(node_id=str(node_id)):
            return _iterated(progress, node_id, event)
        case ev.SegmentBoundary():
            return replace(progress, boundary=progress.sequence + 1)
        case ev.ToolCallCompleted() | ev.PolicyViolation() | ev.TokenBudgetExceeded() | ev.CostBudgetExceeded():
            return progress
    raise _impossible(progress, event, "it names no node")


INTERRUPTION = "the execution failed"
"""The reason in a `NodeCancelled` that a retry takes back."""


def merge(target: Any, patch: Any) -> Any:
    """RFC 7396 JSON merge patch. Shares what it does not change."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = merge(merged.get(key), value) if isinstance(value, dict) else value
    return merged


def branched(progress: Progress, state: dict[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """What a fork goes on from: the same progress with this state, and what it must run again."""
    stopped = replace(_stopped(progress), state=dict(state))
    rerun = tuple(stopped.unfinished_runs())
    plain: dict[str, Any] = msgspec.to_builtins(_retried(stopped, rerun), enc_hook=dict)
    return plain, rerun


def _started(event: ev.WorkflowStarted) -> Progress:
    begun = Progress(state=event.input) if event.progress is None else msgspec.convert(event.progress, Progress)
    return replace(
        begun,
        sequence=0,
        boundary=0,
        status=Status.RUNNING,
        execution_id=event.execution_id,
        workflow_id=event.workflow_id,
        workflow_version=event.workflow_version,
        priority=event.priority,
        input=event.input,
        parent=event.parent,
        forked_from=event.forked_from,
        started_at=event.at,
    )


def _ended(progress: Progress, event: ev.Event, status: Status, at: int, error: ev.Failure | None) -> Progress:
    if progress.busy or progress.waiting:
        raise _impossible(progress, event, f"{', '.join(progress.open_runs())} are open")
    return replace(progress, status=status, ended_at=at, error=error, held=False, left=(), timers={})


def _completed(progress: Progress, run_id: str, event: ev.NodeCompleted) -> Progress:
    run = _ending(progress, event, run_id)
    done = Run(RunStatus.COMPLETED, run.attempt, run.iteration, event.output, taken=event.taken)
    after = _with_run(progress, run_id, done, settle=(event.taken, event.dead))
    if event.usage is not None:
        after = replace(after, consumed=_sum(progress.consumed, event.usage))
    if fan := map_of(run_id):
        over = after.run(fan)
        return _with_run(after, fan, replace(over, items_done=over.items_done + 1))
    return replace(
        after,
        nodes=without(after.nodes, _items(run_id, run)),
        looping=progress.looping + event.loops,
        state=merge(progress.state, event.state_patch) if event.state_patch else progress.state,
        last=run_id,
        steps=progress.steps + 1,
    )


def _failed(progress: Progress, run_id: str, event: ev.NodeFailed) -> Progress:
    run = _ending(progress, event, run_id)
    if not event.final:
        return _with_run(progress, run_id, replace(run, error=event.error))
    over = replace(
        _closed(run, RunStatus.FAILED),
        error=event.error,
        handled=event.handled,
        taken=event.taken,
        failed_at=event.at,
        tries=run.attempt if run.status in BUSY else 0,
    )
    after = _with_run(progress, run_id, over, settle=(event.taken, event.dead))
    if event.handled:
        looping = progress.looping + event.loops
        return replace(after, looping=looping, state=merge(progress.state, event.state_patch or {}))
    return after if map_of(run_id) else replace(after, error=progress.error or event.error)


def _scheduled(progress: Progress, run_id: str, event: ev.NodeScheduled) -> Progress:
    run = progress.run(run_id)
    if run.status is not RunStatus.PENDING and (run.status is not RunStatus.WAITING or run.approval is not None):
        raise _impossible(progress, event, f"{run_id} is {run.status}")
    unset = event.input is msgspec.UNSET
    given = event.input if not unset or map_of(run_id) else progress.state
    scheduled = Run(
        RunStatus.SCHEDULED,
        event.attempt,
        run.iteration,
        run.output,
        input=given,
        config=event.config,
        concurrency=event.concurrency,
        available_at=event.at,
    )
    return _with_run(progress, run_id, scheduled)


def _decided(progress: Progress, node_id: str, event: ev.ApprovalReceived) -> Progress:
    run = _expect(progress, event, node_id, {RunStatus.WAITING})
    if run.approval is None:
        raise _impossible(progress, event, f"{node_id} does not wait for an approval")
    decided = _with_run(progress, node_id, replace(run, approval=None))
    return replace(
        decided, timers=_without_timers(progress, node_id), state=merge(progress.state, event.state_patch or {})
    )


def _timer_fired(progress: Progress, event: ev.Event, timer_id: str, fire_at: int) -> Progress:
    if progress.timers.get(timer_id) != fire_at:
        raise _impossible(progress, event, f"no timer {timer_id} is set for this time")
    return replace(progress, timers={key: at for key, at in progress.timers.items() if key != timer_id})


def _kept(progress: Progress, key: str, payload: Any) -> Progress:
    return replace(progress, inbox={**progress.inbox, key: [*progress.inbox.get(key, ()), payload]})


def _consumed_event(progress: Progress, event: ev.Event, key: str) -> Progress:
    if not progress.inbox.get(key):
        raise _impossible(progress, event, f"no event {key!r} was kept")
    rest = {**progress.inbox, key: progress.inbox[key][1:]}
    return replace(progress, inbox={name: payloads for name, payloads in rest.items() if payloads})


def _iterated(progress: Progress, head: str, event: ev.IterationStarted) -> Progress:
    runs: dict[str, Run] = {}
    items: list[str] = []
    for node_id in event.reset:
        old = progress.run(node_id)
        items += _items(node_id, old)
        iteration = event.iteration if node_id == head else old.iteration + 1
        runs[node_id] = Run(output=old.output, iteration=iteration)
    return replace(
        progress,
        nodes=changed(without(progress.nodes, items), runs),
        arrivals=changed(progress.arrivals, event.reset),
        looping=tuple(node_id for node_id in progress.looping if node_id not in event.reset),
    )


def _retried(progress: Progress, nodes: Iterable[str]) -> Progress:
    fresh = {run_id: _fresh(progress.run(run_id)) for run_id in nodes}
    return replace(
        progress,
        nodes=changed(progress.nodes, fresh),
        busy=sum(run.status is RunStatus.DELEGATED for run in fresh.values()),
        status=Status.RUNNING,
        error=None,
        ended_at=None,
        finalizing=False,
        held=False,
    )


def _fresh(run: Run) -> Run:
    """A run as it was before its first attempt. A map keeps the items that are done."""
    if run.items is not None:
        return replace(run, status=RunStatus.DELEGATED, error=None)
    return Run(output=run.output, iteration=run.iteration)


def _stopped(progress: Progress) -> Progress:
    stopped = {run_id: _closed(progress.run(run_id), RunStatus.INTERRUPTED) for run_id in progress.open_runs()}
    return replace(progress, nodes=changed(progress.nodes, stopped), busy=0, waiting=0, timers={})


def _set_out(progress: Progress, event: ev.Event, run_id: str, status: RunStatus) -> Run:
    """The run as it begins. Of what was before it has the last output, until there is another."""
    run = _expect(progress, event, run_id, {RunStatus.PENDING})
    return Run(status, run.attempt, run.iteration, run.output)


def _closed(run: Run, status: RunStatus) -> Run:
    """The run without what only an open one needs. A map keeps its items: a retry goes on with them."""
    return Run(
        status,
        run.attempt,
        run.iteration,
        run.output,
        items=run.items,
        items_begun=run.items_begun,
        items_done=run.items_done,
    )


def _with_run(
    progress: Progress, run_id: str, run: Run, settle: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())
) -> Progress:
    """The progress with this run, its counters and timers; `settle`: the edges that are over, taken and dead."""
    before = progress.nodes.get(run_id)
    was, now = RunStatus.PENDING if before is None else before.status, run.status
    runs = {run_id: run}
    if before is None and (fan := map_of(run_id)):
        over = progress.run(fan)
        runs[fan] = replace(over, items_begun=over.items_begun + 1)
    return replace(
        progress,
        nodes=changed(progress.nodes, runs),
        arrivals=_settled(progress.arrivals, *settle) if settle != ((), ()) else progress.arrivals,
        busy=progress.busy + (now in BUSY) - (was in BUSY),
        waiting=progress.waiting + (now is RunStatus.WAITING) - (was is RunStatus.WAITING),
        timers=progress.timers if not progress.timers or now in OPEN else _without_timers(progress, run_id),
    )


def _settled(
    arrivals: Mapping[str, tuple[int, int]], taken: tuple[str, ...], dead: tuple[str, ...]
) -> Mapping[str, tuple[int, int]]:
    changes = {}
    for targets, live in ((taken, 1), (dead, 0)):
        for target in targets:
            settled, before = arrivals.get(target, (0, 0))
            changes[target] = (settled + 1, before + live)
    return changed(arrivals, changes)


def timer_node(timer_id: str) -> str:
    """The run that a timer belongs to; empty for the workflow's own."""
    return timer_id.rpartition("/")[0]


def timers_of(progress: Progress, run_id: str) -> list[str]:
    return [timer_id for timer_id in (f"{run_id}/wait", f"{run_id}/timeout") if timer_id in progress.timers]


def _without_timers(progress: Progress, run_id: str) -> dict[str, int]:
    gone = timers_of(progress, run_id)
    return {key: at for key, at in progress.timers.items() if key not in gone} if gone else progress.timers


def _items(node_id: str, run: Run) -> list[str]:
    return [f"{node_id}[{index}]" for index in range(run.items_begun)]


def _sum(before: Consumed, usage: ev.Usage) -> Consumed:
    return Consumed(
        input_tokens=before.input_tokens + usage.input_tokens,
        output_tokens=before.output_tokens + usage.output_tokens,
        cost_usd=before.cost_usd + usage.cost_usd,
    )


def _ending(progress: Progress, event: ev.NodeCompleted | ev.NodeFailed, run_id: str) -> Run:
    """The run that this result is of: one that is open, or of a node that is over as soon as it begins."""
    run = progress.run(run_id)
    if run.status is RunStatus.SCHEDULED and (event.attempt, event.iteration) != (run.attempt, run.iteration):
        raise _impossible(progress, event, f"{run_id} is in attempt {run.attempt} by now")
    if run.status is not RunStatus.PENDING and run.status not in OPEN:
        raise _impossible(progress, event, f"{run_id} is {run.status}")
    return run


def _expect(progress: Progress, event: ev.Event, run_id: str, statuses: Iterable[RunStatus]) -> Run:
    run = progress.run(run_id)
    if run.status not in statuses:
        raise _impossible(progress, event, f"{run_id} is {run.status}")
    return run


def _with_child(progress: Progress, event: ev.Event, run_id: str, child: str, statuses: Iterable[RunStatus]) -> Run:
    run = _expect(progress, event, run_id, statuses)
    if run.child_execution_id != child:
        raise _impossible(progress, event, f"{run_id} waits for another child")
    return run


def _impossible(progress: Progress, event: ev.Event, why: str) -> InvalidTransition:
    return InvalidTransition(f"{ev.kind_of(event)} cannot happen at sequence {progress.sequence}: {why}")
