"""What real servers of earlier versions left when they were killed, a file each in `databases`.

An execution that is over, one that waits for an approval, one that sleeps, one in the middle of its only node, and one
whose child waits for an approval.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from jamjet_kernel import Principal, Settings, Status
from jamjet_kernel.core.progress import Progress
from jamjet_kernel.runtime import Runtime, open_runtime
from jamjet_kernel.runtime.world import RealWorld

DATABASES = Path(__file__).parent / "databases"
KEY = """-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEIHFiT8E1q1Fb6YIMDaIhDoS2Bo3p1h7Aoac5076JHgV1
-----END PRIVATE KEY-----
"""
"""Of the server that left version 2."""

ME = Principal()
PATIENCE = 20


def restore(version: int, path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript((DATABASES / f"version_{version}.sql").read_text())


def write_functions(folder: Path) -> None:
    """What the workflows call. None of them takes time any more."""
    (folder / "deed.py").write_text("def quick(number): return {'number': number + 1}\nslow = quick\n")


async def check_that_all_go_on(url: str, **settings: Any) -> None:
    """On both sides of an upgrade or a copy. The functions must be on the path."""
    chosen = Settings(**{"database_url": url, "signing_key": KEY, "auth": "off", "shutdown_grace": 0, **settings})

    async with open_runtime(chosen, world=AfterTheSleep()) as runtime:
        for approval in await runtime.storage.approvals.page("default"):
            await runtime.approve(ME, approval.execution_id, decision="approved", node_id=approval.node_id)
        ended = await all_ended(runtime)
        audit = await runtime.audit.verify(ME)

    assert {(each.workflow_id, each.status, each.state["number"]) for each in ended} == {
        ("deed", Status.COMPLETED, 2),
        ("deed", Status.COMPLETED, 12),
        ("nap", Status.COMPLETED, 21),
        ("work", Status.COMPLETED, 31),
        ("parent", Status.COMPLETED, 42),
        ("deed", Status.COMPLETED, 42),
    }
    assert audit.records > 0
    assert audit.faults == []


class AfterTheSleep(RealWorld):
    """When an hour's sleep is over, and the time for the approvals is not."""

    def now(self) -> int:
        return 1_795_635_032_130 + 3_600_000 + int(self.stopwatch())


async def all_ended(runtime: Runtime) -> list[Progress]:
    found = await runtime.storage.executions.page("default")
    return [(await runtime.wait(ME, each.execution_id, PATIENCE)).progress for each in found]
