"""Group commit: many records, one transaction.

Whoever writes waits; the journal hands everything that waits to the storage at once. There is no artificial delay:
while one batch is being made durable, the next one gathers.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass

from ..core.decide import Decision
from ..errors import JamJetError, SequenceConflict, StorageError, StorageSilent
from ..ports import Commit, Storage
from .live import Live

log = logging.getLogger("jamjet.journal")

MAX_BATCH = 1000


class Void(SequenceConflict):
    """What it was decided on is not what is stored, so nothing of it was written."""


@dataclass(slots=True, eq=False)
class Entry:
    """One decision on its way to the disk."""

    commit: Commit
    live: Live
    decision: Decision
    done: asyncio.Future[None]
    since: float
    size: int


class Journal:
    """`committed` is called on the event loop for each entry, in order, before its writer resumes."""

    def __init__(self, storage: Storage, committed: Callable[[Entry], None]) -> None:
        self._storage = storage
        self._committed = committed
        self._waiting: list[Entry] = []
        self._writing: list[Entry] = []
        #: Of the events that are not durable yet.
        self.bytes = 0
        self._wake = asyncio.Event()
        self._quiet = asyncio.Event()

    def __len__(self) -> int:
        """Entries that are not durable yet."""
        return len(self._writing) + len(self._waiting)

    @property
    def waits(self) -> float:
        """Seconds that the oldest of them waits."""
        oldest = next(iter(self._writing or self._waiting), None)
        return 0.0 if oldest is None else asyncio.get_running_loop().time() - oldest.since

    async def write(self, commit: Commit, live: Live, decision: Decision) -> None:
        """Returns when it is durable. Raises what the storage refused it for."""
        loop = asyncio.get_running_loop()
        size = sum(len(event.body) for event in commit.events)
        entry = Entry(commit, live, decision, loop.create_future(), loop.time(), size)
        self.bytes += size
        self._waiting.append(entry)
        self._wake.set()
        self._quiet.clear()
        # A writer that is cancelled takes only its ears away: the entry is on its way all the same.
        await entry.done

    async def run(self) -> None:
        """Writes until it is cancelled; `drain` before that, or writers wait for ever."""
        while True:
            await self._wake.wait()
            self._writing, self._waiting = self._waiting[:MAX_BATCH], self._waiting[MAX_BATCH:]
            if not self._waiting:
                self._wake.clear()
            await self._write(self._writing)
            self._writing = []
            if not self._waiting:
                self._quiet.set()

    def refuse_what_waits(self) -> None:
        """The storage is stuck. What it was given already may still become true; the rest need not wait for that."""
        refused, self._waiting = self._waiting, []
        for entry in refused:
            self._tell(entry, StorageSilent())

    async def drain(self) -> None:
        """Returns when nothing waits to be written."""
        # Not by way of `entry.done`: what a writer left is done as soon as it leaves, and written later.
        while self._writing or self._waiting:
            await self._quiet.wait()

    async def _write(self, batch: list[Entry]) -> None:
        for entry in batch:
            if entry.live.is_stale:
                self._tell(entry, Void())
        batch = [entry for entry in batch if not entry.live.is_stale]
        if not batch:
            return
        outcomes: list[JamJetError | None]
        try:
            outcomes = await self._storage.commit([entry.commit for entry in batch])
        except JamJetError as error:
            outcomes = [error] * len(batch)
        except Exception as error:  # a storage's bug must not end the journal
            outcomes = [StorageError(f"the storage broke: {error!r}")] * len(batch)
        for entry, refusal in zip(batch, outcomes, strict=True):
            self._tell(entry, refusal)

    def _tell(self, entry: Entry, error: JamJetError | None) -> None:
        self.bytes -= entry.size
        if error is None:
            self._carry_out(entry)
        else:
            entry.live.is_stale = True
        if entry.done.cancelled():
            return
        if error is None:
            entry.done.set_result(None)
        else:
            entry.done.set_exception(error)
            entry.done.exception()  # a writer that left does not make it an unheard one

    def _carry_out(self, entry: Entry) -> None:
        try:
            self._committed(entry)
        except Exception:  # a bug there must not take every other execution's commits with it
            log.exception("what %s needs after its commit could not be started", entry.live.execution_id)
