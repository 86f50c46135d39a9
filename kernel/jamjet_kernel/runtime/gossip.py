"""What the processes tell each other: that there is work, and which executions moved on.

Only hints. All of them may be lost: then a slow poll finds the same a moment later. They are gathered and sent off the
commit path, and only while there is somebody to hear them.
"""

from __future__ import annotations

import asyncio
import logging
import zlib
from collections.abc import Callable
from contextlib import suppress

import msgspec

from ..ports import Storage
from .live import Key
from .membership import Membership

log = logging.getLogger("jamjet.gossip")

PAUSE = 0.02
"""Seconds in which hints gather: what it costs those who follow an execution from another process."""

TOLD_AT_ONCE = 700

GOODBYE = 0.5
"""Seconds that the last hint may take. Without it the others find what was left a moment later."""


class Hint(msgspec.Struct, frozen=True, omit_defaults=True):
    """`marks` are the executions, in short: two may share one, then somebody looks in vain. `left`: the sender has
    gone, and all that it held is free."""

    sender: str
    work: bool = False
    left: bool = False
    marks: tuple[int, ...] = ()


class Gossip:
    """`work` is called when there is work, `left` when a process has gone, `moved` with the marks of executions that
    moved on elsewhere."""

    def __init__(
        self,
        storage: Storage,
        membership: Membership,
        *,
        work: Callable[[], None],
        left: Callable[[], None],
        moved: Callable[[set[int]], None],
    ) -> None:
        self._hints = storage.hints
        self._membership = membership
        self._work = work
        self._left = left
        self._moved = moved
        self._marks: set[int] = set()
        self._there_is_work = False
        self._wake = asyncio.Event()
        self._heard_myself = asyncio.Event()

    def execution(self, key: Key) -> None:
        """It moved on."""
        if self._hints is not None and self._membership.others:
            self._marks.add(mark_of(key))
            self._wake.set()

    def work(self) -> None:
        """There is some that others may take."""
        if self._hints is not None and self._membership.others:
            self._there_is_work = True
            self._wake.set()

    async def speak(self) -> None:
        while self._hints is not None:
            await self._wake.wait()
            await asyncio.sleep(PAUSE)
            self._wake.clear()
            self._send()

    def _send(self) -> None:
        assert self._hints is not None
        marks, self._marks = sorted(self._marks), set()
        there_is_work, self._there_is_work = self._there_is_work, False
        for start in range(0, max(1, len(marks)), TOLD_AT_ONCE):
            self._say(Hint(self._membership.worker_id, there_is_work, marks=tuple(marks[start : start + TOLD_AT_ONCE])))

    def _say(self, hint: Hint) -> None:
        assert self._hints is not None
        self._hints.send(_encode(hint).decode())

    async def say_goodbye(self) -> None:
        """Returns when it is on its way to the others, or does not get there."""
        if self._hints is not None and self._membership.others:
            self._heard_myself.clear()
            self._say(Hint(self._membership.worker_id, left=True))
            with suppress(TimeoutError):
                await asyncio.wait_for(self._heard_myself.wait(), GOODBYE)

    async def listen(self) -> None:
        if self._hints is not None:
            self._say(Hint(self._membership.worker_id, work=True))
            await self._hints.listen(self._hear)

    def _hear(self, message: str) -> None:
        try:
            hint = _decode(message)
        except msgspec.MsgspecError:
            log.warning("a hint that is none of ours: %.100s", message)
            return
        if hint.sender == self._membership.worker_id:
            self._heard_myself.set()
            return
        self._membership.others = max(1, self._membership.others)
        if hint.work:
            self._work()
        if hint.left:
            self._left()
        if hint.marks:
            self._moved(set(hint.marks))


def mark_of(key: Key) -> int:
    return zlib.crc32("/".join(key).encode())


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Hint).decode
