"""The live workers."""

from __future__ import annotations

from typing import Any

from falcon.asgi import Request, Response

from ..ports import Worker
from ..runtime import Runtime
from .answers import answer, optional_timestamp, timestamp
from .requests import no_query, principal_of


class Workers:
    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    async def on_get(self, req: Request, resp: Response) -> None:
        no_query(req)
        found = await self._runtime.workers(principal_of(req))
        answer(resp, {"workers": [_shown(worker) for worker in found]})


def _shown(worker: Worker) -> dict[str, Any]:
    return {
        **worker.details,
        "worker_id": worker.worker_id,
        "kind": worker.kind,
        "host": worker.host,
        "pid": worker.pid,
        "version": worker.version,
        "started_at": timestamp(worker.started_at),
        "last_seen": optional_timestamp(worker.last_seen),
    }
