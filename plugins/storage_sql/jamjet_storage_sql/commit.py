"""The hot path: a batch of commits, made true in one transaction.

Nearly always all commits of a batch are good, so they are first written together, a few statements for all of
them, which are sent together too. When the database touched fewer rows than that takes, one has lost a race: all is
rolled back and written again in small groups, each under a savepoint, and those with a loser commit by commit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection

from jamjet_kernel import Commit, Conflict, JamJetError, LeaseLost, LimitReached, SequenceConflict

from . import approvals, audit, batches, concurrency, dead_letters, executions, receipts, tenants, timers, work
from .batches import Answers, Batch
from .bulk import Bulk, Row
from .transactions import database_errors
from .wire import Answer, Request, wire_of


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


GROUP = 32
"""Commits that are written together once more, when a batch as a whole was refused."""


def write(tx: Connection, commits: Sequence[Commit], batch: Batch | None) -> Answers:
    """All of them, in few statements. What a later commit undoes of an earlier one is not written at all."""
    told = audit.told_by(commits)
    held = _take(tx, [*_marks(batch), *_steps(commits), Step(*audit.hold(told))])
    audit.append_held(tx, told, held)
    return _answered(batch, [None] * len(commits))


def write_each(tx: Connection, commits: Sequence[Commit], batch: Batch | None) -> Answers:
    """Answers why each was refused. What follows a refused commit in its execution is refused too."""
    lost: set[tuple[str, str]] = set()
    answers: Answers = []
    _take(tx, _marks(batch))
    for start in range(0, len(commits), GROUP):
        answers.extend(_write_group(tx, commits[start : start + GROUP], lost))
    audit_of = [commit for commit, refusal in zip(commits, answers, strict=True) if refusal is None]
    if told := audit.told_by(audit_of):
        audit.append_told(tx, told)
    return _answered(batch, answers)


def _marks(batch: Batch | None) -> list[Step]:
    return [] if batch is None else [Step(batches.MARK, [batch.row], batches.NotNext)]


def _answered(batch: Batch | None, answers: Answers) -> Answers:
    if batch is not None:
        batch.answers = answers
    return answers


def _write_group(tx: Connection, commits: Sequence[Commit], lost: set[tuple[str, str]]) -> Answers:
    if all(_execution(commit) not in lost for commit in commits) and _refusal_of(tx, commits) is None:
        return [None] * len(commits)
    answers: Answers = []
    for commit in commits:
        error = SomeLost() if _execution(commit) in lost else _refusal_of(tx, [commit])
        if error is not None:
            lost.add(_execution(commit))
        answers.append(None if error is None else _told(tx, commit, error))
    return answers


def _execution(commit: Commit) -> tuple[str, str]:
    return commit.tenant_id, commit.head.execution_id


def _refusal_of(tx: Connection, commits: Sequence[Commit]) -> Exception | None:
    """None: they are written. Otherwise nothing is."""
    failures: tuple[type[Exception], ...] = (Refused, *database_errors(tx.dialect))
    savepoint = tx.begin_nested()
    try:
        _take(tx, list(_steps(commits)))
        savepoint.commit()
    except failures as error:
        if wire_of(tx).is_passing(error):
            raise
        # Fails where the database has given up the whole transaction, on a full disk for instance.
        savepoint.rollback()
        return error
    return None


def _told(tx: Connection, commit: Commit, error: Exception) -> JamJetError:
    if isinstance(error, SomeKeyTaken) and commit.receipt:
        return receipts.key_taken(commit.receipt)
    if isinstance(error, SomeLeaseLost) and commit.lease is not None:
        return LeaseLost(f"the work at {commit.lease.run_id} of {commit.head.execution_id} is in other hands by now")
    if isinstance(error, TooManyOpen) and commit.max_open is not None:
        return LimitReached("concurrent_executions", commit.max_open)
    return _moved_on(commit) if isinstance(error, SomeLost) else wire_of(tx).refusal(error)


def _moved_on(commit: Commit) -> Conflict:
    execution_id = commit.head.execution_id
    if commit.expected == 0:
        return SequenceConflict(f"execution {execution_id} exists already")
    return SequenceConflict(
        f"execution {execution_id} is not at sequence {commit.expected}; another writer moved it on"
    )


# Steps


@dataclass(frozen=True)
class Step:
    """A statement of a batch. Where it does not do what it should, and `as_wished` says when it does, or where a key
    is there already, the batch is `refused` with that."""

    bulk: Bulk
    rows: Sequence[Row]
    refused: type[Exception] | None = None
    as_wished: Callable[[Answer], bool] | None = None

    def is_done_by(self, answer: Answer) -> bool:
        if self.as_wished is not None:
            return self.as_wished(answer)
        return self.refused is None or answer.count == len(self.rows)


def _take(tx: Connection, steps: Sequence[Step]) -> Answer:
    """Answers what the last one found. Raises what the first that is not done is `refused` with."""
    requests: list[Request] = [(step.bulk, step.rows) for step in steps]
    answers = wire_of(tx).exchange(tx, requests)
    answer = Answer(0)
    for step in steps:
        try:
            answer = next(answers)
        except tx.dialect.loaded_dbapi.IntegrityError as error:
            if step.refused is None:
                raise
            raise step.refused from error
        if step.refused is not None and not step.is_done_by(answer):
            raise step.refused
    return answer


def _steps(commits: Sequence[Commit]) -> Iterator[Step]:
    yield Step(receipts.INSERT, receipts.committed(commits), SomeKeyTaken)
    yield from _executions(commits)
    yield from _open_ones(commits)
    yield Step(work.SETTLE_LEASED, work.leased(commits), SomeLeaseLost)
    yield from _changes(work.SETTLE, work.ENQUEUE, work.changed_items(commits))
    yield from _changes(timers.CANCEL, timers.SET, timers.changed(commits))
    yield from _changes(approvals.ANSWERED, approvals.ASK, approvals.changed(commits))
    yield from _changes(work.DELIVERED, work.SEND, work.changed_deliveries(commits))
    yield from _changes(dead_letters.RAISE, dead_letters.BURY, dead_letters.changed(commits))
    yield Step(tenants.SPEND, tenants.consumed(commits))
    yield from (Step(*request) for request in concurrency.changes(*concurrency.told_by(commits)))


def _executions(commits: Sequence[Commit]) -> Iterator[Step]:
    heads = executions.heads(commits)
    if heads is None:
        raise SomeLost
    created, moved = heads
    yield Step(executions.CREATE, created, SomeLost)
    yield Step(executions.MOVE, moved, SomeLost)
    yield Step(executions.RECORD, executions.recorded(commits), SomeLost)
    yield Step(executions.SNAPSHOT, executions.snapshots(commits))


def _open_ones(commits: Sequence[Commit]) -> Iterator[Step]:
    """Counts after the fact: what is too many is rolled back."""
    limits: dict[str, int] = {}
    for commit in commits:
        if commit.max_open is not None:
            limits[commit.tenant_id] = min(commit.max_open, limits.get(commit.tenant_id, commit.max_open))
    limited: list[Row] = [(tenant_id,) for tenant_id in sorted(limits)]
    yield Step(tenants.HOLD, limited)
    yield Step(
        executions.COUNT_OPEN,
        limited,
        TooManyOpen,
        lambda found: all(count <= limits[tenant_id] for tenant_id, count in found.rows),
    )


def _changes(delete: Bulk, upsert: Bulk, changed: tuple[Sequence[Row], Sequence[Row]]) -> Iterator[Step]:
    ended, begun = changed
    yield Step(delete, ended)
    yield Step(upsert, begun)
