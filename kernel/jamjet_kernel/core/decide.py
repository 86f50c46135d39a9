"""What follows from an event.

`decide` folds the event in and follows its consequences until nothing more follows. Consequences are events
too, so the log explains itself; commands say what the shell must arrange in the same commit. Everything that
is undetermined (time, ids, jitter) comes in on the event.

Rule 1: whether and in what order nodes run is decided in this file and nowhere else.
Rule 2: an execution that somebody paused takes in facts (results, timers, decisions), but starts nothing.
Rule 3: a failed node settles no edge, so what depends on it never starts and what does not goes on.
"""

from __future__ import annotations

import fnmatch
import hashlib
import re
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Never, TypeAlias

import msgspec
from msgspec.structs import replace
from pydantic import BaseModel, ValidationError

from ..errors import Conflict, Invalid, InvalidTransition, Problem
from . import events as ev
from .definition import (
    Condition,
    Finalizer,
    HumanApproval,
    Join,
    Map,
    Parallel,
    Policy,
    Subgraph,
    Wait,
    seconds,
)
from .expressions import ExpressionError
from .graph import APPROVED, BRANCH, ERROR, NEXT, REJECTED, TIMEOUT, Edge, Graph, Node, item_of, map_of
from .progress import BUSY, INTERRUPTION, OPEN, Progress, Run, RunStatus, Status, evolve, merge, timer_node, timers_of
from .retries import delay_of


@dataclass(frozen=True, slots=True)
class EnqueueWork:
    run_id: str
    attempt: int
    available_at: int
    queue: str
    concurrency: ev.Concurrency | None = None


@dataclass(frozen=True, slots=True)
class SettleWork:
    run_id: str
    queue: str
    concurrency: ev.Concurrency | None = None


@dataclass(frozen=True, slots=True)
class SetTimer:
    timer_id: str
    fire_at: int


@dataclass(frozen=True, slots=True)
class CancelTimer:
    timer_id: str


@dataclass(frozen=True, slots=True)
class AskPerson:
    request: ev.ApprovalRequested


@dataclass(frozen=True, slots=True)
class CloseApproval:
    node_id: str


@dataclass(frozen=True, slots=True)
class StartChild:
    parent: ev.Parent
    started: ev.ChildWorkflowStarted


@dataclass(frozen=True, slots=True)
class CancelChild:
    child_execution_id: str


@dataclass(frozen=True, slots=True)
class TellChild:
    """Somebody asked the parent to pause or to go on, and means its children too."""

    child_execution_id: str
    event: ev.WorkflowPaused | ev.WorkflowResumed


@dataclass(frozen=True, slots=True)
class TellParent:
    parent: ev.Parent
    event: ev.ChildWorkflowCompleted | ev.ChildWorkflowFailed | ev.ChildWorkflowPaused | ev.ChildWorkflowResumed


Command: TypeAlias = (
    EnqueueWork
    | SettleWork
    | SetTimer
    | CancelTimer
    | AskPerson
    | CloseApproval
    | StartChild
    | CancelChild
    | TellChild
    | TellParent
)


@dataclass(frozen=True, slots=True)
class Decision:
    progress: Progress
    events: tuple[ev.Event, ...]
    commands: tuple[Command, ...]


def decide(
    graph: Graph,
    progress: Progress,
    event: ev.Event,
    env: Mapping[str, str] | None = None,
    policies: tuple[Policy, ...] = (),
) -> Decision:
    """What the event leads to. `env` holds the environment variables that conditions may read; `policies` are in
    force around the workflow's own.

    Raises `InvalidTransition` (or another `Conflict`) when it cannot happen now, and `Invalid` when what it carries
    does not fit; nothing has changed then.
    """
    turn = _Turn(graph, progress, event.at, env or {}, policies)
    turn.take(event)
    turn.follow()
    turn.tell_whether_it_moves(progress)
    return Decision(turn.progress, tuple(turn.events), tuple(turn.commands))


WORKFLOW_TIMER = "/timeout"
DEEPEST = 32
"""Levels of child executions: more than anybody nests on purpose, and few enough to stop workflows that start
themselves."""
LONGEST = 10 * 366 * 86_400
"""Seconds that anything waits at most."""

LONGEST_KEY = 255
_UNFIT_FOR_A_KEY = re.compile(r"[\x00-\x1f\x7f]")

ENV_MARK = "\ue000env:"
"""Templates do not see the value of a variable, which is a secret often: it is put in when the node runs."""


class _EnvMarks(Mapping[str, str]):
    def __init__(self, names: Mapping[str, str], mark: str = ENV_MARK) -> None:
        self._names = names
        self._mark = mark

    def __getitem__(self, name: str) -> str:
        if name not in self._names:
            raise KeyError(name)
        return f"{self._mark}{name}\ue001"

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


class _Outputs(Mapping[str, Any]):
    """`nodes.<id>.output`, made only for the node that is asked for."""

    def __init__(self, progress: Progress) -> None:
        self._nodes = progress.nodes

    def __getitem__(self, node_id: str) -> dict[str, Any]:
        run = self._nodes[node_id]
        return {"output": run.output, "status": run.status.value}

    def __iter__(self) -> Iterator[str]:
        return iter(self._nodes)

    def __len__(self) -> int:
        return len(self._nodes)


class _Broken(Exception):
    """A node cannot go on; what it says becomes the node's failure."""


@dataclass(frozen=True, slots=True)
class _Way:
    """Where it goes after a node: targets taken and dead, loops closed; `found`: any edge was right."""

    taken: tuple[str, ...] = ()
    dead: tuple[str, ...] = ()
    loops: tuple[str, ...] = ()
    found: bool = False


class _Turn:
    """One call of `decide`: the progress as it becomes, and what was said on the way."""

    def __init__(
        self, graph: Graph, progress: Progress, at: int, env: Mapping[str, str], policies: tuple[Policy, ...]
    ) -> None:
        self.graph = graph
        self.progress = progress
        self.at = at
        self.env = env
        self.policies = policies
        self.events: list[ev.Event] = []
        self.commands: list[Command] = []
        self.touched: deque[str] = deque()
        self.spent = False

    def emit(self, event: ev.Event) -> None:
        self.progress = evolve(self.progress, event)
        self.events.append(event)

    # What comes in

    def take(self, event: ev.Event) -> None:
        if self.progress.is_terminal and (refusal := _AFTER_THE_END.get(type(event))):
            raise InvalidTransition(f"the execution is {self.progress.status}{refusal}")
        match event:
            case ev.NodeCompleted(node_id=str(run_id)):
                self._take_result(run_id, event)
            case ev.NodeFailed(node_id=str(run_id)):
                self._take_failure(run_id, event)
            case ev.NodeParked(node_id=str(run_id), attempt=attempt, until=until):
                # Never the same moment again: (run, attempt, moment) tells one piece of work from another.
                until = max(until, (self._check_attempt(run_id, event).available_at or 0) + 1)
                self._withdraw(run_id)
                self.emit(replace(event, until=until))
                self._enqueue(run_id, attempt, until)
            case ev.NodeHeld(node_id=str(run_id)):
                self._check_attempt(run_id, event)
                if not self.progress.held:
                    raise InvalidTransition("the execution goes on by now")
                self._withdraw(run_id)
                self.emit(event)
            case ev.NodeStarted(node_id=str(run_id)):
                self._check_not_left(run_id)
                self.emit(event)
                self._limit_attempt(run_id)
            case ev.NodeProgressed() | ev.ChildWorkflowPaused() | ev.ChildWorkflowResumed():
                self.emit(event)
            case ev.WorkflowStarted():
                self._take_start(event)
            case ev.WorkflowCancelled():
                self._take_cancel(event)
            case ev.WorkflowPaused(reason="requested"):
                if self.progress.held:
                    raise InvalidTransition("the execution is paused already")
                self.emit(event)
                self._tell_children(event)
            case ev.WorkflowResumed(reason="requested"):
                self._take_resume(event)
            case ev.WorkflowRetried():
                self._take_retry(event)
            case ev.ApprovalReceived():
                self._take_approval(event)
            case ev.ExternalEventReceived():
                self._take_external_event(event)
            case ev.TimerFired(timer_id=timer_id):
                self._take_timer(event, timer_id)
            case ev.ChildWorkflowCompleted(node_id=str(run_id)):
                self.emit(replace(event, output=self._retained(run_id, event.output)))
                self._take_child_result(run_id, event.output)
            case ev.ChildWorkflowFailed(node_id=str(run_id), error=error):
                self.emit(event)
                self._fail(run_id, error)
            case _:
                raise InvalidTransition(f"{ev.kind_of(event)} is a consequence and cannot come from outside")

    def _take_start(self, event: ev.WorkflowStarted) -> None:
        is_fork = event.progress is not None
        state = event.progress.get("state", {}) if event.progress is not None else event.input
        self._check_state(state, "state" if is_fork else "input")
        self.emit(event)
        self._set_workflow_timer()
        if self.graph.start not in self.progress.nodes and self.graph.start not in self.graph.ends:
            self._activate(self.graph.start)
        if self.graph.reserve is not None:
            self.touched.append(self.graph.reserve)
        if is_fork:
            self._go_on(event.rerun)

    def _go_on(self, run_ids: Iterable[str] = ()) -> None:
        """Whatever could have started while nothing did, starts; and these runs do again."""
        for run_id in run_ids:
            if self.progress.run(run_id).status is RunStatus.PENDING and self._belongs_to_main(run_id):
                self._activate(run_id)
        self.touched.extend(filter(self._belongs_to_main, self.progress.arrivals))
        for run_id in self.progress.open_runs():
            if self.progress.run(run_id).items is not None:
                self._feed_map(run_id)

    def _belongs_to_main(self, run_id: str) -> bool:
        """Not to the finalizers, and not to a map that has failed meanwhile."""
        fan = map_of(run_id)
        if fan is not None:
            return self.progress.run(fan).status is RunStatus.DELEGATED
        return not isinstance(self.graph.nodes[run_id].config, Finalizer)

    def _take_result(self, run_id: str, event: ev.NodeCompleted) -> None:
        self._check_attempt(run_id, event)
        node = self.graph.worker_node(run_id)
        if node.names_tool and (tool := _tool_of(_configured(node, self.progress.run(run_id).config))):
            self.emit(
                ev.ToolCallCompleted(
                    at=self.at,
                    node_id=run_id,
                    tool=tool,
                    output=self._retained(run_id, event.output),
                    duration_ms=event.duration_ms,
                )
            )
        self.spent = event.usage is not None
        self._complete(run_id, event.output, event)

    def _take_failure(self, run_id: str, event: ev.NodeFailed) -> None:
        run = self._check_attempt(run_id, event)
        policy = self.graph.worker_node(run_id).retry
        wanted = policy.retryable_on is None or event.error.error_class in policy.retryable_on
        if event.retryable and wanted and run.attempt < policy.max_attempts:
            self._withdraw(run_id)
            self.emit(replace(event, final=False))
            until = self.at + delay_of(policy, run.attempt, event.jitter)
            self.emit(ev.RetryScheduled(at=self.at, node_id=run_id, attempt=run.attempt + 1, until=until))
            self._enqueue(run_id, run.attempt + 1, until)
        else:
            self._fail(run_id, event.error, event)

    def _check_attempt(self, run_id: str, event: ev.NodeCompleted | ev.NodeFailed | ev.NodeParked | ev.NodeHeld) -> Any:
        run = self.progress.run(run_id)
        if run.status is not RunStatus.SCHEDULED or (run.attempt, run.iteration) != (event.attempt, event.iteration):
            raise InvalidTransition(f"{run_id} is {run.status}, attempt {run.attempt}: this result comes too late")
        self._check_not_left(run_id)
        return run

    def _check_not_left(self, run_id: str) -> None:
        if run_id in self.progress.left:
            raise InvalidTransition(f"{run_id} waits for the execution to go on, and nobody is at it")

    def _take_cancel(self, event: ev.WorkflowCancelled) -> None:
        for run_id in self.progress.open_runs():
            self._release(run_id)
        self._finish(event, ev.Failure(event.reason or "the child execution was cancelled"))

    def _take_resume(self, event: ev.WorkflowResumed) -> None:
        if not self.progress.held:
            does = f"waits for {waits}" if (waits := self._waits()) else f"is {self.progress.status}"
            raise InvalidTransition(f"the execution {does}, and nobody paused it")
        left = self.progress.left
        self.emit(event)
        self._tell_children(event)
        self.spent = True
        for run_id in self.progress.open_runs():
            run = self.progress.run(run_id)
            # Other work is in somebody's hands, or waits for somebody who will come.
            if run.status is RunStatus.SCHEDULED and run_id in left:
                self._enqueue(run_id, run.attempt, run.available_at or self.at)
            elif run.status is RunStatus.WAITING and run.approval is None and not self._is_control(run_id):
                self._schedule(run_id)
        self._go_on()

    def _waits(self) -> str:
        """What a paused execution waits for, in words."""
        waits = []
        for run_id in self.progress.open_runs() if self.progress.status is Status.PAUSED else ():
            match self.progress.run(run_id):
                case Run(approval=ev.ApprovalRequested()):
                    waits.append(f"an approval at {run_id!r}")
                case Run(correlation_key=str(key)):
                    waits.append(f"the event {key!r} at {run_id!r}")
                case Run(child_execution_id=str(child)):
                    waits.append(f"its child execution {child}")
                case Run(items=None):
                    waits.append(f"its time at {run_id!r}")
        return ", ".join(waits)

    def _tell_children(self, event: ev.WorkflowPaused | ev.WorkflowResumed) -> None:
        children = (self.progress.run(run_id).child_execution_id for run_id in self.progress.open_runs())
        self.commands += [TellChild(child, event) for child in children if child is not None]

    def _is_control(self, run_id: str) -> bool:
        return isinstance(self.graph.worker_node(run_id).config, Wait | Subgraph)

    def _take_retry(self, event: ev.WorkflowRetried) -> None:
        nodes = self.progress.unfinished_runs()
        if self.progress.status is not Status.FAILED or not nodes:
            state = f"the execution is {self.progress.status}"
            raise Conflict(f"{state}: there is no failed node to run again (fork it from an earlier event instead)")
        self.emit(replace(event, nodes=tuple(nodes)))
        self._set_workflow_timer()
        self._go_on(nodes)

    def _take_approval(self, event: ev.ApprovalReceived) -> None:
        if event.decision not in ("approved", "rejected"):
            raise Invalid([Problem("decision", f"is {event.decision!r}; it can be 'approved' or 'rejected'")])
        run_id = event.node_id or self._only_approval()
        if (map_of(run_id) or run_id) not in self.graph.nodes:
            raise Invalid([Problem("node_id", f"there is no node {run_id!r}")])
        run = self.progress.run(run_id)
        if run.approval is None:
            raise InvalidTransition(f"{run_id!r} does not wait for an approval")
        if event.state_patch:
            self._check_state(merge(self.progress.state, event.state_patch), "state_patch")
        approved = event.decision == "approved"
        self._release(run_id)
        self.emit(replace(event, node_id=run_id))
        if run.approval.tool is not None:
            return self._take_permission(run_id, ev.Failure(_rejection(event)) if not approved else None)
        output = {
            "decision": event.decision,
            "user_id": event.user_id,
            "actor": event.actor,
            "comment": event.comment,
        }
        return self._complete(run_id, output, route=APPROVED if approved else REJECTED, refusal=_rejection(event))

    def _take_permission(self, run_id: str, refusal: ev.Failure | None) -> None:
        if refusal is not None:
            self._fail(run_id, refusal)
        elif not self.progress.held:
            self._schedule(run_id)

    def _only_approval(self) -> str:
        waiting = [run_id for run_id in self.progress.open_runs() if self.progress.run(run_id).approval is not None]
        if not waiting:
            raise InvalidTransition(f"the execution is {self.progress.status}, and nothing waits for an approval")
        if len(waiting) > 1:
            raise Invalid([Problem("node_id", f"is needed: approvals are open at {', '.join(waiting)}")])
        return waiting[0]

    def _take_external_event(self, event: ev.ExternalEventReceived) -> None:
        for run_id in self.progress.open_runs() if self.progress.waiting else ():
            run = self.progress.run(run_id)
            if run.status is RunStatus.WAITING and run.correlation_key == event.correlation_key:
                self.emit(replace(event, node_id=run_id))
                return self._complete(run_id, event.payload)
        return self.emit(replace(event, node_id=None))

    def _take_timer(self, event: ev.TimerFired, timer_id: str) -> None:
        self.emit(event)
        self.commands.append(CancelTimer(timer_id))
        run_id = timer_node(timer_id)
        if not run_id:
            limit = self.graph.definition.timeouts.workflow_timeout
            return self._fail_workflow(ev.Failure(f"the workflow took longer than {limit:g} s", "timeout"))
        if timer_id.endswith("/wait"):
            return self._complete(run_id, None)
        run = self.progress.run(run_id)
        if run.status is RunStatus.SCHEDULED:
            return self._take_failure(run_id, self._too_slow(run_id, run))
        return self._complete(run_id, None, route=TIMEOUT, refusal="nothing came in time", error_class="timeout")

    def _too_slow(self, run_id: str, run: Run) -> ev.NodeFailed:
        limit = self.graph.worker_node(run_id).timeout
        error = ev.Failure(f"took longer than {limit:g} s", "timeout", run_id)
        return ev.NodeFailed(
            at=self.at, node_id=run_id, error=error, attempt=run.attempt, iteration=run.iteration, retryable=True
        )

    def _take_child_result(self, run_id: str, output: Any) -> None:
        mapping = self.graph.worker_node(run_id).templates.get("output")
        try:
            self._complete(run_id, mapping.render(self._scope(output=output)) if mapping else output)
        except ExpressionError as error:
            self._fail(run_id, ev.Failure(f"output_mapping: {error}"))

    # What follows

    def follow(self) -> None:
        while not self.progress.held and not self.progress.is_terminal:
            if self.progress.looping and not self.progress.finalizing:
                self._iterate(self._outermost(self.progress.looping))
            elif self.spent:
                self.spent = False
                self._check_budgets()
            elif self.touched:
                self._consider(self.touched.popleft())
            elif not self._conclude():
                return

    def _consider(self, node_id: str) -> None:
        """Starts or skips a node that may be ready."""
        if self.progress.run(node_id).status is not RunStatus.PENDING or node_id in self.graph.ends:
            return
        settled, live = self.progress.arrivals.get(node_id, (0, 0))
        is_settled = settled >= len(self.graph.sources.get(node_id, ()))
        if live and (is_settled or self._takes_the_first(node_id)):
            self._activate(node_id)
        elif is_settled:
            self._skip(node_id)

    def _skip(self, node_id: str) -> None:
        dead = self.graph.targets.get(node_id, ())
        self.emit(ev.NodeSkipped(at=self.at, node_id=node_id, dead=dead))
        self.touched.extend(dead)

    def _takes_the_first(self, node_id: str) -> bool:
        config = self.graph.nodes[node_id].config
        return isinstance(config, Join) and config.merge_strategy == "first"

    def _conclude(self) -> bool:
        """Ends, pauses or resumes the execution where that follows; True when something may follow from it."""
        progress = self.progress
        if _is_busy(progress, self.graph):
            if progress.status is Status.PAUSED:
                self.emit(ev.WorkflowResumed(at=self.at, reason="progress"))
        elif progress.waiting:
            if progress.status is Status.RUNNING:
                self.emit(ev.WorkflowPaused(at=self.at, reason="waiting"))
        elif not progress.finalizing and self._start_finalizers(progress.error):
            return True
        else:
            self._end(progress.error)
        self._mark_segment()
        return False

    def _mark_segment(self) -> None:
        length = self.graph.definition.continue_as_new
        if length and not self.progress.is_terminal and self.progress.sequence - self.progress.boundary >= length:
            self.emit(ev.SegmentBoundary(at=self.at))

    def _start_finalizers(self, error: ev.Failure | None) -> bool:
        outcome = "failure" if error else "success"
        wanted = [
            node
            for node in self.graph.finalizers
            if isinstance(node.config, Finalizer) and node.config.run_on in (outcome, "always")
        ]
        if wanted:
            self.emit(ev.WorkflowFinalizing(at=self.at, error=error))
            for node in wanted:
                if self.progress.run(node.id).status is not RunStatus.PENDING:  # before a retry or a fork
                    self._start_over(node.id, {node.id: (0, 0)})
                self._schedule(node.id)
        return bool(wanted)

    def _end(self, error: ev.Failure | None) -> None:
        if error is None:
            self._finish(ev.WorkflowCompleted(at=self.at), None)
        else:
            self._finish(ev.WorkflowFailed(at=self.at, error=error), error)

    def _finish(self, event: ev.Event, error: ev.Failure | None) -> None:
        if WORKFLOW_TIMER in self.progress.timers:
            self.commands.append(CancelTimer(WORKFLOW_TIMER))
        self.emit(event)
        if self.progress.parent is not None:
            self._tell_parent(self.progress.parent, error)

    def _tell_parent(self, parent: ev.Parent, error: ev.Failure | None) -> None:
        at, node_id, child = self.at, parent.node_id, self.progress.execution_id
        news: ev.ChildWorkflowCompleted | ev.ChildWorkflowFailed
        if error is None:
            output = self.progress.state
            news = ev.ChildWorkflowCompleted(at=at, node_id=node_id, child_execution_id=child, output=output)
        else:
            news = ev.ChildWorkflowFailed(at=at, node_id=node_id, child_execution_id=child, error=error)
        self.commands.append(TellParent(parent, news))

    def tell_whether_it_moves(self, before: Progress) -> None:
        """The parent waits while the child only waits. A pause that somebody asked for is not the parent's."""
        progress = self.progress
        if progress.parent is None or progress.is_terminal:
            return
        only_waits = _only_waits(progress, self.graph)
        if only_waits != _only_waits(before, self.graph):
            kind = ev.ChildWorkflowPaused if only_waits else ev.ChildWorkflowResumed
            news = kind(at=self.at, node_id=progress.parent.node_id, child_execution_id=progress.execution_id)
            self.commands.append(TellParent(progress.parent, news))

    def _fail_workflow(self, error: ev.Failure) -> None:
        """The whole execution fails, whatever still runs."""
        error = self.progress.error or error
        self._stop(self.progress.open_runs(), INTERRUPTION)
        self.touched.clear()
        if self.progress.finalizing or not self._start_finalizers(error):
            self._end(error)

    # Starting a node

    def _activate(self, run_id: str) -> None:
        try:
            self._begin(run_id)
        except (_Broken, ExpressionError) as error:
            self._fail(run_id, ev.Failure(str(error)))

    def _begin(self, run_id: str) -> None:
        if map_of(run_id) is not None:
            return self._schedule(run_id)
        node = self.graph.nodes[run_id]
        match node.config:
            case Condition():
                self._complete(
                    run_id, None, patch={}, refusal="no branch is true, and there is none without a condition"
                )
            case Parallel():
                self._complete(run_id, None, patch={})
            case Join() as join:
                self._join(run_id, join)
            case Map():
                self._start_map(run_id, node)
            case HumanApproval() as approval:
                self._ask(run_id, node, approval)
            case Wait() as wait:
                self._wait(run_id, node, wait)
            case _:
                self._schedule(run_id)
        return None

    def _schedule(self, run_id: str) -> None:
        """Hands the run to a worker, or to a child execution, when its policy lets it."""
        node = self.graph.worker_node(run_id)
        try:
            if isinstance(node.config, Subgraph):
                return self._start_child(run_id, node, node.config)
            given = self._input(run_id, node)
            config = self._render(node, "config", run_id) if "config" in node.templates else None
            concurrency = self._concurrency(run_id, node)
            if self._may_run(run_id, node, config):
                self.emit(
                    ev.NodeScheduled(at=self.at, node_id=run_id, input=given, config=config, concurrency=concurrency)
                )
                self._enqueue(run_id, 1, self.at)
        except (_Broken, ExpressionError) as error:
            self._fail(run_id, ev.Failure(str(error)))
        return None

    def _input(self, run_id: str, node: Node) -> Any:
        return self._render(node, "input", run_id) if "input" in node.templates else msgspec.UNSET

    def _concurrency(self, run_id: str, node: Node) -> ev.Concurrency | None:
        """None: it shares no key with anything. An empty key is none."""
        if node.at_once is None:
            return None
        key = _key_text(self._render(node, "concurrency", run_id))
        return ev.Concurrency(key, node.at_once) if key else None

    def _render(self, node: Node, name: str, run_id: str) -> Any:
        template = node.templates[name]
        names = self._item_names(run_id)
        if "env" not in template.names:
            return template.render(self._scope(**names))
        # What the other marks do not replace came out of the data: somebody asks for a secret by its mark.
        probe = template.render(self._scope(env=_EnvMarks(self.env, "\ue002"), **names))
        if ENV_MARK.encode() in msgspec.json.encode([self.progress.state, names, probe]):
            raise _Broken("the state holds a text that looks like a secret's place; refused")
        return template.render(self._scope(env=_EnvMarks(self.env), **names))

    def _item_names(self, run_id: str) -> dict[str, Any]:
        fan = map_of(run_id)
        if fan is None:
            return {}
        index = item_of(run_id)
        return {"item": (self.progress.run(fan).items or [])[index], "index": index}

    def _may_run(self, run_id: str, node: Node, config: dict[str, Any] | None) -> bool:
        """Whether the policies let it run now; else they ask a person first. Raises `_Broken` where they forbid it."""
        policies = (*self.policies, *node.policies)
        if not policies:
            return True
        configured = _configured(node, config)
        tool, model = _tool_of(configured), getattr(configured, "model", None)
        if tool is not None and (glob := _matching(policies, "blocked_tools", tool)):
            self._forbid(run_id, f"blocked_tools: {glob}", tool, f"blocks the tool {tool!r} ({glob})")
        for allowed in (policy.model_allowlist for policy in policies):
            if isinstance(model, str) and allowed is not None and model not in allowed:
                rule = f"model_allowlist: {', '.join(allowed)}"
                self._forbid(run_id, rule, model, f"does not allow the model {model!r}")
        approved = self.progress.run(run_id).status is RunStatus.WAITING
        if tool is None or approved or not _matching(policies, "require_approval_for", tool):
            return True
        request = ev.ApprovalRequested(at=self.at, node_id=run_id, description=f"Run the tool {tool}?", tool=tool)
        self._request(request, self.graph.definition.timeouts.approval_timeout)
        return False

    def _forbid(self, run_id: str, rule: str, subject: str, why: str) -> Never:
        self.emit(ev.PolicyViolation(at=self.at, node_id=run_id, rule=rule, subject=subject))
        raise _Broken(f"the policy {why}")

    def _start_child(self, run_id: str, node: Node, subgraph: Subgraph) -> None:
        progress = self.progress
        depth = 1 + (progress.parent.depth if progress.parent else 0)
        if depth > DEEPEST:
            raise _Broken(f"child executions nest {DEEPEST} levels deep at most: does a workflow start itself?")
        given = self._render(node, "input", run_id) if "input" in node.templates else self._default_input(run_id)
        if not isinstance(given, dict):
            raise _Broken(f"the input of a child execution is an object, not {type(given).__name__}")
        started = ev.ChildWorkflowStarted(
            at=self.at,
            node_id=run_id,
            child_execution_id=_child_id(progress.execution_id, progress.sequence + 1),
            workflow_id=subgraph.workflow_ref,
            workflow_version=subgraph.workflow_version,
            input=given,
        )
        self.emit(started)
        self.commands.append(StartChild(ev.Parent(progress.execution_id, run_id, depth), started))

    def _default_input(self, run_id: str) -> Any:
        return self._item_names(run_id).get("item", self.progress.state)

    def _start_map(self, run_id: str, node: Node) -> None:
        assert node.items is not None
        items = node.items.evaluate(self._scope(env=self.env))
        if not isinstance(items, list | tuple):
            raise _Broken(f"items is {type(items).__name__}, not a list: {node.items.source}")
        self.emit(ev.MapStarted(at=self.at, node_id=run_id, items=list(items)))
        self._feed_map(run_id)

    def _feed_map(self, run_id: str) -> None:
        """Starts as many items as may run; ends the map when all are done."""
        run = self.progress.run(run_id)
        items = run.items or []
        if run.items_done == len(items):
            output = [self.progress.run(f"{run_id}[{index}]").output for index in range(len(items))]
            return self._complete(run_id, output)
        if self.progress.held:
            return None
        limit = getattr(self.graph.nodes[run_id].config, "max_concurrency", None) or len(items)
        begun = run.items_begun
        while begun < len(items) and begun - run.items_done < limit:
            self._schedule(f"{run_id}[{begun}]")
            begun += 1
            if self.progress.run(run_id).status is not RunStatus.DELEGATED:
                return None
        return None

    def _join(self, run_id: str, join: Join) -> None:
        sources = join.wait_for or self.graph.sources.get(run_id, ())
        runs = {source: self.progress.run(source) for source in sources}
        outputs = [run.output if run.status is RunStatus.COMPLETED else None for run in runs.values()]
        output: Any = outputs
        if join.merge_strategy == "merge":
            output = {}
            for part in outputs:
                output = merge(output, part) if isinstance(part, dict) else output
        elif join.merge_strategy == "first":
            arrived = [source for source, run in runs.items() if run_id in run.taken]
            first = self.progress.last if self.progress.last in arrived else next(iter(arrived), None)
            output = runs[first].output if first is not None else None
            self._drop_rest(run_id)
        self._complete(run_id, output)

    def _drop_rest(self, join_id: str) -> None:
        """Nothing on the way to the join goes on; what else depends on it finds its edges dead."""
        upstream = self.graph.upstream(join_id)
        others = [run_id for run_id in self.progress.open_runs() if (map_of(run_id) or run_id) in upstream]
        self._stop(others, f"{join_id} took the first", spread=True)
        for node_id in self.graph.nodes:
            if node_id in upstream and self.progress.run(node_id).status is RunStatus.PENDING:
                self._skip(node_id)

    def _ask(self, run_id: str, node: Node, approval: HumanApproval) -> None:
        text = self._render(node, "description", run_id) if "description" in node.templates else None
        timeout = approval.timeout_secs or self.graph.definition.timeouts.approval_timeout
        description = None if text is None else str(text)
        self._request(ev.ApprovalRequested(at=self.at, node_id=run_id, description=description), timeout)

    def _request(self, request: ev.ApprovalRequested, timeout: float | None) -> None:
        expires_at = None if timeout is None else self._later(timeout)
        request = replace(request, expires_at=expires_at)
        self.emit(request)
        self.commands.append(AskPerson(request))
        self._set_timer(f"{request.node_id}/timeout", expires_at)

    def _wait(self, run_id: str, node: Node, wait: Wait) -> None:
        key = str(self._render(node, "correlation_key", run_id)) if wait.condition != "timer" else None
        until = self._wait_until(run_id, node, wait) if wait.condition != "external_event" else None
        self.emit(ev.WaitStarted(at=self.at, node_id=run_id, correlation_key=key, until=until))
        if key is not None and (kept := self.progress.inbox.get(key)):
            self.emit(ev.ExternalEventConsumed(at=self.at, node_id=run_id, correlation_key=key))
            return self._complete(run_id, kept[0])
        self._set_timer(f"{run_id}/wait", until)
        self._set_timer(f"{run_id}/timeout", None if wait.timeout_secs is None else self._later(wait.timeout_secs))
        return None

    def _wait_until(self, run_id: str, node: Node, wait: Wait) -> int:
        try:
            if wait.until is None:
                return max(self.at, self._later(float(seconds(self._render(node, "duration", run_id)))))
            moment = datetime.fromisoformat(str(self._render(node, "until", run_id)))
            utc = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
            return max(self.at, round(utc.timestamp() * 1000))
        except ExpressionError:
            raise
        except (TypeError, ValueError, OverflowError) as error:
            raise _Broken(f"cannot tell how long to wait: {error}") from error

    def _later(self, delay: float) -> int:
        if delay > LONGEST:
            raise ValueError(f"{delay:g} s is more than ten years")
        return self.at + round(delay * 1000)

    def _set_workflow_timer(self) -> None:
        timeout = self.graph.definition.timeouts.workflow_timeout
        self._set_timer(WORKFLOW_TIMER, self._later(timeout) if timeout else None)

    def _set_timer(self, timer_id: str, fire_at: int | None) -> None:
        if fire_at is not None:
            node_id = timer_node(timer_id) or None
            self.emit(ev.TimerCreated(at=self.at, node_id=node_id, timer_id=timer_id, fire_at=fire_at))
            self.commands.append(SetTimer(timer_id, fire_at))

    def _limit_attempt(self, run_id: str) -> None:
        """A worker of this process stops by itself; a remote one's time is kept here, from when it took the node."""
        timeout = self.graph.worker_node(run_id).timeout
        self._set_timer(f"{run_id}/timeout", self._later(timeout) if timeout else None)

    def _enqueue(self, run_id: str, attempt: int, until: int) -> None:
        concurrency = self.progress.run(run_id).concurrency
        self.commands.append(EnqueueWork(run_id, attempt, until, self._queue(run_id), concurrency))

    def _settle(self, run_id: str) -> None:
        self.commands.append(SettleWork(run_id, self._queue(run_id), self.progress.run(run_id).concurrency))

    def _queue(self, run_id: str) -> str:
        return self.graph.worker_node(run_id).queue or "general"

    # Ending a node

    def _complete(
        self,
        run_id: str,
        output: Any,
        result: ev.NodeCompleted | None = None,
        *,
        patch: dict[str, Any] | None = None,
        route: str = NEXT,
        refusal: str | None = None,
        error_class: str = "custom",
    ) -> None:
        """The node is over. Where `refusal` is given and no edge is right, it failed for that reason."""
        run = self.progress.run(run_id)
        if result is None:
            result = ev.NodeCompleted(at=self.at, node_id=run_id, attempt=run.attempt, iteration=run.iteration)
        try:
            way, patch = self._after(run_id, output, result.state_patch if patch is None else patch, route)
        except (_Broken, ExpressionError) as error:
            return self._refuse(run_id, result, ev.Failure(str(error)))
        if refusal is not None and not way.found and route != APPROVED:
            return self._refuse(run_id, result, ev.Failure(refusal, error_class))
        self._release(run_id)
        self.emit(
            replace(
                result,
                at=self.at,
                output=self._retained(run_id, output),
                state_patch=patch or None,
                taken=way.taken,
                dead=way.dead,
                loops=way.loops,
            )
        )
        if (fan := map_of(run_id)) is not None:
            return self._feed_map(fan)
        return self._go(way)

    def _after(self, run_id: str, output: Any, patch: dict[str, Any] | None, route: str) -> tuple[_Way, dict[str, Any]]:
        if map_of(run_id) is not None:
            return _Way(), {}
        node = self.graph.nodes[run_id]
        if patch is None:
            patch = self._default_patch(node, output, route)
        state = self.progress.state
        if patch and (self.graph.validator is not None or run_id in self.graph.deciding):
            state = merge(state, patch)
            self._check_result(state)
        return self._way(node, route, state, output), patch

    def _retained(self, run_id: str, output: Any) -> Any:
        """What the log keeps of an output beside its patch of the state. A map puts the outputs of its items together,
        so those are kept until then in any case."""
        policy = self.graph.definition.data_policy
        return output if policy is None or policy.retain_outputs or map_of(run_id) is not None else None

    def _default_patch(self, node: Node, output: Any, route: str) -> dict[str, Any]:
        if output is None:
            return {node.output_key: None} if node.output_key in self.progress.state else {}
        if isinstance(node.config, HumanApproval) and not node.output_key:
            return {}
        if isinstance(output, dict) and not node.output_key:
            return output
        key = node.output_key or node.id
        return {key: _replacing(self.progress.state.get(key), output)}

    def _way(self, node: Node, route: str, state: dict[str, Any], output: Any) -> _Way:
        edges = self.graph.outgoing.get(node.id, ())
        if not edges:
            return _Way()
        chosen = dict.fromkeys(edge.target for edge in self._chosen(node, edges, route, state, output))
        forward = self.graph.targets.get(node.id, ())
        return _Way(
            taken=tuple(target for target in forward if target in chosen),
            dead=tuple(target for target in forward if target not in chosen),
            loops=tuple(target for target in chosen if (node.id, target) in self.graph.back),
            found=bool(chosen),
        )

    def _chosen(
        self, node: Node, edges: tuple[Edge, ...], route: str, state: dict[str, Any], output: Any
    ) -> Iterable[Edge]:
        scope: dict[str, Any] | None = None

        def holds(edge: Edge) -> bool:
            nonlocal scope
            if edge.condition is None:
                return True
            if scope is None:
                scope = self._scope(state=state, output=output, env=self.env)
            return edge.condition.is_true(scope)

        own = [edge for edge in edges if edge.route == route != NEXT]
        if route in (TIMEOUT, ERROR) or (route == REJECTED and own):
            return own
        if any(edge.route == BRANCH for edge in edges):
            branches = [edge for edge in edges if edge.route in (BRANCH, NEXT)]
            ordered = sorted(branches, key=lambda edge: edge.condition is None)
            return [edge for edge in [next(filter(holds, ordered), None)] if edge is not None]
        plain = [edge for edge in edges if edge.route == NEXT]
        conditional = [edge for edge in plain if edge.condition is not None and holds(edge)]
        if route == REJECTED or (conditional and not isinstance(node.config, Parallel)):
            return own + conditional
        return own + conditional + [edge for edge in plain if edge.condition is None]

    def _go(self, way: _Way) -> None:
        self.touched.extend(way.taken)
        self.touched.extend(way.dead)

    def _outermost(self, heads: tuple[str, ...]) -> str:
        """Of the loops that go round at once, one that no other one contains."""
        return next(head for head in heads if not any(head in self.graph.downstream(o) for o in heads if o != head))

    def _iterate(self, head: str) -> None:
        """A loop goes round: its head and everything that follows it starts over."""
        limit = self.graph.definition.max_iterations
        if self.progress.run(head).iteration + 1 >= limit:
            return self._fail_workflow(
                ev.Failure(f"the loop at {head!r} went round {limit} times, which is its max_iterations", node_id=head)
            )
        region = self.graph.downstream(head)
        self._stop([run for run in self.progress.open_runs() if (map_of(run) or run) in region], "a loop starts over")
        known = sorted(node_id for node_id in region if node_id in self.progress.arrivals)
        self._start_over(head, {node_id: self._kept_arrivals(node_id, region) for node_id in known})
        return None

    def _start_over(self, head: str, reset: dict[str, tuple[int, int]]) -> None:
        iteration = self.progress.run(head).iteration + 1
        if head not in self.graph.ends:
            reset = {**reset, head: (len(self.graph.sources.get(head, ())), 1)}
        self.emit(ev.IterationStarted(at=self.at, node_id=head, iteration=iteration, reset=reset))
        self.touched.append(head)

    def _kept_arrivals(self, node_id: str, region: frozenset[str]) -> tuple[int, int]:
        settled = live = 0
        for source in self.graph.sources.get(node_id, ()):
            run = self.progress.run(source)
            if source not in region and (run.status in _SETTLED or run.handled):
                settled += 1
                live += node_id in run.taken
        return settled, live

    def _fail(self, run_id: str, error: ev.Failure, attempt: ev.NodeFailed | None = None) -> None:
        """The node failed for good: its error route takes over, else the execution will fail."""
        error = replace(error, node_id=error.node_id or run_id)
        run = self.progress.run(run_id)
        if attempt is None:
            attempt = ev.NodeFailed(
                at=self.at, node_id=run_id, error=error, attempt=run.attempt, iteration=run.iteration
            )
        fan = map_of(run_id)
        way = self._error_way(run_id) if fan is None else _Way()
        self._release(run_id)
        self.emit(
            replace(
                attempt,
                at=self.at,
                error=error,
                final=True,
                handled=way.found,
                state_patch={"error": _error_state(error)} if way.found else None,
                taken=way.taken,
                dead=way.dead,
                loops=way.loops,
            )
        )
        if fan is not None:
            self._stop([other for other in self.progress.open_runs() if map_of(other) == fan], INTERRUPTION)
            self._fail(fan, error)
        self._go(way)

    def _refuse(self, run_id: str, result: ev.NodeCompleted, error: ev.Failure) -> None:
        """The node failed by what it brought."""
        attempt = ev.NodeFailed(
            at=self.at,
            node_id=run_id,
            error=error,
            attempt=result.attempt,
            iteration=result.iteration,
            lease_fence=result.lease_fence,
        )
        self._fail(run_id, error, attempt)

    def _error_way(self, run_id: str) -> _Way:
        """Without an error route no edge is settled, so that a retry can still go along them."""
        way = self._way(self.graph.nodes[run_id], ERROR, self.progress.state, None)
        return way if way.found else _Way()

    def _release(self, run_id: str) -> None:
        """Withdraws what was arranged for the run."""
        run = self.progress.run(run_id)
        if run.approval is not None:
            self.commands.append(CloseApproval(run_id))
        if run.child_execution_id is not None:
            self.commands.append(CancelChild(run.child_execution_id))
        self._withdraw(run_id)

    def _withdraw(self, run_id: str) -> None:
        """The work that waits or is being done for the run, and its timers."""
        if self.progress.run(run_id).status is RunStatus.SCHEDULED and run_id not in self.progress.left:
            self._settle(run_id)
        if self.progress.timers:
            self.commands += map(CancelTimer, timers_of(self.progress, run_id))

    def _stop(self, run_ids: Iterable[str], reason: str, *, spread: bool = False) -> None:
        """Ends what is open; with `spread` the edges from there are dead."""
        for run_id in run_ids:
            if self.progress.run(run_id).status in OPEN:
                dead = self.graph.targets.get(run_id, ()) if spread else ()
                self._release(run_id)
                self.emit(ev.NodeCancelled(at=self.at, node_id=run_id, reason=reason, dead=dead))
                self.touched.extend(dead)

    # Limits

    def _check_budgets(self) -> None:
        event, target = next(self._exceeded(), None), self.graph.definition.on_budget_exceeded
        if event is None or self.progress.finalizing:
            return
        if target is None:
            self.emit(event)
            self._fail_workflow(ev.Failure(_budget_message(event)))
        elif self.progress.run(target).status in (RunStatus.PENDING, RunStatus.SKIPPED):
            self.emit(event)
            self._reroute(target)

    def _reroute(self, target: str) -> None:
        """From here on only the target and what follows it runs."""
        self._stop(self.progress.open_runs(), "the budget is exceeded")
        self.touched.clear()
        region = self.graph.downstream(target) - self.graph.ends
        reset = {
            node_id: (sum(source not in region for source in self.graph.sources.get(node_id, ())), 0)
            for node_id in sorted(region)
        }
        reset |= {
            node_id: (0, 0)
            for node_id in self.progress.arrivals
            if node_id not in region and self.progress.run(node_id).status is RunStatus.PENDING
        }
        self._start_over(target, reset)

    def _exceeded(self) -> Iterator[ev.TokenBudgetExceeded | ev.CostBudgetExceeded]:
        used, definition = self.progress.consumed, self.graph.definition
        budget, cost = definition.token_budget, definition.cost_budget_usd
        amounts = {
            "input_tokens": used.input_tokens,
            "output_tokens": used.output_tokens,
            "total_tokens": used.input_tokens + used.output_tokens,
        }
        for name, amount in amounts.items() if budget else ():
            limit = getattr(budget, name)
            if limit is not None and amount > limit:
                yield ev.TokenBudgetExceeded(at=self.at, budget=name, limit=limit, used=amount)
        if cost is not None and used.cost_usd > cost:
            yield ev.CostBudgetExceeded(at=self.at, limit_usd=cost, used_usd=used.cost_usd)

    def _check_state(self, state: Any, place: str) -> None:
        """Raises `Invalid` where what a caller sent does not fit the workflow's state schema."""
        if self.graph.validator is not None:
            problems = [
                Problem(".".join([place, *map(str, found.instance_path)]), found.message)
                for found in self.graph.validator.iter_errors(state)
            ]
            if problems:
                raise Invalid(problems)

    def _check_result(self, state: Any) -> None:
        try:
            self._check_state(state, "state")
        except Invalid as error:
            raise _Broken(f"the result does not fit the state schema: {error}") from error

    def _scope(
        self, *, state: dict[str, Any] | None = None, output: Any = msgspec.UNSET, **more: Any
    ) -> dict[str, Any]:
        """The names that expressions see. The state's keys come first, so the fixed names win over them."""
        progress = self.progress
        state = progress.state if state is None else state
        if output is msgspec.UNSET:
            output = progress.run(progress.last).output if progress.last else None
        return {
            **state,
            "env": self.env,
            **more,
            "state": state,
            "input": progress.input,
            "output": output,
            "nodes": _Outputs(progress),
        }


_AFTER_THE_END: Mapping[type[ev.Event], str] = {
    ev.WorkflowCancelled: "; it cannot be cancelled any more",
    ev.WorkflowPaused: "; it cannot be paused any more",
    ev.WorkflowResumed: "; it cannot be resumed any more",
    ev.ApprovalReceived: ", and nothing waits for an approval any more",
    ev.ExternalEventReceived: "; it takes no events any more",
}
_SETTLED = frozenset({RunStatus.COMPLETED, RunStatus.SKIPPED, RunStatus.CANCELLED})


def _is_busy(progress: Progress, graph: Graph) -> bool:
    """Whether more than waits is left. A map does nothing itself: its items may all be waiting."""
    if not progress.waiting or progress.busy > len(graph.maps):
        return progress.busy > 0
    return any(run.status in BUSY and run.items is None for run in map(progress.run, progress.open_runs()))


def _only_waits(progress: Progress, graph: Graph) -> bool:
    return progress.waiting > 0 and not _is_busy(progress, graph)


def _child_id(parent_id: str, sequence: int) -> str:
    """The id of the execution at the top and a digest, so that ids do not grow from level to level."""
    digest = hashlib.blake2b(f"{parent_id}.{sequence}".encode(), digest_size=10).hexdigest()
    return f"{parent_id.partition('.')[0]}.{digest}"


def _configured(node: Node, config: dict[str, Any] | None) -> BaseModel | None:
    try:
        return node.rendered(config)
    except ValidationError:
        return None  # the worker will say what is wrong


def _key_text(value: Any) -> str:
    """A concurrency key, as every database can store and index it."""
    if not isinstance(value, str | int | float | None):
        raise _Broken(f"concurrency.key is a text or a number, not {type(value).__name__}")
    key = "" if value is None else str(value)
    if len(key) > LONGEST_KEY or _UNFIT_FOR_A_KEY.search(key):
        raise _Broken(f"concurrency.key: {key[:40]!r} is no text of at most {LONGEST_KEY} printable characters")
    return key


def _tool_of(configured: BaseModel | None) -> str | None:
    """The tool that a node calls: a plugin's configuration tells by a property of this name."""
    name: str | None = getattr(configured, "tool_name", None)
    return name


def _matching(policies: Iterable[Policy], rule: str, name: str) -> str | None:
    globs = (glob for policy in policies for glob in getattr(policy, rule))
    return next((glob for glob in globs if fnmatch.fnmatchcase(name, glob)), None)


def _replacing(old: Any, new: Any) -> Any:
    """The merge patch that leaves exactly `new` where `old` is."""
    if not isinstance(old, dict) or not isinstance(new, dict):
        return new
    gone = dict.fromkeys(key for key in old if key not in new)
    return {**gone, **{key: _replacing(old.get(key), value) for key, value in new.items()}}


def _rejection(event: ev.ApprovalReceived) -> str:
    claimed = f" (for {event.user_id})" if event.actor and event.user_id else ""
    who = f"{event.actor or event.user_id or ''}{claimed}"
    return "rejected" + (f" by {who}" if who else "") + (f": {event.comment}" if event.comment else "")


def _error_state(error: ev.Failure) -> dict[str, Any]:
    return {"message": error.message, "error_class": error.error_class, "node_id": error.node_id}


def _budget_message(event: ev.TokenBudgetExceeded | ev.CostBudgetExceeded) -> str:
    match event:
        case ev.TokenBudgetExceeded(budget=budget, limit=limit, used=used):
            return f"the budget of {limit} {budget} is exceeded: {used} were used"
        case ev.CostBudgetExceeded(limit_usd=limit, used_usd=used):
            return f"the budget of {limit:g} USD is exceeded: {used:g} were spent"
