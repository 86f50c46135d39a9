"""Clients that start executions of every shape on whichever process answers, and do for each what it waits for."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx
from chaos_runtimes import RuntimeProcess
from scenario_load import catalogue

CLIENTS = 6
ANSWER_WITHIN = 3.0
"""Seconds that a client gives a process before it asks another: some are stopped."""

PATIENCE = 60.0
"""Seconds after which what has no answer, or has not ended, is stuck. With all well it is a few."""


def python(function: str, **more: Any) -> dict[str, Any]:
    return {"type": "python_fn", "function": f"chaos_steps:{function}", **more}


class Caller:
    """Asks one process after the other until there is an answer, as a client with an idempotency key may."""

    def __init__(self, processes: Sequence[RuntimeProcess], dice: random.Random) -> None:
        self._dice = dice
        self._processes = {
            process.url: httpx.AsyncClient(base_url=process.url, timeout=ANSWER_WITHIN, trust_env=False)
            for process in processes
        }
        self.refused: Counter[int] = Counter()

    async def __aenter__(self) -> Caller:
        return self

    async def __aexit__(self, *_: object) -> None:
        for http in self._processes.values():
            await http.aclose()

    async def ask(self, method: str, path: str, body: Any = None, *, key: str | None = None) -> Any:
        headers = {"Idempotency-Key": key} if key else {}
        last = "no answer"
        try:
            async with asyncio.timeout(PATIENCE):
                while True:
                    try:
                        answer = await self._any().request(method, path, json=body, headers=headers)
                    except httpx.TransportError as error:
                        last = repr(error)
                        await asyncio.sleep(0.05)
                        continue
                    if answer.status_code not in (429, 503):
                        assert answer.status_code < 400, f"{method} {path}: {answer.status_code} {answer.text}"
                        return answer.json()
                    last = answer.text
                    self.refused[answer.status_code] += 1
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise AssertionError(f"{method} {path} has no answer after {PATIENCE} s; the last one: {last}") from None

    async def is_up(self, process: RuntimeProcess) -> None:
        """Returns when it answers."""
        async with asyncio.timeout(PATIENCE):
            while True:
                try:
                    if (await self._processes[process.url].get("/health")).status_code == 200:
                        return
                except httpx.TransportError:
                    await asyncio.sleep(0.05)

    async def once(self, method: str, path: str, body: Any = None) -> Any:
        """Asks once; None when there was no answer, whatever became of the request."""
        try:
            answer = await self._any().request(method, path, json=body)
        except httpx.TransportError:
            return None
        assert answer.status_code < 300 or answer.status_code in (429, 503), f"{method} {path}: {answer.text}"
        return answer.json() if answer.status_code < 300 else None

    def _any(self) -> httpx.AsyncClient:
        return self._dice.choice(list(self._processes.values()))


class Load:
    """Each start has a name of its own in its input, `request`, so that one that was made twice is seen."""

    def __init__(self, caller: Caller, dice: random.Random, *, pause: float = 0.15) -> None:
        self.acknowledged: dict[str, str] = {}
        """The request that each execution was started by."""
        self.workflow_of: dict[str, str] = {}
        self.stuck: list[dict[str, Any]] = []
        self._caller = caller
        self._dice = dice
        self._pause = pause
        self._workflows = [ir["workflow_id"] for ir in catalogue(python)]
        self._stopping = False

    def started_by_a_probe(self, body: dict[str, Any], execution_id: str) -> None:
        request = body["input"]["request"]
        self.workflow_of[request] = body["workflow_id"]
        self.acknowledged[execution_id] = request

    async def register(self) -> None:
        for ir in catalogue(python):
            await self._caller.ask("POST", "/workflows", {"ir": ir})

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Ends with everything at its end, or in `stuck`."""
        async with asyncio.TaskGroup() as tasks:
            clients = [tasks.create_task(self._start_some(number)) for number in range(CLIENTS)]
            helper = tasks.create_task(self._answer())
            yield
            self._stopping = True
            await asyncio.wait(clients)
            await self._all_ended()
            helper.cancel()

    async def _start_some(self, number: int) -> None:
        count = 0
        while not self._stopping:
            count += 1
            request = f"{number}-{count}"
            workflow_id = self._dice.choice(self._workflows)
            body = {"workflow_id": workflow_id, "input": {"n": 0, "request": request}}
            self.workflow_of[request] = workflow_id
            if self._dice.random() < 0.5:
                answer = await self._caller.ask("POST", "/executions", body, key=f"start-{request}")
            else:
                answer = await self._caller.once("POST", "/executions", body)
            if answer is not None:
                self.acknowledged[answer["execution_id"]] = request
            await asyncio.sleep(self._dice.uniform(0, 2 * self._pause))

    async def _answer(self) -> None:
        """Approves whatever asks, and tells of each payment once."""
        paid: set[str] = set()
        while True:
            for approval in (await self._caller.ask("GET", "/approvals?limit=100"))["approvals"]:
                path = f"/executions/{approval['execution_id']}"
                await self._caller.ask("POST", f"{path}/approve", {"decision": "approved"}, key=f"approve{path}")
            for execution in await self._open("paid"):
                path = f"/executions/{execution['execution_id']}"
                if path not in paid:
                    event = {"correlation_key": "paid", "payload": {"amount": 500}}
                    await self._caller.ask("POST", f"{path}/external-event", event, key=f"pay{path}")
                    paid.add(path)
            await asyncio.sleep(0.1)

    async def _all_ended(self) -> None:
        until = time.monotonic() + PATIENCE
        while open_ := await self._open():
            if time.monotonic() > until:
                self.stuck = open_
                return
            await asyncio.sleep(0.1)

    async def _open(self, workflow_id: str | None = None) -> list[dict[str, Any]]:
        query = f"&workflow_id={workflow_id}" if workflow_id else ""
        found: list[dict[str, Any]] = []
        for status in ("running", "paused"):
            listed = await self._caller.ask("GET", f"/executions?status={status}&limit=1000{query}")
            found += listed["executions"]
        return found
