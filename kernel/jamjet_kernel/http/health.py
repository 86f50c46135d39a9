"""Is the process there, and does it take requests?"""

from __future__ import annotations

from falcon.asgi import Request, Response

from ..runtime import Runtime
from .answers import answer
from .requests import no_query


class Health:
    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    async def on_get(self, req: Request, resp: Response) -> None:
        """No question about the database: while that is away, nobody gains when this process is restarted."""
        no_query(req)
        answer(resp, {"status": "ok", "version": self._runtime.version})

    async def on_get_ready(self, req: Request, resp: Response) -> None:
        no_query(req)
        readiness = self._runtime.readiness
        readiness.suspect()
        if (problem := readiness.problem) is None:
            answer(resp, {"status": "ready", "version": self._runtime.version})
        else:
            answer(resp, {"status": "not_ready", "version": self._runtime.version, "reason": problem}, 503)
