"""Workflows: registered definitions and their versions."""

from __future__ import annotations

from itertools import groupby
from operator import itemgetter
from typing import Any

from falcon.asgi import Request, Response

from ..errors import Invalid, Problem
from ..runtime import Runtime
from ..runtime.workflows import in_order
from . import cursors, models
from .answers import answer, created, timestamp
from .requests import body, no_query, principal_of, query


class Workflows:
    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    async def on_post(self, req: Request, resp: Response) -> None:
        given, once = await body(req, models.WorkflowRegistration, self._runtime.settings.max_body_bytes)
        try:
            registered = await self._runtime.register(principal_of(req), given.ir, once=once)
        except Invalid as invalid:
            raise Invalid([_placed(problem) for problem in invalid.problems]) from invalid
        view: dict[str, Any] = {"workflow_id": registered.workflow_id, "version": registered.version}
        if registered.warnings:
            view["warnings"] = registered.warnings
        created(resp, view, "workflows", registered.workflow_id, registered.version)

    async def on_get(self, req: Request, resp: Response) -> None:
        asked = query(req, models.Page)
        after = cursors.read(asked.cursor, tuple[cursors.Text])
        versions = await self._runtime.workflows(
            principal_of(req), limit=asked.limit + 1, after=after[0] if after else None
        )
        latest = [_latest(list(group)) for _, group in groupby(versions, key=itemgetter(0))]
        shown, cursor = cursors.page(latest, asked.limit, lambda workflow: (workflow["workflow_id"],))
        answer(resp, {"workflows": shown, "next_cursor": cursor})

    async def on_get_versions(self, req: Request, resp: Response, workflow_id: str) -> None:
        asked = query(req, models.Page)
        versions = await self._runtime.workflow_versions(principal_of(req), workflow_id)
        rest = versions[_begin(versions, asked.cursor) :]
        shown, cursor = cursors.page(rest, asked.limit, lambda version: (version[0],))
        views = [{"version": version, "created_at": timestamp(at)} for version, at in shown]
        answer(resp, {"workflow_id": workflow_id, "versions": views, "next_cursor": cursor})

    async def on_get_ir(self, req: Request, resp: Response, workflow_id: str, version: str) -> None:
        no_query(req)
        resp.data = await self._runtime.workflow_ir(principal_of(req), workflow_id, version)


def _placed(problem: Problem) -> Problem:
    """With its place in the request, where the definition is the field `ir`."""
    if problem.place == "ir" or problem.place.startswith("ir."):
        return problem
    return Problem(f"ir.{problem.place}" if problem.place else "ir", problem.message)


def _latest(versions: list[tuple[str, str, int]]) -> dict[str, Any]:
    latest, at = in_order((version, created_at) for _, version, created_at in versions)[0]
    return {"workflow_id": versions[0][0], "version": latest, "created_at": timestamp(at)}


def _begin(versions: list[tuple[str, int]], cursor: str | None) -> int:
    position = cursors.read(cursor, tuple[cursors.Text])
    if position is None:
        return 0
    try:
        return [version for version, _ in versions].index(position[0]) + 1
    except ValueError:
        raise cursors.bad_cursor() from None
