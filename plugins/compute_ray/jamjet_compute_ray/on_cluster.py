"""What runs on the cluster: a function's call, and the mailbox that brings its progress home."""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
import time
from typing import Any

import msgspec
import ray

from jamjet_kernel import NodeContext
from jamjet_kernel.nodes.remote import perform, succeeded, value_of

from .frames import Call

_call = msgspec.msgpack.Decoder(Call).decode


def run(encoded: bytes, mailbox: Any) -> bytes:
    _listen_to_cancel()
    call = _call(encoded)
    context = NodeContext(
        execution_id=call.execution_id,
        node_id=call.node_id,
        attempt=call.attempt,
        idempotency_key=call.idempotency_key,
        deadline=None if call.expires_at is None else time.monotonic() + call.expires_at - time.time(),
        logger=logging.getLogger(call.logger),
    )
    return perform(
        call.function, call.allowed, msgspec.json.decode(call.input), context, _Emitter(mailbox, call.number)
    )


def _listen_to_cancel() -> None:
    """Ray cancels by an interrupt. A cluster that a shell script started in the background ignores those."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.default_int_handler)


class _Emitter:
    """A function's `emit`: it returns when the runtime has recorded the event, or raises why it has not."""

    def __init__(self, mailbox: Any, number: int) -> None:
        self._mailbox = mailbox
        self._number = number

    def __call__(self, data: Any) -> Any:
        post = self._mailbox.post.remote(self._number, succeeded(data))
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return value_of(ray.get(post))
        # A task, so that it is recorded also where somebody forgets to await it.
        return loop.create_task(_recorded(post))


async def _recorded(post: Any) -> None:
    value_of(await asyncio.wrap_future(post.future()))


class Mailbox:
    """An actor: functions post, the driver takes and tells what became of it.

    Ray repeats calls to a mailbox that died, so an event may be recorded twice, but none is lost.
    """

    def __init__(self) -> None:
        self._posts: dict[int, asyncio.Future[bytes]] = {}
        self._untaken: asyncio.Queue[tuple[int, int, bytes]] = asyncio.Queue()
        # A new mailbox in the place of one that died must not take up its numbers.
        self._next = time.time_ns()

    async def post(self, number: int, data: bytes) -> bytes:
        self._next += 1
        post = self._next
        recorded: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._posts[post] = recorded
        self._untaken.put_nowait((post, number, data))
        try:
            return await recorded
        finally:
            del self._posts[post]

    async def take(self) -> list[tuple[int, int, bytes]]:
        found = [await self._untaken.get()]
        while not self._untaken.empty():
            found.append(self._untaken.get_nowait())
        return found

    async def settle(self, post: int, answer: bytes) -> None:
        recorded = self._posts.get(post)
        if recorded is not None and not recorded.done():
            recorded.set_result(answer)
