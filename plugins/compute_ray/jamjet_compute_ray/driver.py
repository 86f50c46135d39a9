"""The driver's process: Ray is here, and not in the runtime's.

Ray blocks for minutes while it connects, takes over signals, and ends the process that it is in when the cluster has
been away for a minute. Here it may: the runtime notices, starts another driver and hands its calls in again.

Started as `python -m jamjet_compute_ray.driver`; frames come on its stdin and go on its stdout. It ends with its stdin.
"""

from __future__ import annotations

import os
import queue
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, BinaryIO, TypeAlias

import ray
from ray import exceptions as broken
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from jamjet_kernel import NodeFailed
from jamjet_kernel.nodes.remote import failed

from . import on_cluster
from .frames import (
    HEADER,
    Answered,
    Cancel,
    Connect,
    Connected,
    Died,
    Frame,
    Lost,
    Posted,
    Recorded,
    Submit,
    Waiting,
    packed,
    to_driver,
)

LOOKS = 5.0
"""Seconds between two looks at the cluster."""

LEAVING = 10.0
"""Seconds that Ray gets to let go of the cluster."""

GONE = (
    broken.WorkerCrashedError,
    broken.NodeDiedError,
    broken.LocalRayletDiedError,
    broken.OutOfMemoryError,
    broken.ObjectLostError,
)
"""What Ray says when a function's process or machine is gone, or the result with the machine that kept it."""


def main() -> None:
    pipe, outbox = _pipes()
    inbox = Inbox(pipe)
    inbox.start()
    connect = inbox.frames.get()
    assert isinstance(connect, Connect)
    try:
        ray.init(connect.address, **connect.init)
        driver = Driver(outbox, connect.cancel_grace)
    except (Exception, SystemExit) as error:
        outbox.send(Lost(_sentence(error)))
        return
    inbox.is_heard.set()
    driver.serve(iter(inbox.frames.get, None))


class Inbox(threading.Thread):
    """Reads on while Ray connects, so that a runtime that goes away then is not missed."""

    def __init__(self, pipe: BinaryIO) -> None:
        super().__init__(daemon=True)
        self._pipe = pipe
        self.frames: queue.SimpleQueue[Frame | None] = queue.SimpleQueue()
        self.is_heard = threading.Event()

    def run(self) -> None:
        for frame in _frames(self._pipe):
            self.frames.put(frame)
        if not self.is_heard.is_set():
            os._exit(1)
        self.frames.put(None)


class Outbox:
    """Any thread may send."""

    def __init__(self, pipe: BinaryIO) -> None:
        self._pipe = pipe
        self._lock = threading.Lock()

    def send(self, frame: Frame) -> None:
        with self._lock, suppress(BrokenPipeError):  # a runtime that is gone is noticed where its frames end
            self._pipe.write(packed(frame))
            self._pipe.flush()


Needs: TypeAlias = frozenset[tuple[str, float]]
"""In the words in which Ray describes machines."""


@dataclass
class Task:
    """`waits`: the runtime knows that nothing can run it."""

    function: str
    needs: Needs
    ref: Any = None
    waits: bool = field(default=False)


class Driver:
    def __init__(self, outbox: Outbox, cancel_grace: float) -> None:
        self._outbox = outbox
        self._cancel_grace = cancel_grace
        self._tasks: dict[int, Task] = {}
        self._cancelled: dict[int, Task] = {}
        self._lock = threading.Lock()
        self._looks: queue.Queue[Died | None] = queue.Queue()
        self._possible: set[Needs] = set()
        self._home = ray.get_runtime_context().get_node_id()
        self._run = ray.remote(max_retries=0, retry_exceptions=False)(on_cluster.run)
        self._mailbox = _mailbox(self._home)

    def serve(self, frames: Iterator[Frame]) -> None:
        self._outbox.send(_connected(_machines()))
        threading.Thread(target=self._watch, daemon=True).start()
        threading.Thread(target=self._fetch_posts, daemon=True).start()
        for frame in frames:
            try:
                self._take(frame)
            except (ConnectionError, broken.RayError, RuntimeError) as error:
                self._lose(_sentence(error))
        self._leave()

    def _take(self, frame: Frame) -> None:
        match frame:
            case Submit():
                self._submit(frame)
            case Cancel():
                self._cancel(frame.number)
            case Recorded():
                self._mailbox.settle.remote(frame.post, frame.answer)
            case _:
                raise AssertionError(frame)

    def _submit(self, asked: Submit) -> None:
        task = Task(asked.function, _needs(asked.resources))
        try:
            options = _options(asked.resources)
            task.ref = self._run.options(name=asked.function, **options).remote(asked.call, self._mailbox)
        except (TypeError, ValueError) as error:
            refused = NodeFailed(f"Ray refuses to run {asked.function}: {error}", retryable=False)
            self._outbox.send(Answered(asked.number, failed(refused)))
            return
        with self._lock:
            self._tasks[asked.number] = task
        task.ref.future().add_done_callback(partial(self._end, asked.number))
        if task.needs not in self._possible:
            self._looks.put(None)

    def _end(self, number: int, future: Future[bytes]) -> None:
        """On a thread of Ray's, which must not wait for anything of Ray's."""
        with self._lock:
            task = self._tasks.pop(number, None)
            self._cancelled.pop(number, None)
        if task is None:
            return
        try:
            self._outbox.send(Answered(number, future.result()))
        except GONE as error:
            self._looks.put(Died(number, _sentence(error)))
        except ConnectionError as error:
            self._lose(_sentence(error))
        except BaseException as error:
            self._outbox.send(Answered(number, failed(_failure(task.function, error))))

    def _cancel(self, number: int) -> None:
        with self._lock:
            task = self._tasks.pop(number, None)
            if task is None:
                return
            self._cancelled[number] = task
        ray.cancel(task.ref, force=self._cancel_grace == 0)
        timer = threading.Timer(self._cancel_grace, self._kill, [number])
        timer.daemon = True
        timer.start()

    def _kill(self, number: int) -> None:
        with self._lock:
            task = self._cancelled.pop(number, None)
        if task is not None:
            with suppress(Exception):  # it has just ended, or the cluster is gone
                ray.cancel(task.ref, force=True)

    # The cluster, looked at

    def _watch(self) -> None:
        while True:
            dead = self._wait_for_a_reason()
            machines = self._machines()
            if self._home not in {machine["NodeID"] for machine in machines}:
                self._lose("the machine of the cluster that this process is connected to is gone")
            # Only now: where the whole cluster is gone, a function's death says nothing about the function.
            for each in dead:
                self._outbox.send(each)
            self._tell_who_waits(machines)

    def _wait_for_a_reason(self) -> list[Died]:
        """Some time goes by, somebody died, or a call came in that needs what no call needed before."""
        found: list[Died | None] = []
        with suppress(queue.Empty):
            found.append(self._looks.get(timeout=LOOKS))
            while True:
                found.append(self._looks.get_nowait())
        return [each for each in found if each is not None]

    def _machines(self) -> list[dict[str, Any]]:
        while True:
            try:
                return _machines()
            except ConnectionError as error:
                self._lose(_sentence(error))
            except Exception:
                # It may be on its way back. Ray ends this process when it is not.
                time.sleep(1)

    def _tell_who_waits(self, machines: list[dict[str, Any]]) -> None:
        with self._lock:
            tasks = list(self._tasks.items())
        offered = [machine["Resources"] for machine in machines]
        needs = self._possible.union(task.needs for _, task in tasks)
        self._possible = {each for each in needs if any(_has(machine, each) for machine in offered)}
        for number, task in tasks:
            is_possible = task.needs in self._possible
            if not is_possible and not task.waits:
                self._outbox.send(Waiting(number, f"no machine of the Ray cluster has {_listed(task.needs)}"))
            task.waits = not is_possible

    # Progress

    def _fetch_posts(self) -> None:
        while True:
            try:
                for post, number, data in ray.get(self._mailbox.take.remote()):
                    self._outbox.send(Posted(post, number, data))
            except Exception:
                # Ray starts a mailbox that died anew. Where the cluster is gone, others say so.
                time.sleep(1)

    # The end

    def _lose(self, reason: str) -> None:
        """Ends the process: its Ray is of no more use."""
        self._outbox.send(Lost(reason))
        os._exit(1)

    def _leave(self) -> None:
        """What still runs was told to stop, or belongs to a runtime that died: Ray ends it with this process."""
        until = time.monotonic() + self._cancel_grace
        while self._cancelled and time.monotonic() < until:
            time.sleep(0.05)
        late = threading.Timer(LEAVING, os._exit, [1])
        late.daemon = True
        late.start()
        with suppress(Exception):
            ray.shutdown()
        os._exit(0)


def _pipes() -> tuple[BinaryIO, Outbox]:
    """The pipes for ourselves: what Ray and its processes print goes to stderr."""
    inbox, outbox = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    return os.fdopen(inbox, "rb"), Outbox(os.fdopen(outbox, "wb"))


def _frames(pipe: BinaryIO) -> Iterator[Frame]:
    while len(header := pipe.read(HEADER)) == HEADER:
        size = int.from_bytes(header, "big")
        if len(body := pipe.read(size)) < size:
            return
        yield to_driver(body)


def _mailbox(home: str) -> Any:
    """On the machine that this process lives by, so that it keeps no other one from being given back."""
    actor = ray.remote(on_cluster.Mailbox)
    options: dict[str, Any] = {
        "num_cpus": 0,
        "max_restarts": -1,
        "max_task_retries": -1,
        "max_concurrency": 100_000,
        "scheduling_strategy": NodeAffinitySchedulingStrategy(home, soft=True),
    }
    return actor.options(**options).remote()


def _machines() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]  # Ray's own omission
    return [machine for machine in found if machine["Alive"]]


def _connected(machines: list[dict[str, Any]]) -> Connected:
    resources: dict[str, float] = {}
    for machine in machines:
        for name, quantity in machine["Resources"].items():
            if ":" not in name:  # Ray's own: node:10.0.0.1
                resources[name] = resources.get(name, 0) + quantity
    return Connected(len(machines), resources)


def _options(resources: Mapping[str, float]) -> dict[str, Any]:
    own = dict(resources)
    options: dict[str, Any] = {name: own.pop(name) for name in ("num_cpus", "num_gpus", "memory") if name in own}
    return {**options, "resources": own} if own else options


def _needs(resources: Mapping[str, float]) -> Needs:
    """Ray takes one CPU for a task that does not say."""
    words = {"num_cpus": "CPU", "num_gpus": "GPU"}
    return frozenset((words.get(name, name), quantity) for name, quantity in {"num_cpus": 1.0, **resources}.items())


def _has(offered: Mapping[str, float], needs: Needs) -> bool:
    return all(offered.get(name, 0) >= quantity for name, quantity in needs)


def _listed(needs: Needs) -> str:
    return ", ".join(f"{name}: {quantity:g}" for name, quantity in sorted(needs) if quantity) or "room"


def _failure(function: str, error: BaseException) -> NodeFailed:
    """What kept Ray from calling the function; what the function itself raises is an answer."""
    match error:
        case broken.TaskCancelledError():
            return NodeFailed(f"{function} was cancelled on the Ray cluster")
        case broken.RuntimeEnvSetupError():
            return NodeFailed(f"Ray cannot set up JAMJET_RAY_RUNTIME_ENV: {error}", error_class="server_error")
        case broken.RayTaskError():
            hint = "is jamjet-runtime installed on the machines of the cluster, in the same version?"
            return NodeFailed(f"Ray cannot call {function}: {_sentence(error)}; {hint}", retryable=False)
    return NodeFailed(f"Ray failed to run {function}: {_sentence(error)}", error_class="server_error")


def _sentence(error: BaseException) -> str:
    """Ray tells whole traces: the first line, or the last of a trace, is what happened."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    line = lines[-1] if isinstance(error, broken.RayTaskError) or "Traceback" in str(error) else lines[0]
    return f"{type(error).__name__}: {line}"


if __name__ == "__main__":
    main()
    sys.exit()
