"""A server process that may be killed at any moment, and a client that does not give up."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx

SUPPORT = Path(__file__).parent
PATIENCE = 60.0
"""Seconds after which a client gives up. A restart takes about one."""


class KilledServer:
    """`jamjet-server` on one database and one port, life after life. `settings` are JAMJET_…, in small letters."""

    def __init__(self, folder: Path, database_url: str | None = None, **settings: object) -> None:
        self.database = folder / "runtime.db"
        self.port = _free_port()
        self.lives = 0
        self._database_url = database_url or str(self.database)
        self._settings = {f"JAMJET_{name.upper()}": str(value) for name, value in settings.items()}
        self._log = folder / f"server-{self.port}.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        command = [Path(sys.executable).parent / "jamjet-server", "--port", str(self.port)]
        environment = {**os.environ, "DATABASE_URL": self._database_url, "JAMJET_AUTH": "off"}
        environment |= {"JAMJET_HOME": str(self._log.parent), "PYTHONPATH": str(SUPPORT), **self._settings}
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        self.lives += 1

    def kill(self) -> None:
        """As the kernel does it when memory runs out: nothing is flushed, closed or said."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        return self._end(signal.SIGTERM)

    def signal(self, number: int) -> None:
        """Told, and not waited for."""
        assert self._process is not None
        self._process.send_signal(number)

    def wait(self) -> int:
        """The exit code, once it has ended."""
        assert self._process is not None
        code = self._process.wait(timeout=30)
        self._process = None
        return code

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def log(self) -> str:
        return self._log.read_text()

    def _end(self, number: int) -> int:
        if self._process is None:
            return 0
        self.signal(number)
        return self.wait()


class Client:
    """Asks again until there is an answer, as a client with an idempotency key may."""

    def __init__(self, url: str) -> None:
        self._http = httpx.AsyncClient(base_url=url, timeout=10, trust_env=False)

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    async def ask(self, method: str, path: str, body: Any = None, *, key: str | None = None) -> Any:
        headers = {"Idempotency-Key": key} if key else {}
        async with asyncio.timeout(PATIENCE):
            while True:
                try:
                    answer = await self._http.request(method, path, json=body, headers=headers)
                except httpx.TransportError:
                    await asyncio.sleep(0.02)
                    continue
                if answer.status_code != 503:
                    assert answer.status_code < 400, f"{method} {path}: {answer.status_code} {answer.text}"
                    return answer.json()

    async def once(self, method: str, path: str, body: Any = None) -> Any:
        """Asks once; None when there was no answer, whatever became of the request."""
        try:
            answer = await self._http.request(method, path, json=body)
        except httpx.TransportError:
            return None
        return answer.json() if answer.status_code < 300 else None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
