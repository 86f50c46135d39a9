"""The hot path: a batch of commits, made true in one transaction.

Nearly always all commits of a batch are good, so they are first written together, a few statements for all of
them. When the database touched fewer rows than that takes, one has lost a race: all is rolled back and written
again commit by commit, each under a savepoint, to find which.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection

from jamjet_kernel import Commit, Conflict, JamJetError, LeaseLost, LimitReached, SequenceConflict

from . import approvals, audit, dead_letters, executions, receipts, tenants, timers, work
from .bulk import Bulk, Row
from .transactions import database_errors, storage_error


class Refused(Exception):
    """Not all of the commits can be written. Roll back: a part of them is."""


class SomeLost(Refused):
    """Some execution is not where a commit expects it."""


class SomeLeaseLost(Refused):
    """Some work item is gone, or in other hands."""


class SomeKeyTaken(Refused):
    """Some receipt's key is there."""


class TooManyOpen(Refused):
    """Some tenant would have more open executions than a commit allows."""


def write(tx: Connection, commits: Sequence[Commit]) -> None:
    """All of them, in few statements. What a later commit undoes of an earlier one is not written at all."""
    _write(tx, commits)
    audit.append_commits(tx, commits)


def write_each(tx: Connection, commits: Sequence[Commit]) -> list[JamJetError | None]:
    """One by one; answers why each was refused. What follows a refused commit in its execution is refused too."""
    lost: set[tuple[str, str]] = set()
    answers: list[JamJetError | None] = []
    for commit in commits:
        execution = (commit.tenant_id, commit.head.execution_id)
        refusal = _moved_on(commit) if execution in lost else _write_one(tx, commit)
        if refusal is not None:
            lost.add(execution)
        answers.append(refusal)
    audit.append_commits(tx, [commit for commit, refusal in zip(commits, answers, strict=True) if refusal is None])
    return answers


def _write(tx: Connection, commits: Sequence[Commit]) -> None:
    _write_receipts(tx, commits)
    _write_executions(tx, commits)
    _check_open(tx, commits)
    _settle_leased(tx, commits)
    _change(tx, work.SETTLE, work.ENQUEUE, work.changed_items(commits))
    _change(tx, timers.CANCEL, timers.SET, timers.changed(commits))
    _change(tx, approvals.ANSWERED, approvals.ASK, approvals.changed(commits))
    _change(tx, work.DELIVERED, work.SEND, work.changed_deliveries(commits))
    _change(tx, dead_letters.RAISE, dead_letters.BURY, dead_letters.changed(commits))
    tenants.SPEND.run(tx, tenants.consumed(commits))


def _write_one(tx: Connection, commit: Commit) -> JamJetError | None:
    failures: tuple[type[Exception], ...] = (Refused, *database_errors(tx.dialect))
    savepoint = tx.begin_nested()
    try:
        _write(tx, [commit])
        savepoint.commit()
    except failures as error:
        # Fails where the database has given up the whole transaction, on a full disk for instance.
        savepoint.rollback()
        return _refusal(commit, error)
    return None


def _refusal(commit: Commit, error: Exception) -> JamJetError:
    if isinstance(error, SomeKeyTaken) and commit.receipt:
        return receipts.key_taken(commit.receipt)
    if isinstance(error, SomeLeaseLost) and commit.lease is not None:
        return LeaseLost(f"the work at {commit.lease.run_id} of {commit.head.execution_id} is in other hands by now")
    if isinstance(error, TooManyOpen) and commit.max_open is not None:
        return LimitReached("concurrent_executions", commit.max_open)
    return _moved_on(commit) if isinstance(error, SomeLost) else storage_error(error)


def _moved_on(commit: Commit) -> Conflict:
    execution_id = commit.head.execution_id
    if commit.expected == 0:
        return SequenceConflict(f"execution {execution_id} exists already")
    return SequenceConflict(
        f"execution {execution_id} is not at sequence {commit.expected}; another writer moved it on"
    )


def _write_receipts(tx: Connection, commits: Sequence[Commit]) -> None:
    rows = receipts.committed(commits)
    if receipts.INSERT.run(tx, rows) != len(rows):
        raise SomeKeyTaken


def _write_executions(tx: Connection, commits: Sequence[Commit]) -> None:
    heads, log = executions.heads(commits), executions.recorded(commits)
    if heads is None:
        raise SomeLost
    created, moved = heads
    if executions.CREATE.run(tx, created) != len(created) or executions.MOVE.run(tx, moved) != len(moved):
        raise SomeLost
    if executions.RECORD.run(tx, log) != len(log):
        raise SomeLost
    executions.SNAPSHOT.run(tx, executions.snapshots(commits))


def _settle_leased(tx: Connection, commits: Sequence[Commit]) -> None:
    leased = work.leased(commits)
    if work.SETTLE_LEASED.run(tx, leased) != len(leased):
        raise SomeLeaseLost


def _check_open(tx: Connection, commits: Sequence[Commit]) -> None:
    """Counts after the fact: what is too many is rolled back."""
    limits: dict[str, int] = {}
    for commit in commits:
        if commit.max_open is not None:
            limits[commit.tenant_id] = min(commit.max_open, limits.get(commit.tenant_id, commit.max_open))
    if limits:
        tenants.hold(tx, list(limits))
    if any(executions.count_open(tx, tenant_id) > limit for tenant_id, limit in limits.items()):
        raise TooManyOpen


def _change(tx: Connection, delete: Bulk, upsert: Bulk, changed: tuple[Sequence[Row], Sequence[Row]]) -> None:
    ended, begun = changed
    delete.run(tx, ended)
    upsert.run(tx, begun)
