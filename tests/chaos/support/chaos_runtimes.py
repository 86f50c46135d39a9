"""Runtime processes on one database, which die, stop and live as a test says."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

SUPPORT = Path(__file__).parent
LEASE = 1.5
"""Seconds: with the default of 15 hardly anything would be taken over within a test."""


class RuntimeProcess:
    """`jamjet-server` on a port of its own, life after life."""

    def __init__(self, name: str, folder: Path, environment: Mapping[str, str]) -> None:
        self.name = name
        self.port = _free_port()
        self.lives = 0
        self.is_stopped = False
        self._log = folder / f"{name}.log"
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        command = [Path(sys.executable).parent / "jamjet-server", "--port", str(self.port)]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(command, env=self._environment, stdout=log, stderr=log)
        self.lives += 1
        self.is_stopped = False

    def kill(self) -> None:
        """As the kernel does it when memory runs out: nothing is flushed, closed or said."""
        self._end(signal.SIGKILL)

    def end(self) -> int:
        return self._end(signal.SIGTERM)

    def stop(self) -> None:
        """It does nothing any more, and does not know it."""
        assert self._process is not None
        self.is_stopped = True
        self._process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self._process.pid, os.WSTOPPED)

    def go_on(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)
        self.is_stopped = False

    def log(self) -> str:
        return self._log.read_text() if self._log.exists() else ""

    def _end(self, number: int) -> int:
        if self._process is None:
            return 0
        process, self._process = self._process, None
        process.send_signal(number)
        if number != signal.SIGKILL:
            process.send_signal(signal.SIGCONT)
        return process.wait(timeout=30)


class Runtimes:
    """All of one database. They find the functions of `chaos_steps`, and tell in `effects` what they call."""

    def __init__(self, folder: Path, urls: Mapping[str, str], **settings: str) -> None:
        self.folder = folder
        self.effects = folder / "effects"
        self.key = folder / "signing.key"
        common = {
            **os.environ,
            "PYTHONPATH": str(SUPPORT),
            "CHAOS_EFFECTS": str(self.effects),
            "JAMJET_HOME": str(folder),
            "JAMJET_AUTH": "off",
            "JAMJET_LEASE_SECONDS": str(LEASE),
            "JAMJET_POLL_SECONDS": "0.5",
            **{f"JAMJET_{name.upper()}": value for name, value in settings.items()},
        }
        self.all = [RuntimeProcess(name, folder, {**common, "DATABASE_URL": url}) for name, url in urls.items()]

    def start(self) -> None:
        for process in self.all:
            process.start()

    def end(self) -> None:
        """Each is told to stop, and does."""
        for process in self.all:
            assert process.end() == 0, f"{process.name} did not end well:\n{process.log()[-4000:]}"

    def kill(self) -> None:
        for process in self.all:
            process.kill()

    def said(self, pattern: str) -> list[str]:
        """The lines of their logs in which it is found."""
        return [line for process in self.all for line in process.log().splitlines() if re.search(pattern, line)]


def named(url: str, names: list[str]) -> dict[str, str]:
    """A URL for each, under which the database knows who is who."""
    return {name: f"{url}{'&' if '?' in url else '?'}application_name={name}" for name in names}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
