"""One driver's process, from the side of the runtime: calls go in, what becomes of them comes out."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
import sysconfig
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from jamjet_kernel.nodes.remote import failed, succeeded, value_of

from .frames import (
    HEADER,
    Answered,
    Cancel,
    Connect,
    Connected,
    Died,
    Frame,
    FromDriver,
    Lost,
    Posted,
    Recorded,
    Submit,
    Waiting,
    from_driver,
    packed,
)

log = logging.getLogger("jamjet.ray")


class ClusterLost(Exception):
    """The cluster, or the process that talks to it, is gone; nothing is known of the calls that it had."""


class CallDied(Exception):
    """The call's process or machine is gone; the cluster is there."""


@dataclass(frozen=True)
class Listener:
    """Who hears of a call under way: that nothing can run it, and its progress."""

    waits: Callable[[str], Awaitable[None]]
    emit: Callable[[Any], Awaitable[None]] | None


class Session:
    """Made by `open_session`. Once the driver has ended, it is of no more use."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._process = process
        self._stdin = process.stdin
        self._stdout = process.stdout
        self._answers: dict[int, asyncio.Future[bytes]] = {}
        self._listeners: dict[int, Listener] = {}
        self._telling: set[asyncio.Task[None]] = set()
        self._reason = "the driver's process died"
        self._reading: asyncio.Task[None] | None = None

    @property
    def is_open(self) -> bool:
        return self._reading is not None and not self._reading.done()

    async def connect(self, connect: Connect) -> Connected:
        """Raises `ClusterLost`."""
        await self._send(connect)
        match await self._read():
            case Connected() as connected:
                self._reading = asyncio.create_task(self._read_all())
                return connected
            case Lost(reason):
                raise ClusterLost(reason)
        raise ClusterLost(self._reason)

    async def call(self, submit: Submit, listener: Listener) -> bytes:
        """Raises `CallDied`, or `ClusterLost`. A call that is cancelled is cancelled on the cluster too."""
        if not self.is_open:
            raise ClusterLost(self._reason)
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._answers[submit.number] = answer
        self._listeners[submit.number] = listener
        try:
            await self._send(submit)
            return await answer
        except asyncio.CancelledError:
            self._write(Cancel(submit.number))
            raise
        finally:
            del self._answers[submit.number], self._listeners[submit.number]

    async def close(self, grace: float = 2) -> None:
        """The driver lets go of the cluster, which ends what still runs there; after the grace it is killed."""
        self._stdin.close()
        try:
            async with asyncio.timeout(grace):
                await self._process.wait()
        except TimeoutError:
            log.warning("the driver of Ray does not end in %g s; it is killed", grace)
            self._process.kill()
            await self._process.wait()
        with contextlib.suppress(ConnectionError):
            await self._stdin.wait_closed()
        for task in self._telling:
            task.cancel()
        tasks = [*self._telling, *([self._reading] if self._reading else [])]
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _read_all(self) -> None:
        while (frame := await self._read()) is not None:
            self._take(frame)
        lost = ClusterLost(self._reason)
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(lost)

    async def _read(self) -> FromDriver | None:
        try:
            size = int.from_bytes(await self._stdout.readexactly(HEADER), "big")
            return from_driver(await self._stdout.readexactly(size))
        except (asyncio.IncompleteReadError, ConnectionError):
            return None

    def _take(self, frame: FromDriver) -> None:
        match frame:
            case Answered(number, answer):
                self._settle(number, answer)
            case Died(number, reason):
                self._settle(number, CallDied(reason))
            case Waiting(number, reason):
                if listener := self._listeners.get(number):
                    self._tell(listener.waits(reason))
            case Posted():
                self._tell(self._record(frame))
            case Lost(reason):
                self._reason = reason
            case _:
                raise AssertionError(frame)

    def _settle(self, number: int, outcome: bytes | CallDied) -> None:
        answer = self._answers.get(number)
        if answer is None or answer.done():
            return
        if isinstance(outcome, CallDied):
            answer.set_exception(outcome)
        else:
            answer.set_result(outcome)

    def _tell(self, telling: Any) -> None:
        task = asyncio.ensure_future(telling)
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)

    async def _record(self, posted: Posted) -> None:
        """The function waits until it is recorded, and hears why it is not."""
        listener = self._listeners.get(posted.number)
        try:
            if listener is None:
                raise RuntimeError("the attempt is over")
            if listener.emit is None:
                raise RuntimeError("emit() is not available here")
            await listener.emit(value_of(posted.data))
            answer = succeeded(None)
        except Exception as error:
            answer = failed(error)
        self._write(Recorded(posted.post, answer))

    async def _send(self, frame: Frame) -> None:
        self._write(frame)
        with contextlib.suppress(ConnectionError):  # the reader notices that the driver is gone, and says why
            await self._stdin.drain()

    def _write(self, frame: Frame) -> None:
        if not self._stdin.is_closing():
            self._stdin.write(packed(frame))


async def open_session() -> Session:
    pipe = asyncio.subprocess.PIPE
    # Once Ray has lost its cluster, its next call would start or join another one.
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(_path()), "RAY_ENABLE_AUTO_CONNECT": "0"}
    command = [sys.executable, "-m", "jamjet_compute_ray.driver"]
    # In a session of its own: a terminal sends Ctrl-C to all, and the runtime decides what becomes of the driver.
    process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, env=env, start_new_session=True)
    return Session(process)


def _path() -> list[str]:
    """Where this process finds modules, but for what every Python finds: a cluster that the driver starts inherits it,
    and an environment that Ray makes there has packages of its own."""
    everybodys = set(sysconfig.get_paths().values())
    everybodys |= {os.path.join(folder, "lib-dynload") for folder in everybodys}
    return [entry or os.getcwd() for entry in sys.path if entry not in everybodys and not entry.endswith(".zip")]
