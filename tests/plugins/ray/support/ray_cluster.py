"""A real Ray cluster for tests, on this machine's loopback address, that machines join and leave."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

SUPPORT = Path(__file__).parent
FUNCTIONS = [SUPPORT, Path(__file__).parents[3] / "nodes" / "functions"]

ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # Everything on the loopback address.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_AUTH_MODE": "disabled",
    "RAY_DEDUP_LOGS": "0",
    "RAY_SCHEDULER_EVENTS": "0",
    # How long Ray waits for a cluster that is gone: 60 and 30 seconds by default.
    "RAY_gcs_rpc_server_reconnect_timeout_s": "4",
    "RAY_CLIENT_RECONNECT_GRACE_PERIOD": "2",
    # Its server for clients forks while threads use gRPC, and now and then what it forks dies of it.
    "GRPC_ENABLE_FORK_SUPPORT": "0",
}
"""Of the cluster, and of the processes that connect to it."""


class RayCluster:
    """A head with two CPUs, and machines of one CPU each that are added by name."""

    def __init__(self) -> None:
        port, client_port = free_ports(2)
        self.url = f"ray://127.0.0.1:{client_port}"
        self.url_on_its_machines = f"ray:127.0.0.1:{port}"
        self._folder = tempfile.TemporaryDirectory(prefix="jamjet-ray-")
        path = os.pathsep.join(map(str, [*FUNCTIONS, *filter(None, sys.path)]))
        command = [sys.executable, str(SUPPORT / "ray_cluster_process.py"), str(port), str(client_port)]
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env={**os.environ, **ENVIRONMENT, "PYTHONPATH": path},
                start_new_session=True,
            )
        self._hear("ready")

    def add(self, name: str, **resources: float) -> None:
        self._say(f"add {name} {json.dumps(resources)}")

    def remove(self, name: str) -> None:
        """As when the machine's power is cut."""
        self._say(f"remove {name}")

    def kill(self) -> None:
        """The head, and with it the cluster."""
        self._say("kill-head")

    def start_again(self) -> None:
        """Another cluster at the same address."""
        self._say("start-head")

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._process.stdout.close()
        self._folder.cleanup()

    @property
    def _log(self) -> Path:
        return Path(self._folder.name) / "log"

    def _say(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        self._hear("done")

    def _hear(self, wanted: str) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.strip() == wanted:
                return
        log = self._log.read_text()
        self.close()
        pytest.fail(f"the Ray cluster of the tests does not work:\n{log[-5000:]}")


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()
