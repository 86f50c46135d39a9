"""Is the runtime there?"""

from __future__ import annotations

from falcon.asgi import Request, Response

from ..runtime import Runtime
from .answers import answer
from .requests import no_query


class Health:
    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    async def on_get(self, req: Request, resp: Response) -> None:
        no_query(req)
        ready = self._runtime.ready
        status = "ok" if ready else "unavailable"
        answer(resp, {"status": status, "version": self._runtime.version}, 200 if ready else 503)
