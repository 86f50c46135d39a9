"""The port `Storage`, on SQL."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Executor

from sqlalchemy import Engine

from jamjet_kernel import (
    Agents,
    Approvals,
    Audit,
    Commit,
    DeadLetters,
    Evicted,
    Executions,
    Hints,
    Invalid,
    JamJetError,
    Receipts,
    StorageError,
    StorageUnsure,
    Tenants,
    Timers,
    Tokens,
    Work,
    Workers,
    Workflows,
)

from .agents import SqlAgents
from .approvals import SqlApprovals
from .audit import SqlAudit
from .batches import Batch, Batches, NotNext, outcome
from .commit import Refused, write, write_each
from .dead_letters import SqlDeadLetters
from .executions import SqlExecutions
from .receipts import SqlReceipts
from .tenants import SqlTenants
from .timers import SqlTimers
from .tokens import SqlTokens
from .transactions import Transactions
from .wire import OneByOne, Unavailable, Wire
from .work import SqlWork
from .workers import SqlWorkers
from .workflows import SqlWorkflows


class SqlStorage:
    """Statements run on the threads of `committer` (`commit` alone; without one on those of `writer`), `writer` and
    `readers`, which the storage owns from now on; reads on connections of `reading`, where that is another engine.

    The tables must be there. `released` is called once everything is closed.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        writer: Executor,
        readers: Executor,
        exclusive: bool,
        released: Callable[[], None] = lambda: None,
        wire: Wire | None = None,
        reading: Engine | None = None,
        committer: Executor | None = None,
    ) -> None:
        self._transactions = Transactions(
            engine,
            reading=reading or engine,
            wire=wire or OneByOne(),
            committer=committer or writer,
            writer=writer,
            readers=readers,
        )
        self._released = released
        self._batches = Batches()
        self.exclusive = exclusive
        self.executions: Executions = SqlExecutions(self._transactions)
        self.workflows: Workflows = SqlWorkflows(self._transactions)
        self.work: Work = SqlWork(self._transactions)
        self.agents: Agents = SqlAgents(self._transactions)
        self.approvals: Approvals = SqlApprovals(self._transactions)
        self.timers: Timers = SqlTimers(self._transactions)
        self.receipts: Receipts = SqlReceipts(self._transactions)
        self.tenants: Tenants = SqlTenants(self._transactions)
        self.tokens: Tokens = SqlTokens(self._transactions)
        self.audit: Audit = SqlAudit(self._transactions)
        self.workers: Workers = SqlWorkers(self._transactions, None if exclusive else self._batches)
        self.dead_letters: DeadLetters = SqlDeadLetters(self._transactions)
        self.hints: Hints | None = None

    async def commit(self, commits: Sequence[Commit]) -> list[JamJetError | None]:
        try:
            return await self._commit(commits)
        except Evicted:
            raise
        except StorageError as error:
            return [error] * len(commits)

    async def _commit(self, commits: Sequence[Commit]) -> list[JamJetError | None]:
        batch = self._batches.next()
        try:
            return await self._write(write, commits, batch)
        except (Evicted, StorageUnsure, Unavailable):
            raise
        except (Refused, Invalid, StorageError):
            return await self._write(write_each, commits, batch)

    async def _write(
        self, write: Callable[..., list[JamJetError | None]], commits: Sequence[Commit], batch: Batch | None
    ) -> list[JamJetError | None]:
        try:
            return await self._transactions.commit(write, commits, batch, is_repeatable=batch is not None)
        except NotNext:
            assert batch is not None
            return await self._transactions.read(outcome, batch)

    async def close(self) -> None:
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        self._transactions.close()
        self._released()
