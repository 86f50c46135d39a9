"""A `jamjet worker` in a process of its own, that may be killed, stopped and continued."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

SUPPORT = Path(__file__).parent


class WorkerProcess:
    """Ready when it has begun."""

    def __init__(self, folder: Path, url: str, name: str, *, queues: str = "remote", **options: object) -> None:
        self.name = name
        self._log = folder / f"{name}.log"
        said = [text for option, value in options.items() for text in (f"--{option}", str(value))]
        command: list[str | Path] = [
            Path(sys.executable).parent / "jamjet", "worker", "--runtime", url, "--queues", queues, "--name", name,
            "--module", "scenario_steps", "--json", *said,
        ]  # fmt: skip
        environment = {**os.environ, "PYTHONPATH": str(SUPPORT), "JAMJET_LOG": "debug"}
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=log, text=True
            )
        assert self._process.stdout is not None
        if not self._process.stdout.readline():
            self.wait()
            raise AssertionError(f"the worker did not start: {self.log()}")

    @property
    def pid(self) -> int:
        return self._process.pid

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def kill(self) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGKILL)
        self.wait()

    def wait(self) -> int:
        code = self._process.wait(timeout=30)
        assert self._process.stdout is not None
        self._process.stdout.close()
        return code

    def log(self) -> str:
        return self._log.read_text()

    async def says(self, *texts: str) -> None:
        """Returns once its log holds one of these: what it does is told a moment later."""
        async with asyncio.timeout(20):
            while not any(text in self.log() for text in texts):
                await asyncio.sleep(0.02)
