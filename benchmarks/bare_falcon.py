"""The raw limit of serving: a Falcon app on the same uvicorn that answers given bytes.

`python -m benchmarks.bare_falcon PORT FILE` answers every GET of `/executions/{id}` with what is in the file.
"""

from __future__ import annotations

import sys
from pathlib import Path

import uvicorn
from falcon.asgi import App, Request, Response


class Bare:
    def __init__(self, content: bytes) -> None:
        self._content = content

    async def on_get(self, req: Request, resp: Response, execution_id: str) -> None:
        resp.data = self._content

    async def on_post(self, req: Request, resp: Response, execution_id: str) -> None:
        await req.stream.read()
        resp.status = 201
        resp.data = b'{"execution_id":"exec_1"}'


class Health:
    async def on_get(self, req: Request, resp: Response) -> None:
        resp.data = b'{"status":"ok"}'


def main() -> None:
    port, file = sys.argv[1:]
    app: App[Request, Response] = App()
    app.add_route("/executions/{execution_id}", Bare(Path(file).read_bytes()))
    app.add_route("/health", Health())
    uvicorn.run(app, port=int(port), lifespan="off", log_config=None, access_log=False, server_header=False)


if __name__ == "__main__":
    main()
