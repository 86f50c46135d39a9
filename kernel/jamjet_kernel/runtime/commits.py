"""A decision as rows: what one commit stores."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Protocol

from ..core import events as ev
from ..core import progress as core
from ..core.decide import (
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
)
from ..core.progress import Progress, timer_node
from ..ports import Commit, Delivery, Lease, OpenApproval, Principal, Receipt, Recorded, Snapshot, Timer, WorkItem
from . import dead_letters
from .alarms import HORIZON
from .audit import Auditor
from .limits import spent_by
from .live import Live, head_of
from .world import World

SNAPSHOT_EVERY = 256
"""Events between snapshots: loading reads fewer than this, and writing one costs little per event."""


FENCES = 20
"""Bits of a fence that count how often an item changed hands. Those above are the sequence of the commit that enqueued
it, so that whatever became of an earlier item of the same run, its fence was a lower one."""


_FENCED = "JAMJET_TEST_UNFENCED" not in os.environ
"""Tests of what happens to late results take the fences away, to see that they would notice."""


class Placement(Protocol):
    """Who gets the work that was just decided."""

    @property
    def worker_id(self) -> str: ...

    def room(self, queue: str) -> int:
        """How many more pieces of work of the queue this process takes at once; others wait to be claimed."""
        ...


class Commits:
    """Work is written already leased to this process, as much as it can run."""

    def __init__(self, world: World, placement: Placement) -> None:
        self._world = world
        self._placement = placement
        self._auditor = Auditor(world, lambda: placement.worker_id)

    def of(
        self,
        live: Live,
        decision: Decision,
        *,
        cause: ev.Event,
        principal: Principal | None,
        receipt: Receipt | None,
        delivered: str | None,
        lease: Lease | None,
    ) -> Commit:
        before, after = live.progress, decision.progress
        rows = self._rows(live, decision)
        return Commit(
            tenant_id=live.tenant_id,
            head=head_of(after),
            expected=before.sequence,
            events=[
                Recorded(sequence, ev.encode(event))
                for sequence, event in enumerate(decision.events, before.sequence + 1)
            ],
            enqueue=rows.enqueue,
            settle=rows.settle,
            freed=rows.freed,
            lease=lease if _FENCED else None,
            set_timers=rows.timers,
            cancel_timers=rows.cancelled,
            ask=rows.ask,
            answered=rows.answered,
            send=rows.send,
            delivered=delivered,
            snapshot=_snapshot(before, after),
            receipt=receipt,
            buried=dead_letters.buried(live.graph, decision),
            raised=dead_letters.raised(before, decision),
            spent=spent_by(decision),
            audit=self._auditor.records(
                live.graph, live.execution_id, decision.events, before.sequence + 1, cause, principal
            ),
        )

    def _rows(self, live: Live, decision: Decision) -> _Rows:
        rows = _Rows()
        for command in decision.commands:
            self._add(rows, live, decision.progress, command)
        return rows

    def _add(self, rows: _Rows, live: Live, progress: Progress, command: Command) -> None:
        """A later command takes back an earlier one of the same name: deletions come first in a commit."""
        tenant_id, execution_id = live.tenant_id, live.execution_id
        match command:
            case EnqueueWork():
                rows.enqueue.append(self._item(rows, live, progress, command))
            case SettleWork(run_id, _, concurrency):
                rows.enqueue[:] = [item for item in rows.enqueue if item.run_id != run_id]
                rows.settle.append(run_id)
                if concurrency is not None:
                    rows.freed.append(concurrency.key)
            case SetTimer(timer_id, fire_at):
                holder = self._placement.worker_id if fire_at <= self._world.now() + HORIZON else None
                node_id = timer_node(timer_id) or None
                rows.timers.append(Timer(execution_id, timer_id, fire_at, node_id, tenant_id, holder))
            case CancelTimer(timer_id):
                rows.timers[:] = [timer for timer in rows.timers if timer.timer_id != timer_id]
                rows.cancelled.append(timer_id)
            case AskPerson(request):
                rows.ask.append(_open_approval(progress, request))
            case CloseApproval(node_id):
                rows.ask[:] = [approval for approval in rows.ask if approval.node_id != node_id]
                rows.answered.append(node_id)
            case StartChild() | CancelChild() | TellChild() | TellParent():
                rows.send.append(self._delivery(tenant_id, progress, command))

    def _item(self, rows: _Rows, live: Live, progress: Progress, command: EnqueueWork) -> WorkItem:
        limited = command.concurrency
        return WorkItem(
            execution_id=live.execution_id,
            run_id=command.run_id,
            attempt=command.attempt,
            queue=command.queue,
            available_at=command.available_at,
            tenant_id=live.tenant_id,
            priority=progress.priority,
            # How much of a key is at work tells only the storage.
            lease_owner=self._holder(rows, command.queue) if limited is None else None,
            fence=progress.sequence << FENCES,
            concurrency_key=limited.key if limited else None,
            concurrency_limit=limited.limit if limited else None,
        )

    def _holder(self, rows: _Rows, queue: str) -> str | None:
        if rows.leased >= self._placement.room(queue):
            return None
        rows.leased += 1
        return self._placement.worker_id

    def _delivery(
        self, tenant_id: str, progress: Progress, command: StartChild | CancelChild | TellChild | TellParent
    ) -> Delivery:
        event: ev.Event
        match command:
            case StartChild(parent, started):
                target = started.child_execution_id
                event = ev.WorkflowStarted(
                    at=0,
                    execution_id=target,
                    workflow_id=started.workflow_id,
                    workflow_version=started.workflow_version or "",
                    input=started.input,
                    parent=parent,
                    priority=progress.priority,
                )
            case CancelChild(target):
                reason = f"its parent {progress.execution_id} does not wait for it any more"
                event = ev.WorkflowCancelled(at=0, reason=reason)
            case TellChild(target, event):
                pass
            case TellParent(parent, news):
                target, event = parent.execution_id, news
        return Delivery(
            self._world.new_id("dlv"), target, ev.encode(event), tenant_id, lease_owner=self._placement.worker_id
        )


@dataclass(slots=True)
class _Rows:
    enqueue: list[WorkItem] = field(default_factory=list)
    leased: int = 0
    settle: list[str] = field(default_factory=list)
    freed: list[str] = field(default_factory=list)
    timers: list[Timer] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)
    ask: list[OpenApproval] = field(default_factory=list)
    answered: list[str] = field(default_factory=list)
    send: list[Delivery] = field(default_factory=list)


def _snapshot(before: Progress, after: Progress) -> Snapshot | None:
    marked = after.boundary > before.boundary
    if marked or after.sequence // SNAPSHOT_EVERY > before.sequence // SNAPSHOT_EVERY:
        return Snapshot(after.sequence, core.encode(after))
    return None


def _open_approval(progress: Progress, request: ev.ApprovalRequested) -> OpenApproval:
    return OpenApproval(
        execution_id=progress.execution_id,
        node_id=request.node_id or "",
        requested_at=request.at,
        workflow_id=progress.workflow_id,
        description=request.description,
        expires_at=request.expires_at,
        tool=request.tool,
    )
