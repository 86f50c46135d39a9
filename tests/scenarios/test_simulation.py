"""The whole runtime on a virtual clock, with a seed: slow commits, a storage that fails, power cuts at any moment.

`JAMJET_SEEDS=1000` runs that many seeds instead of the few of every day; `JAMJET_SEED=17` runs one.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any

import pytest
from scenario_checks import Execution, sound
from scenario_clock import VirtualLoop, VirtualWorld
from scenario_load import EXPECTED, catalogue
from scenario_site import ME, Site, probe

from jamjet_kernel import NodeCall, NodeFailed, RateLimited, StorageError, hookimpl
from jamjet_kernel.core import events as ev
from jamjet_kernel.core.progress import Status
from jamjet_kernel.errors import Conflict, JamJetError, SequenceConflict
from jamjet_kernel.ports import Commit, Storage
from jamjet_kernel.runtime import Once, Runtime
from jamjet_storage_sql import SqlStorage
from jamjet_storage_sqlite.engine import open_engine

EXECUTIONS = 40
CUTS = 4
SEEDS = (
    [int(os.environ["JAMJET_SEED"])] if "JAMJET_SEED" in os.environ else range(int(os.environ.get("JAMJET_SEEDS", "6")))
)


@pytest.mark.parametrize("seed", SEEDS)
def test_whatever_fails_and_whenever_the_power_is_cut_every_execution_ends_as_it_should(
    seed: int, tmp_path: Path
) -> None:
    simulation = _simulated(seed, tmp_path)

    executions = sound(simulation.site.database)
    assert {execution.execution_id for execution in executions} >= set(simulation.started.values())
    assert not [execution for execution in executions if not execution.progress.is_terminal]
    for execution in executions:
        simulation.check(execution)
    for table in ("work_items", "timers", "approvals", "deliveries"):
        assert not simulation.site.rows(table), table


@pytest.mark.parametrize("seed", SEEDS[:1])
def test_the_same_seed_is_the_same_run(seed: int, tmp_path: Path) -> None:
    first, second = _log(seed, tmp_path / "first"), _log(seed, tmp_path / "second")

    assert first == second


def _simulated(seed: int, folder: Path) -> Simulation:
    loop = VirtualLoop()
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        simulation = Simulation(loop, seed, folder)
        runner.run(simulation.run())
    return simulation


def _log(seed: int, folder: Path) -> list[Any]:
    folder.mkdir()
    return _simulated(seed, folder).site.rows("events")


class Inline(Executor):
    """Runs at once, on the thread that asks."""

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        done: Future[Any] = Future()
        try:
            done.set_result(function(*args, **kwargs))
        except Exception as error:
            done.set_exception(error)
        return done


class Trouble:
    """A storage that takes its time, and sometimes refuses a part of what it is given, or all."""

    def __init__(self, storage: Storage, dice: random.Random) -> None:
        self._storage = storage
        self._dice = dice

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)

    async def commit(self, commits: Sequence[Commit]) -> list[JamJetError | None]:
        await asyncio.sleep(self._dice.expovariate(200))
        if self._dice.random() < 0.03:
            raise StorageError("the disk is full, says the simulation")
        refused = self._refused(commits)
        accepted = [commit for index, commit in enumerate(commits) if index not in refused]
        answers = iter(await self._storage.commit(accepted))
        await asyncio.sleep(self._dice.expovariate(200))
        return [refused[index] if index in refused else next(answers) for index in range(len(commits))]

    def _refused(self, commits: Sequence[Commit]) -> dict[int, JamJetError]:
        lost: set[str] = set()
        refused: dict[int, JamJetError] = {}
        for index, commit in enumerate(commits):
            execution = commit.head.execution_id
            if execution in lost:
                refused[index] = SequenceConflict("the commit before it was refused")
            elif self._dice.random() < 0.02:
                lost.add(execution)
                refused[index] = StorageError("refused, says the simulation")
        return refused


class Driver:
    """A plugin: SQLite on the event loop's own thread, with trouble."""

    def __init__(self, site: Site, dice: random.Random) -> None:
        self._site = site
        self._dice = dice

    @hookimpl
    def open_storage(self) -> Storage:
        engine = open_engine(self._site.database, synchronous="NORMAL", connections=2)
        return Trouble(SqlStorage(engine, writer=Inline(), readers=Inline(), exclusive=True), self._dice)


class Simulation:
    def __init__(self, loop: VirtualLoop, seed: int, folder: Path) -> None:
        self.dice = random.Random(seed)
        self.site = Site(folder)
        self.world = VirtualWorld(loop, self.dice)
        self.started: dict[str, str] = {}
        self.cancelled: set[str] = set()
        self.site.probe.does |= {"count": self._count, "square": self._square, "third_time_lucky": self._lucky}
        self._powered: asyncio.Future[Runtime] | None = None
        self._cut: asyncio.Future[None] | None = None

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        self._powered, self._cut = loop.create_future(), loop.create_future()
        async with asyncio.TaskGroup() as tasks:
            power = tasks.create_task(self._supply_power())
            clients = [tasks.create_task(self._client(number)) for number in range(EXECUTIONS)]
            await asyncio.wait(clients)
            await self._all_ended()
            power.cancel()

    async def _supply_power(self) -> None:
        loop = asyncio.get_running_loop()
        settings = {"live_executions": self.dice.choice([1, 10, 1000]), "concurrency": self.dice.choice([3, 1000])}
        for cut in range(CUTS + 1):
            on = asyncio.create_task(self._serve(settings))
            try:
                await asyncio.sleep(self.dice.uniform(0, 1.5) if cut < CUTS else 10**6)
            finally:
                self.site.cut_power()
                assert self._cut is not None
                cut_now, self._powered, self._cut = self._cut, loop.create_future(), loop.create_future()
                cut_now.set_result(None)
                on.cancel()
                await asyncio.wait([on])

    async def _serve(self, settings: dict[str, Any]) -> None:
        async with self.site.open(Driver(self.site, self.dice), world=self.world, **settings) as runtime:
            assert self._powered is not None
            self._powered.set_result(runtime)
            await asyncio.Event().wait()

    async def ask(self, request: Callable[[Runtime], Awaitable[Any]]) -> Any:
        """Again and again until there is an answer: what a client with an idempotency key does."""
        while True:
            assert self._powered is not None
            assert self._cut is not None
            runtime, cut = await asyncio.shield(self._powered), self._cut
            answer = asyncio.ensure_future(request(runtime))
            await asyncio.wait([answer, cut], return_when=asyncio.FIRST_COMPLETED)
            if not answer.done() or cut.done():
                answer.cancel()
                await asyncio.wait([answer])
                continue
            try:
                return answer.result()
            except StorageError:
                await asyncio.sleep(self.dice.uniform(0, 1))

    async def _client(self, number: int) -> None:
        await asyncio.sleep(self.dice.uniform(0, 3))
        if not self.started:
            for ir in catalogue(probe):
                await self.ask(lambda runtime, ir=ir: runtime.register(ME, ir))
        workflow_id = self.dice.choice([ir["workflow_id"] for ir in catalogue(probe)])
        once = Once(f"start-{number}", workflow_id)
        execution = await self.ask(
            lambda runtime: runtime.start(ME, workflow_id, None, {"n": 0, "client": number}, once=once)
        )
        self.started[once.key] = execution
        await self._meddle(number, execution)
        if workflow_id == "paid":
            await self._tell(number, execution)
        if workflow_id == "approved":
            await self._approve(number, execution)

    async def _meddle(self, number: int, execution: str) -> None:
        await asyncio.sleep(self.dice.uniform(0, 1))
        choice = self.dice.random()
        try:
            if choice < 0.15:
                await self.ask(lambda runtime: runtime.cancel(ME, execution, once=Once(f"cancel-{number}", "")))
                self.cancelled.add(execution)
            elif choice < 0.4:
                await self.ask(lambda runtime: runtime.pause(ME, execution, once=Once(f"pause-{number}", "")))
                await asyncio.sleep(self.dice.uniform(0, 2))
                await self.ask(lambda runtime: runtime.resume(ME, execution, once=Once(f"resume-{number}", "")))
        except Conflict:
            view = await self.ask(lambda runtime: runtime.execution(ME, execution))
            assert view.progress.is_terminal, f"refused, but {view.head.status}"

    async def _tell(self, number: int, execution: str) -> None:
        payload, once = {"amount": 500}, Once(f"event-{number}", "")
        try:
            await self.ask(
                lambda runtime: runtime.external_event(
                    ME, execution, correlation_key="paid", payload=payload, once=once
                )
            )
        except Conflict:
            assert execution in self.cancelled

    async def _approve(self, number: int, execution: str) -> None:
        once = Once(f"approval-{number}", "")
        while execution not in self.cancelled:
            asked = await self.ask(lambda runtime: runtime.approvals(ME, execution_id=execution))
            if asked:
                await self.ask(lambda runtime: runtime.approve(ME, execution, decision="approved", once=once))
                return
            await asyncio.sleep(0.1)

    async def _all_ended(self) -> None:
        for execution in self.started.values():
            view = await self.ask(lambda runtime, execution=execution: runtime.wait(ME, execution, 3600))
            assert view.progress.is_terminal, f"{execution} is {view.head.status} after an hour"
        await asyncio.sleep(3600)  # children of cancelled parents

    # What nodes do

    async def _count(self, call: NodeCall) -> dict[str, int]:
        await self._work()
        return {"n": call.input["n"] + 1}

    async def _square(self, call: NodeCall) -> int:
        await self._work()
        return call.input**2

    async def _lucky(self, call: NodeCall) -> dict[str, int]:
        await self._work()
        if call.attempt < 3:
            raise NodeFailed("not yet")
        return {"attempt": call.attempt}

    async def _work(self) -> None:
        await asyncio.sleep(self.dice.expovariate(20))
        if self.dice.random() < 0.05:
            raise RateLimited(self.dice.uniform(0, 2))

    # What must come of it

    def check(self, execution: Execution) -> None:
        progress = execution.progress
        top = progress
        if progress.parent is not None:
            return
        if execution.execution_id in self.cancelled:
            assert progress.status is Status.CANCELLED
            return
        assert progress.status is Status.COMPLETED, (execution.execution_id, progress.status, progress.error)
        expected = EXPECTED[execution.workflow_id] | {"client": top.input["client"]}
        assert progress.state == expected
        assert execution.count(ev.ExternalEventReceived) == (execution.workflow_id == "paid")
        assert execution.count(ev.ApprovalReceived) == (execution.workflow_id == "approved")
        assert self.started[f"start-{top.input['client']}"] == execution.execution_id, "started twice"
