"""Executions: start, look, list, and what may be done to one as a whole."""

from __future__ import annotations

from typing import Any

from falcon.asgi import Request, Response

from ..core.events import Failure
from ..core.graph import map_of
from ..core.progress import Run, Status
from ..errors import Invalid, Problem
from ..ports import Head
from ..runtime import Runtime, View
from . import cursors, models
from .answers import answer, created, encode, optional_timestamp, timestamp
from .requests import body, principal_of, query


class Executions:
    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._max_bytes = runtime.settings.max_body_bytes

    async def on_post(self, req: Request, resp: Response) -> None:
        given, once = await body(req, models.ExecutionStart, self._max_bytes)
        execution_id = await self._runtime.start(
            principal_of(req),
            given.workflow_id,
            given.workflow_version,
            given.input,
            priority=given.priority,
            once=once,
        )
        created(resp, {"execution_id": execution_id}, "executions", execution_id)

    async def on_get(self, req: Request, resp: Response) -> None:
        asked = query(req, models.ExecutionsPage)
        before = cursors.read(asked.cursor, tuple[cursors.Number, cursors.Text])
        if before and asked.offset:
            raise Invalid([Problem("offset", "cannot be combined with a cursor")])
        found = await self._runtime.executions(
            principal_of(req),
            status=asked.status,
            workflow_id=asked.workflow_id,
            limit=asked.limit + 1,
            offset=asked.offset,
            before=before,
        )
        shown, cursor = cursors.page(found, asked.limit, lambda head: (head.created_at, head.execution_id))
        answer(resp, {"executions": [_summary(head) for head in shown], "next_cursor": cursor})

    async def on_get_one(self, req: Request, resp: Response, execution_id: str) -> None:
        principal = principal_of(req)
        if req.query_string:
            wait = query(req, models.ExecutionQuery).wait
            resp.data = encode_view(await self._runtime.wait(principal, execution_id, wait))
        else:
            resp.data = await self._runtime.execution_json(principal, execution_id)

    async def on_post_cancel(self, req: Request, resp: Response, execution_id: str) -> None:
        given, once = await body(req, models.Cancellation, self._max_bytes)
        await self._runtime.cancel(principal_of(req), execution_id, reason=given.reason, once=once)
        _changed(resp, execution_id, Status.CANCELLED)

    async def on_post_pause(self, req: Request, resp: Response, execution_id: str) -> None:
        _, once = await body(req, models.Nothing, self._max_bytes)
        await self._runtime.pause(principal_of(req), execution_id, once=once)
        _changed(resp, execution_id, Status.PAUSED)

    async def on_post_resume(self, req: Request, resp: Response, execution_id: str) -> None:
        _, once = await body(req, models.Nothing, self._max_bytes)
        await self._runtime.resume(principal_of(req), execution_id, once=once)
        _changed(resp, execution_id, Status.RUNNING)

    async def on_post_retry(self, req: Request, resp: Response, execution_id: str) -> None:
        _, once = await body(req, models.Nothing, self._max_bytes)
        await self._runtime.retry(principal_of(req), execution_id, once=once)
        _changed(resp, execution_id, Status.RUNNING)

    async def on_post_fork(self, req: Request, resp: Response, execution_id: str) -> None:
        given, once = await body(req, models.Fork, self._max_bytes)
        principal = principal_of(req)
        forked = await self._runtime.fork(
            principal,
            execution_id,
            sequence=given.sequence,
            state=given.state,
            state_patch=given.state_patch,
            once=once,
        )
        origin = (await self._runtime.execution(principal, forked)).progress.forked_from
        created(resp, {"execution_id": forked, "forked_from": origin}, "executions", forked)


def _changed(resp: Response, execution_id: str, status: Status) -> None:
    """The status that the change led to, so that a repeated request is answered alike; by now there may be another."""
    answer(resp, {"execution_id": execution_id, "status": status})


def encode_view(view: View) -> bytes:
    progress = view.progress
    return encode(
        {
            **_summary(view.head),
            "priority": progress.priority,
            "state": progress.state,
            "steps_executed": progress.steps,
            "input": progress.input,
            "sequence": progress.sequence,
            "error": progress.error and _failure(progress.error),
            "nodes": {run_id: _run(run) for run_id, run in progress.nodes.items() if not map_of(run_id)},
            "parent": progress.parent,
            "forked_from": progress.forked_from,
        }
    )


def _summary(head: Head) -> dict[str, Any]:
    return {
        "execution_id": head.execution_id,
        "workflow_id": head.workflow_id,
        "workflow_version": head.workflow_version,
        "status": head.status,
        "created_at": timestamp(head.created_at),
        "completed_at": optional_timestamp(head.completed_at),
    }


def _run(run: Run) -> dict[str, Any]:
    shown: dict[str, Any] = {"status": run.status, "attempt": run.attempt}
    if run.iteration:
        shown["iteration"] = run.iteration
    if run.error is not None:
        shown["error"] = _failure(run.error)
    if run.available_at is not None:
        shown["available_at"] = timestamp(run.available_at)
    if run.child_execution_id is not None:
        shown["child_execution_id"] = run.child_execution_id
    if run.items is not None:
        shown |= {"items": len(run.items), "items_begun": run.items_begun, "items_done": run.items_done}
    return shown


def _failure(error: Failure) -> dict[str, Any]:
    return {
        "message": error.message,
        "error_class": error.error_class,
        "node_id": error.node_id,
        "details": error.details,
    }
