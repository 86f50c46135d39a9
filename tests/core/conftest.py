"""Plays an execution: hands facts to `decide`, and keeps what a shell would keep."""

from __future__ import annotations

from functools import reduce
from typing import Any

import msgspec
from pydantic import BaseModel, ConfigDict

from jamjet_kernel.core import events as ev
from jamjet_kernel.core import progress as core
from jamjet_kernel.core.decide import (
    AskPerson,
    CancelChild,
    CancelTimer,
    CloseApproval,
    Command,
    Decision,
    EnqueueWork,
    SetTimer,
    SettleWork,
    StartChild,
    TellChild,
    TellParent,
    decide,
)
from jamjet_kernel.core.graph import Graph, parse
from jamjet_kernel.core.progress import BUSY, Progress, RunStatus, evolve
from jamjet_kernel.errors import Invalid


class Work(BaseModel):
    """A kind of node that takes anything."""

    model_config = ConfigDict(extra="allow")


class Tool(BaseModel):
    """A kind of node that calls a tool which policies know by name."""

    model_config = ConfigDict(extra="forbid")
    tool_ref: str
    retries: int = 0

    @property
    def tool_name(self) -> str:
        return self.tool_ref


class Model(BaseModel):
    model_config = ConfigDict(extra="forbid")
    model: str
    prompt: str = ""


KINDS: dict[str, type[BaseModel]] = {"work": Work, "tool": Tool, "model": Model}
WORK = {"type": "work"}


def ir(nodes: dict[str, Any], *edges: str, **more: Any) -> dict[str, Any]:
    """An IR whose edges are written `a > b` or `a > b if state.ok`."""
    return {
        "workflow_id": "flow",
        "version": "0.1.0",
        "nodes": {name: WORK if node is None else node for name, node in nodes.items()},
        "edges": [_edge(edge) for edge in edges],
        **more,
    }


def graph(nodes: dict[str, Any], *edges: str, **more: Any) -> Graph:
    return parse(ir(nodes, *edges, **more), KINDS)


def problems(nodes: dict[str, Any], *edges: str, **more: Any) -> dict[str, str]:
    """What registration says is wrong, by place."""
    try:
        graph(nodes, *edges, **more)
    except Invalid as error:
        told = error.problems
    else:
        told = []
    found = {problem.place: problem.message for problem in told}
    assert len(found) == len(told), "a place is told twice"
    return found


def _edge(text: str) -> dict[str, str]:
    ends, _, condition = text.partition(" if ")
    source, _, target = ends.partition(">")
    edge = {"from": source.strip(), "to": target.strip()}
    return {**edge, "condition": condition} if condition else edge


class Play:
    """One execution, its log, and the rows that a storage would hold for it."""

    def __init__(self, graph: Graph, env: dict[str, str] | None = None) -> None:
        self.graph = graph
        self.env = env or {}
        self.progress = Progress()
        self.log: list[ev.Event] = []
        self.decisions: list[Decision] = []
        self.at = 1000
        self.work: dict[str, EnqueueWork] = {}
        self.timers: dict[str, int] = {}
        self.approvals: dict[str, ev.ApprovalRequested] = {}
        self.children: dict[str, ev.ChildWorkflowStarted] = {}
        self.told: list[TellParent] = []

    def start(self, input: dict[str, Any] | None = None, **more: Any) -> Play:
        self.record(
            ev.WorkflowStarted(
                at=0, execution_id="exec", workflow_id="flow", workflow_version="0.1.0", input=input or {}, **more
            )
        )
        return self

    def fork(self, sequence: int, **state: Any) -> Play:
        before = reduce(evolve, self.log[:sequence], Progress())
        progress, rerun = core.branched(before, core.merge(before.state, state))
        forked = Play(self.graph, self.env)
        forked.at = self.at
        return forked.start(before.input, progress=msgspec.json.decode(msgspec.json.encode(progress)), rerun=rerun)

    def record(self, event: ev.Event) -> Decision:
        """Takes the fact in, and checks all that must hold after every fact."""
        self.at += 1
        before = self.progress
        decision = decide(self.graph, before, msgspec.structs.replace(event, at=self.at), self.env)
        self.progress = decision.progress
        self.log += decision.events
        self.decisions.append(decision)
        for command in decision.commands:
            self._carry_out(command)
        self._check(before, decision)
        return decision

    # Facts

    def take(self, run_id: str, worker_id: str = "w1") -> Play:
        """A remote worker does."""
        attempt = self.progress.run(run_id).attempt
        self.record(ev.NodeStarted(at=0, node_id=run_id, attempt=attempt, worker_id=worker_id))
        return self

    def complete(self, run_id: str, output: Any = None, **more: Any) -> Play:
        run = self.progress.run(run_id)
        self.record(
            ev.NodeCompleted(
                at=0, node_id=run_id, output=output, **{"attempt": run.attempt, "iteration": run.iteration, **more}
            )
        )
        return self

    def fail(self, run_id: str, message: str = "boom", **more: Any) -> Play:
        run = self.progress.run(run_id)
        error = ev.Failure(message, more.pop("error_class", "custom"))
        fields = {"attempt": run.attempt, "iteration": run.iteration, "retryable": True, **more}
        self.record(ev.NodeFailed(at=0, node_id=run_id, error=error, **fields))
        return self

    def park(self, run_id: str, until: int) -> Play:
        run = self.progress.run(run_id)
        self.record(
            ev.NodeParked(
                at=0, node_id=run_id, attempt=run.attempt, iteration=run.iteration, until=until, reason="rate limited"
            )
        )
        return self

    def fire(self, timer_id: str) -> Play:
        fire_at = self.timers[timer_id]
        self.at = max(self.at, fire_at)
        self.record(ev.TimerFired(at=0, node_id=core.timer_node(timer_id) or None, timer_id=timer_id, fire_at=fire_at))
        return self

    def approve(self, node_id: str | None = None, decision: str = "approved", **more: Any) -> Play:
        self.record(ev.ApprovalReceived(at=0, node_id=node_id, decision=decision, **more))
        return self

    def reject(self, node_id: str | None = None, **more: Any) -> Play:
        return self.approve(node_id, "rejected", **more)

    def tell(self, key: str, payload: Any = None) -> Play:
        self.record(ev.ExternalEventReceived(at=0, correlation_key=key, payload=payload))
        return self

    def child_completes(self, run_id: str, output: Any = None) -> Play:
        child = self.progress.run(run_id).child_execution_id or ""
        self.record(ev.ChildWorkflowCompleted(at=0, node_id=run_id, child_execution_id=child, output=output))
        return self

    def child_fails(self, run_id: str, message: str = "boom") -> Play:
        child = self.progress.run(run_id).child_execution_id or ""
        error = ev.Failure(message)
        self.record(ev.ChildWorkflowFailed(at=0, node_id=run_id, child_execution_id=child, error=error))
        return self

    def child_pauses(self, run_id: str) -> Play:
        child = self.progress.run(run_id).child_execution_id or ""
        self.record(ev.ChildWorkflowPaused(at=0, node_id=run_id, child_execution_id=child))
        return self

    def child_goes_on(self, run_id: str) -> Play:
        child = self.progress.run(run_id).child_execution_id or ""
        self.record(ev.ChildWorkflowResumed(at=0, node_id=run_id, child_execution_id=child))
        return self

    def cancel(self, reason: str | None = None) -> Play:
        self.record(ev.WorkflowCancelled(at=0, reason=reason))
        return self

    def pause(self) -> Play:
        self.record(ev.WorkflowPaused(at=0, reason="requested"))
        return self

    def resume(self) -> Play:
        self.record(ev.WorkflowResumed(at=0, reason="requested"))
        return self

    def retry(self) -> Play:
        self.record(ev.WorkflowRetried(at=0))
        return self

    # What became of it

    @property
    def status(self) -> str:
        return self.progress.status.value

    @property
    def state(self) -> dict[str, Any]:
        return self.progress.state

    @property
    def open_work(self) -> list[str]:
        return sorted(self.work)

    def statuses(self) -> dict[str, str]:
        return {run_id: run.status.value for run_id, run in self.progress.nodes.items()}

    def kinds(self, since: int = 0) -> list[str]:
        return [ev.kind_of(event) for event in self.log[since:]]

    def said(self, kind: type[Any]) -> list[Any]:
        return [event for event in self.log if isinstance(event, kind)]

    @property
    def last(self) -> list[str]:
        """The last decision's events, shortly: `NodeScheduled a`."""
        return [f"{ev.kind_of(e)} {e.node_id}" if e.node_id else ev.kind_of(e) for e in self.decisions[-1].events]

    # The shell's part

    def _carry_out(self, command: Command) -> None:
        match command:
            case EnqueueWork(run_id):
                self.work[run_id] = command
            case SettleWork(run_id):
                del self.work[run_id]
            case SetTimer(timer_id, fire_at):
                self.timers[timer_id] = fire_at
            case CancelTimer(timer_id):
                del self.timers[timer_id]
            case AskPerson(request):
                assert request.node_id not in self.approvals
                self.approvals[str(request.node_id)] = request
            case CloseApproval(node_id):
                del self.approvals[node_id]
            case StartChild(_, started):
                self.children[started.child_execution_id] = started
            case CancelChild(child):
                del self.children[child]
            case TellChild(child):
                assert child in self.children
            case TellParent():
                self.told.append(command)

    def _check(self, before: Progress, decision: Decision) -> None:
        after = decision.progress
        stored = [ev.decode(ev.encode(event)) for event in decision.events]
        assert reduce(evolve, stored, before) == after
        assert core.decode(core.encode(after)) == after
        assert after.sequence == len(self.log)
        if decision.events and isinstance(decision.events[0], ev.ChildWorkflowCompleted | ev.ChildWorkflowFailed):
            self.children.pop(decision.events[0].child_execution_id, None)
        self._check_rows(after)

    def _check_rows(self, after: Progress) -> None:
        runs = after.nodes
        assert after.busy == sum(run.status in BUSY for run in runs.values())
        assert after.waiting == sum(run.status is RunStatus.WAITING for run in runs.values())
        assert after.timers == self.timers
        assert set(self.approvals) == {run_id for run_id, run in runs.items() if run.approval is not None}
        assert set(self.children) == {run.child_execution_id for run in runs.values() if run.child_execution_id}
        scheduled = {run_id: run for run_id, run in runs.items() if run.status is RunStatus.SCHEDULED}
        assert after.held or not after.left
        assert {
            run_id: (run.attempt, run.available_at) for run_id, run in scheduled.items() if run_id not in after.left
        } == {run_id: (item.attempt, item.available_at) for run_id, item in self.work.items()}
        moves = any(run.status in BUSY and run.items is None for run in runs.values())
        only_waits = after.waiting > 0 and not moves
        if not after.is_terminal and not after.held:
            assert after.busy or after.waiting, "nothing is open, and yet it has not ended"
            assert self.status == ("paused" if only_waits else "running")
        if after.parent is not None and not after.is_terminal:
            last = self.told[-1].event if self.told else None
            assert only_waits == isinstance(last, ev.ChildWorkflowPaused), "the parent believes something else"
        if after.is_terminal:
            left = [*self.work, *self.timers, *self.approvals, *self.children]
            assert not left, "it has ended, and yet something is open"


def play(nodes: dict[str, Any], *edges: str, input: dict[str, Any] | None = None, **more: Any) -> Play:
    """An execution of this workflow, started."""
    return Play(graph(nodes, *edges, **more)).start(input)
