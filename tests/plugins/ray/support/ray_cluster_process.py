"""A Ray cluster of several machines' worth of processes, made by what Ray's own tests are made with.

In a process of its own: Ray ends the process that started a cluster when the cluster's head is gone for long. It obeys
lines on stdin (`add NAME RESOURCES`, `remove NAME`, `kill-head`, `start-head`) and answers each with one on stdout.
"""

from __future__ import annotations

import json
import signal
import sys
from typing import Any

from ray.cluster_utils import Cluster

HEARTBEATS = {"health_check_period_ms": 500, "health_check_failure_threshold": 4}
"""Ray takes a machine for dead after 15 seconds by default."""


class Machines:
    def __init__(self, port: int, client_port: int) -> None:
        self._head: dict[str, Any] = {
            "num_cpus": 2,
            "include_dashboard": False,
            "include_log_monitor": False,
            "no_monitor": True,
            "gcs_server_port": port,
            "ray_client_server_port": client_port,
            "_system_config": HEARTBEATS,
        }
        self._start()

    def obey(self, command: str, *words: str) -> None:
        match command, words:
            case "add", (name, resources):
                self._added[name] = self._cluster.add_node(num_cpus=1, resources=json.loads(resources))
            case "remove", (name,):
                self._cluster.remove_node(self._added.pop(name), allow_graceful=False)
            case "kill-head", ():
                self.stop()
            case "start-head", ():
                self._start()
            case _:
                raise ValueError(command)

    def stop(self) -> None:
        for node in self._cluster.list_all_nodes()[::-1]:
            self._cluster.remove_node(node, allow_graceful=False)
        self._added.clear()

    def _start(self) -> None:
        self._cluster = Cluster(initialize_head=True, head_node_args=dict(self._head))
        self._added: dict[str, Any] = {}


def main() -> None:
    # As a cluster that a shell script started in the background, so that its functions can be cancelled all the same.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    machines = Machines(int(sys.argv[1]), int(sys.argv[2]))
    print("ready", flush=True)
    try:
        for line in sys.stdin:
            machines.obey(*line.split(maxsplit=2))
            print("done", flush=True)
    finally:
        machines.stop()


if __name__ == "__main__":
    main()
