"""The raw limit of durability: the rows of recorded commits, written by plain sqlite3 in the batches that were seen."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

from jamjet_kernel.ports import Commit, Storage

Statement = tuple[str, list[tuple[Any, ...]]]
Batch = list[Statement]

CREATE = "INSERT INTO executions VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
MOVE = (
    "UPDATE executions SET status = ?, sequence = ?, completed_at = ?"
    " WHERE tenant_id = ? AND execution_id = ? AND sequence = ?"
)
RECORD = "INSERT INTO events VALUES (?, ?, ?, ?)"
SAVE = "INSERT INTO snapshots VALUES (?, ?, ?, ?)"
SETTLE = "DELETE FROM work_items WHERE tenant_id = ? AND execution_id = ? AND run_id = ?"
ENQUEUE = (
    "INSERT INTO work_items (tenant_id, execution_id, run_id, attempt, queue, priority, available_at, lease_owner)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
)


class Recorder:
    """Notes what a storage is asked to commit, batch by batch."""

    def __init__(self, storage: Storage) -> None:
        self._commit = storage.commit
        self._batches: list[Sequence[Commit]] = []
        storage.commit = self._note  # type: ignore[method-assign]  # it stands in front of one object, for a while

    async def _note(self, commits: Sequence[Commit]) -> Any:
        self._batches.append(commits)
        return await self._commit(commits)

    def clear(self) -> None:
        self._batches = []

    def taken(self) -> list[Sequence[Commit]]:
        """What was noted since, and no more of it."""
        taken, self._batches = self._batches, []
        return taken


class BareSqlite:
    """A database with the runtime's tables, and one thread that writes it, as the runtime has."""

    def __init__(self, path: Path, model: Path, synchronous: str) -> None:
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="bare-sqlite")
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        for pragma in ("journal_mode = WAL", f"synchronous = {synchronous}", "wal_autocheckpoint = 2000"):
            self._connection.execute(f"PRAGMA {pragma}")
        for statement in _tables_of(model):
            self._connection.execute(statement)

    async def write(self, batches: Sequence[Sequence[Commit]]) -> list[float]:
        """The seconds that each batch took. To make the rows of the commits is not counted."""
        prepared = [_statements(commits) for commits in batches]
        return await asyncio.get_running_loop().run_in_executor(self._writer, self._write, prepared)

    def close(self) -> None:
        self._writer.shutdown()
        self._connection.close()

    def _write(self, batches: Iterable[Batch]) -> list[float]:
        taken = []
        for batch in batches:
            began = time.perf_counter()
            self._connection.execute("BEGIN IMMEDIATE")
            for sql, rows in batch:
                self._connection.executemany(sql, rows)
            self._connection.execute("COMMIT")
            taken.append(time.perf_counter() - began)
        return taken


def _tables_of(path: Path) -> list[str]:
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as connection:
        found = connection.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY type DESC").fetchall()
    return [sql for (sql,) in found]


def _statements(commits: Sequence[Commit]) -> Batch:
    rows: dict[str, list[tuple[Any, ...]]] = {sql: [] for sql in (CREATE, MOVE, RECORD, SAVE, SETTLE, ENQUEUE)}
    for commit in commits:
        head, key = commit.head, (commit.tenant_id, commit.head.execution_id)
        if commit.expected == 0:
            described = (head.workflow_id, head.workflow_version, head.status.value, head.sequence, head.created_at)
            rows[CREATE].append((*key, *described, head.completed_at, head.parent_execution_id))
        else:
            rows[MOVE].append((head.status.value, head.sequence, head.completed_at, *key, commit.expected))
        rows[RECORD] += [(*key, event.sequence, event.body) for event in commit.events]
        rows[SETTLE] += [(*key, run_id) for run_id in commit.settle]
        rows[ENQUEUE] += [
            (*key, item.run_id, item.attempt, item.queue, item.priority, item.available_at, item.lease_owner)
            for item in commit.enqueue
        ]
        if commit.snapshot is not None:
            rows[SAVE].append((*key, commit.snapshot.sequence, commit.snapshot.body))
    return [(sql, found) for sql, found in rows.items() if found]
