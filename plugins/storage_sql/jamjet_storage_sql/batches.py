"""Group commits, numbered: whether one is true whose answer was lost stands in the row of the process.

Each transaction of a batch first moves the number on in `workers`. Where it cannot, the process was taken for dead, or
the batch is there already: the answer to its COMMIT was lost. Numbers only grow and are never used again, so one that
is still under way somewhere is never taken for another.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import count

from sqlalchemy import Connection, column, select, update

from jamjet_kernel import Evicted, JamJetError, StorageError, Worker

from . import schema
from .bulk import Bulk, Row, given

_workers = schema.workers

Answers = list[JamJetError | None]


class NotNext(Exception):
    """The process is gone from `workers`, or its number is not lower than this one."""


@dataclass
class Batch:
    """`answers` are those of the transaction that was begun last: if one is committed, it is this."""

    tenant_id: str
    worker_id: str
    number: int
    answers: Answers = field(default_factory=list)

    @property
    def row(self) -> Row:
        return self.tenant_id, self.worker_id, self.number


class Batches:
    def __init__(self) -> None:
        self._worker: Worker | None = None
        self._numbers = count(1)

    def begin(self, worker: Worker, number: int) -> None:
        """From now on they are made in the name of this process, which has made so many."""
        self._worker, self._numbers = worker, count(number + 1)

    def next(self) -> Batch | None:
        """None: nobody has joined, and what is lost is not known."""
        if self._worker is None:
            return None
        return Batch(self._worker.tenant_id, self._worker.worker_id, next(self._numbers))


_MOVED = (_workers.c.tenant_id, _workers.c.worker_id, column("number", _workers.c.batch.type))
_moved = given(_MOVED).subquery("moved")
MARK = Bulk(
    [str(c.key) for c in _MOVED],
    lambda _: (
        update(_workers)
        .where(
            _workers.c.tenant_id == _moved.c.tenant_id,
            _workers.c.worker_id == _moved.c.worker_id,
            _workers.c.batch < _moved.c.number,
        )
        .values(batch=_moved.c.number)
    ),
)
"""Waits for an earlier transaction of the same process that is still under way."""


def number(tx: Connection, tenant_id: str, worker_id: str) -> int | None:
    stored = select(_workers.c.batch).where(_workers.c.tenant_id == tenant_id, _workers.c.worker_id == worker_id)
    return tx.execute(stored).scalar()


def outcome(tx: Connection, batch: Batch) -> Answers:
    """Of a batch that was not next. Raises `Evicted`."""
    stored = number(tx, batch.tenant_id, batch.worker_id)
    if stored is None:
        raise Evicted(batch.worker_id)
    if stored != batch.number:
        raise StorageError(f"{batch.worker_id} is at batch {stored}, and this is {batch.number}; nothing was stored")
    return batch.answers
