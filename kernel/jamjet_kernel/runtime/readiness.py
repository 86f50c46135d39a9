"""Whether this process takes requests, and work that is new: by what it heard of its storage last.

Nothing here costs a request anything: a beat looks at the storage now and then, and requests look at what it found.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from ..errors import Overloaded, StorageError, StorageSilent

if TYPE_CHECKING:
    from .runtime import Runtime

log = logging.getLogger("jamjet.readiness")

AGAIN = 1.0
"""Seconds between beats while something seems to be wrong."""

MOST_BYTES = 128 * 2**20
"""Of events that wait to be stored: some hundred changes of the largest size that a request may have."""


class Readiness:
    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._patience = runtime.settings.stall_seconds
        self._max_backlog = runtime.settings.max_backlog
        self._max_unwritten = runtime.settings.max_unwritten
        self._beat_at = asyncio.Event()
        self._last_beat = self._next_beat = 0.0
        self._failure: str | None = None
        self._is_silent = False
        self._is_in_doubt = False
        self._starts = 0
        self._counting: asyncio.Task[None] | None = None
        self.backlog = 0

    # Asked with requests

    @property
    def problem(self) -> str | None:
        """Why requests had better go to another process."""
        runtime = self._runtime
        if not runtime.ready:
            return "it is starting"
        if runtime.is_draining:
            return "it is about to stop"
        return self._failure

    def check_storage(self) -> None:
        """Raises `StorageSilent` where a request would only wait with all the others.

        A storage that refuses at once is asked: it may answer some requests, and others not.
        """
        if self._is_silent:
            raise StorageSilent(self._failure)

    def check_backlog(self) -> None:
        """Raises `Overloaded` where more waits for workers than is good."""
        if self.backlog > self._max_backlog:
            raise Overloaded(f"more than {self._max_backlog} nodes wait for a worker", self._runtime.membership.pause)

    def check_journal(self) -> None:
        """Raises `Overloaded` where more waits for the database than is good. Asked before anything is read: who reads
        would wait as well."""
        journal = self._runtime.journal
        if len(journal) >= self._max_unwritten or self._starts > self._max_unwritten or journal.bytes >= MOST_BYTES:
            raise Overloaded(f"{max(len(journal), self._starts)} changes wait to be stored", AGAIN)
        if journal.waits >= self._patience:
            raise Overloaded(f"the database has not stored anything for {journal.waits:.0f} s", AGAIN)

    @contextmanager
    def one_more_start(self) -> Iterator[None]:
        """From before anything is read until it is stored: a database that answers nothing holds up both. Raises
        `Overloaded`."""
        self._starts += 1
        try:
            self.check_journal()
            yield
        finally:
            self._starts -= 1

    # The beat

    def doubt(self) -> None:
        """The storage did not take something down."""
        self._is_in_doubt = True
        self.suspect()

    def suspect(self) -> None:
        """Somebody wants to know, and nobody has looked for a while."""
        if asyncio.get_running_loop().time() - self._last_beat >= AGAIN:
            self._beat_at.set()

    def look_within(self, seconds: float) -> None:
        """A lease may end then: what was held is free at that moment, not a beat later."""
        self._next_beat = min(self._next_beat, asyncio.get_running_loop().time() + max(AGAIN, seconds))

    async def run(self) -> None:
        try:
            while True:
                await self._pause()
                await self._beat()
        finally:
            if self._counting is not None:
                self._counting.cancel()

    async def _pause(self) -> None:
        while (left := self._next_beat - asyncio.get_running_loop().time()) > 0 and not self._beat_at.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(min(left, AGAIN)):
                    await self._beat_at.wait()
            if self._failure or self._runtime.journal.waits >= AGAIN:
                break
        self._beat_at.clear()

    async def _beat(self) -> None:
        """Shows that this process lives, and looks for those that do not."""
        clock, membership = asyncio.get_running_loop().time, self._runtime.membership
        self._last_beat = clock()
        self._next_beat = self._last_beat + membership.pause
        try:
            async with asyncio.timeout(self._patience):
                if self._is_in_doubt:  # a full disk lets everything be read
                    await membership.prove()
                is_free = await membership.look()
        except StorageError as error:
            took = clock() - self._last_beat
            self._failed(str(error), is_silent=took >= AGAIN)
        except TimeoutError:
            self._failed(f"the database did not answer within {self._patience:g} s", is_silent=True)
            self._runtime.journal.refuse_what_waits()
        except Exception as error:  # a bug must not end the signs of life
            log.exception("cannot tell whether the storage is there")
            self._failed(f"a defect: {error!r}", is_silent=False)
        else:
            self.look_within(membership.next_end)
            self._succeeded()
            self._count_backlog()
            if is_free:
                self._runtime.recovery.wake_for_all()
                self._runtime.gossip.work()
            # What a remote worker held whose lease has ended is free as well.
            self._runtime.hear_of_work()

    def _failed(self, failure: str, *, is_silent: bool) -> None:
        if self._failure is None:
            log.warning("not ready: %s", failure)
        self._failure, self._is_silent = failure, is_silent

    def _succeeded(self) -> None:
        if self._failure is not None:
            log.warning("ready again: the database answers")
            self._runtime.recovery.wake_for_all()
        self._failure, self._is_silent, self._is_in_doubt = None, False, False

    def _count_backlog(self) -> None:
        """By itself: it takes some hundred milliseconds where much waits, and the lease does not wait for it."""
        if self._counting is None or self._counting.done():
            self._counting = asyncio.create_task(self._count())

    async def _count(self) -> None:
        with suppress(StorageError):  # the next beat tells
            self.backlog = await self._runtime.storage.work.backlog(self._max_backlog + 1)
