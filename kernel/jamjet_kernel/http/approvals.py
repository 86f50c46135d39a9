"""Approvals: what waits for a person, and the decision."""

from __future__ import annotations

from typing import Any

from falcon.asgi import Request, Response

from ..ports import OpenApproval
from ..runtime import Runtime
from . import cursors, models
from .answers import answer, optional_timestamp, timestamp
from .requests import body, principal_of, query


class Approvals:
    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    async def on_get(self, req: Request, resp: Response) -> None:
        await self._list(req, resp, None)

    async def on_get_of_execution(self, req: Request, resp: Response, execution_id: str) -> None:
        await self._list(req, resp, execution_id)

    async def on_post_decision(self, req: Request, resp: Response, execution_id: str) -> None:
        given, once = await body(req, models.ApprovalDecision, self._runtime.settings.max_body_bytes)
        await self._runtime.approve(
            principal_of(req),
            execution_id,
            decision=given.decision,
            node_id=given.node_id,
            user_id=given.user_id,
            comment=given.comment,
            state_patch=given.state_patch,
            once=once,
        )
        answer(resp, {"execution_id": execution_id, "accepted": True})

    async def _list(self, req: Request, resp: Response, execution_id: str | None) -> None:
        asked = query(req, models.Page)
        after = cursors.read(asked.cursor, tuple[cursors.Text, cursors.Text])
        found = await self._runtime.approvals(
            principal_of(req), execution_id=execution_id, limit=asked.limit + 1, after=after
        )
        shown, cursor = cursors.page(found, asked.limit, lambda approval: (approval.execution_id, approval.node_id))
        answer(resp, {"approvals": [_view(approval) for approval in shown], "next_cursor": cursor})


def _view(approval: OpenApproval) -> dict[str, Any]:
    return {
        "execution_id": approval.execution_id,
        "node_id": approval.node_id,
        "workflow_id": approval.workflow_id,
        "description": approval.description,
        "tool": approval.tool,
        "requested_at": timestamp(approval.requested_at),
        "expires_at": optional_timestamp(approval.expires_at),
    }
