"""The figures of the runtime itself, without HTTP."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from jamjet_kernel.ports import Principal
from jamjet_kernel.runtime import Runtime
from jamjet_kernel.runtime.audit import Auditor

from . import workloads
from .bare_sqlite import BareSqlite, Recorder
from .figures import Figure, Goal

AT_ONCE = 1000
MAPPED = 1000
AROUND = 10
"""Steps on either side of the one that is measured; their median is its cost."""


class InProcess:
    """A runtime and a bare database side by side; the second is given the rows that the first has just written."""

    def __init__(self, runtime: Runtime, folder: Path, *, latencies: int) -> None:
        self._runtime = runtime
        self._latencies = latencies
        self._principal = Principal()
        self._recorder = Recorder(runtime.storage)
        synchronous = runtime.settings.sqlite_synchronous
        self._bare = BareSqlite(folder / "bare.db", Path(runtime.settings.database_url), synchronous)

    async def prepare(self) -> None:
        for workflow in (workloads.three_steps(), workloads.loop(), workloads.chain(), workloads.mapping()):
            await self._runtime.register(self._principal, workflow)
        for _ in range(20):
            await self._run("three-steps", {"x": 1})

    def close(self) -> None:
        self._bare.close()

    def figures(self) -> list[Figure]:
        alone, rows = "the same rows, bare SQLite", "the same rows and batches, bare SQLite"
        return [
            Figure("3 steps, start to result", "ms", self._latency, alone, self._commit_latency, Goal("<=", 3.0)),
            Figure(f"{AT_ONCE} × 3 steps at once", "steps/s", self._throughput, rows, self._row_rate, Goal(">=", 5000)),
            Figure(
                f"{AT_ONCE} × 3 steps, audited",
                "steps/s",
                self._throughput,
                "the same, not audited",
                self._unaudited,
                Goal(">=", 0.75, "ratio"),
            ),
            Figure(f"map over {MAPPED} items", "s", self._map, rows, self._rewrite, Goal("<=", 0.5)),
            self._growth("loop"),
            self._growth("chain"),
        ]

    async def commit_latency(self) -> float:
        """Milliseconds that bare SQLite takes for the four commits of three steps."""
        self._recorder.clear()
        for _ in range(self._latencies // 4):
            await self._run("three-steps", {"x": 1})
        return await self._commit_latency()

    # Three steps

    async def _latency(self) -> float:
        self._recorder.clear()
        return await median_ms(lambda: self._run("three-steps", {"x": 1}), self._latencies)

    async def _commit_latency(self) -> float:
        """One batch at a time from the loop's thread, four to an execution."""
        batches = self._recorder.taken()
        per_execution = len(batches) / sum(batch[0].expected == 0 for batch in batches)
        return median(await self._bare.write(batches)) * per_execution * 1000

    async def _throughput(self) -> float:
        self._recorder.clear()
        began = time.perf_counter()
        await asyncio.gather(*(self._run("three-steps", {"x": 1}) for _ in range(AT_ONCE)))
        return 3 * AT_ONCE / (time.perf_counter() - began)

    async def _unaudited(self) -> float:
        records = Auditor.records
        Auditor.records = lambda *_: []
        try:
            return await self._throughput()
        finally:
            Auditor.records = records

    async def _row_rate(self) -> float:
        return 3 * AT_ONCE / await self._rewrite()

    async def _rewrite(self) -> float:
        return sum(await self._bare.write(self._recorder.taken()))

    # Map

    async def _map(self) -> float:
        self._recorder.clear()
        began = time.perf_counter()
        state = await self._run("mapping", {"numbers": list(range(MAPPED))})
        taken = time.perf_counter() - began
        assert state["doubled"] == [2 * number for number in range(MAPPED)]
        return taken

    # The thousandth step

    def _growth(self, workflow_id: str) -> Figure:
        """The raw figure is the tenth step, so the ratio is the growth."""
        costs: dict[int, float] = {}

        async def thousandth() -> float:
            workloads.turns.clear()
            await self._run(workflow_id, {"n": 0})
            assert len(workloads.turns) == workloads.LAST_STEP
            costs.update({number: _cost_around(number) for number in (10, 1000)})
            return costs[1000]

        async def tenth() -> float:
            return costs[10]

        name = f"1000th step of a {workflow_id}"
        return Figure(name, "ms", thousandth, "its 10th step", tenth, Goal("<=", 1.2, "ratio"))

    async def _run(self, workflow_id: str, given: dict[str, Any]) -> dict[str, Any]:
        execution_id = await self._runtime.start(self._principal, workflow_id, None, given)
        view = await self._runtime.wait(self._principal, execution_id, 60)
        assert view.head.status == "completed", (view.head, view.progress.error)
        return view.progress.state


async def median_ms(act: Callable[[], Awaitable[object]], times: int) -> float:
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        await act()
        taken.append(time.perf_counter() - began)
    return median(taken) * 1000


def _cost_around(number: int) -> float:
    turns = workloads.turns[max(0, number - AROUND) : number + AROUND + 1]
    return median(after - before for before, after in pairwise(turns)) * 1000
