"""Work items: what remote workers claim, and what they bring back."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from falcon.asgi import Request, Response

from ..core.events import Usage
from ..errors import NodeFailed
from ..ports import NodeResult
from ..runtime import Runtime
from ..runtime.presence import Claimant
from ..runtime.remote import Handed, Held
from . import models
from .answers import answer
from .requests import body, gone, principal_of

B = TypeVar("B", bound=models.OfWork)


class WorkItems:
    def __init__(self, runtime: Runtime) -> None:
        self._remote = runtime.remote
        self._max_bytes = runtime.settings.max_body_bytes

    async def on_post_claim(self, req: Request, resp: Response) -> None:
        given, _ = await body(req, models.WorkClaim, self._max_bytes)
        claimant = Claimant(
            worker_id=given.worker_id,
            queues=list(dict.fromkeys(given.queue_types)),
            host=given.host,
            pid=given.pid,
            version=given.version,
            concurrency=given.concurrency,
        )
        claim = self._remote.claim(principal_of(req), claimant, most=given.max, seconds=given.wait)
        answer(resp, _claimed(await self._while_there(req, claim), given.max))

    async def on_post_heartbeat(self, req: Request, resp: Response, item_id: str) -> None:
        given, held = await self._about(req, models.WorkHeartbeat, item_id)
        seconds = await self._remote.heartbeat(principal_of(req), held, given.worker_id)
        answer(resp, {"renewed": True, "work_item_id": item_id, "lease_seconds": seconds})

    async def on_post_complete(self, req: Request, resp: Response, item_id: str) -> None:
        given, held = await self._about(req, models.WorkResult, item_id)
        result = NodeResult(given.output, given.state_patch, _usage(given))
        await self._remote.complete(principal_of(req), held, result, duration_ms=given.duration_ms)
        answer(resp, {"completed": True, "work_item_id": item_id})

    async def on_post_fail(self, req: Request, resp: Response, item_id: str) -> None:
        given, held = await self._about(req, models.WorkFailure, item_id)
        error = given.error
        failure = NodeFailed(
            error.message, retryable=given.retryable, error_class=error.error_class, details=error.details
        )
        again = await self._remote.fail(principal_of(req), held, failure, duration_ms=given.duration_ms)
        answer(resp, {"failed": True, "work_item_id": item_id, "retryable": again})

    async def on_post_release(self, req: Request, resp: Response, item_id: str) -> None:
        given, held = await self._about(req, models.WorkRelease, item_id)
        await self._remote.release(principal_of(req), held, reason=given.reason, seconds=given.retry_after)
        answer(resp, {"released": True, "work_item_id": item_id})

    async def on_post_progress(self, req: Request, resp: Response, item_id: str) -> None:
        given, held = await self._about(req, models.WorkProgress, item_id)
        await self._remote.tell(principal_of(req), held, given.data)
        answer(resp, {"recorded": True, "work_item_id": item_id})

    async def _about(self, req: Request, model: type[B], item_id: str) -> tuple[B, Held]:
        given, _ = await body(req, model, self._max_bytes)
        return given, Held(item_id, given.lease_fence, given.execution_id, given.node_id)

    async def _while_there(self, req: Request, claim: Coroutine[Any, Any, list[Handed]]) -> list[Handed]:
        """Nothing is handed to a worker that has hung up: it would be missing until its lease ends."""
        claiming, leaving = asyncio.create_task(claim), asyncio.create_task(gone(req))
        try:
            await asyncio.wait([claiming, leaving], return_when=asyncio.FIRST_COMPLETED)
            if not leaving.done():
                return await claiming
            if claiming.done():
                self._remote.undelivered(await claiming)
            return []
        finally:
            leaving.cancel()
            claiming.cancel()


def _claimed(handed: list[Handed], most: int) -> dict[str, Any]:
    items = [_item(one) for one in handed]
    if not items:
        return {"claimed": False}
    claimed: dict[str, Any] = {"claimed": True, "work_item": items[0]}
    return claimed if most == 1 else {**claimed, "work_items": items}


def _item(handed: Handed) -> dict[str, Any]:
    item = handed.item
    return {
        "id": handed.item_id,
        "execution_id": item.execution_id,
        "node_id": item.run_id,
        "queue_type": item.queue,
        "payload": handed.payload,
        "attempt": item.attempt,
        "lease_fence": item.fence,
        "lease_seconds": handed.lease_seconds,
    }


def _usage(given: models.WorkResult) -> Usage | None:
    told = Usage(
        input_tokens=given.input_tokens or 0,
        output_tokens=given.output_tokens or 0,
        cost_usd=given.cost_usd or 0.0,
        model=given.gen_ai_model,
        system=given.gen_ai_system,
        finish_reason=given.finish_reason,
    )
    return None if told == Usage() else told
