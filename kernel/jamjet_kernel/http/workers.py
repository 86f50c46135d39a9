"""The live workers."""

from __future__ import annotations

from typing import Any

from falcon.asgi import Request, Response

from ..runtime import Runtime
from .answers import answer, timestamp
from .requests import no_query, principal_of


class Workers:
    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    async def on_get(self, req: Request, resp: Response) -> None:
        no_query(req)
        found = await self._runtime.workers(principal_of(req))
        answer(resp, {"workers": [_shown(worker) for worker in found]})


def _shown(worker: dict[str, Any]) -> dict[str, Any]:
    times = {name: timestamp(worker[name]) for name in ("started_at", "last_seen")}
    return {**worker, **times}
