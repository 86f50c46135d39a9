"""What must hold for every execution in a database, whatever happened to the runtimes that wrote it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce
from itertools import pairwise
from pathlib import Path
from typing import Any

import sqlalchemy
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from sqlalchemy import Connection, Row

from jamjet_kernel.core import events as ev
from jamjet_kernel.core import progress as core
from jamjet_kernel.core.chain import AuditRecord, ChainEnd, SealedRecord, verify
from jamjet_kernel.core.progress import Progress
from jamjet_kernel.runtime.audit import EVENT_TYPES, TOLD
from jamjet_kernel.runtime.identity import Identity, checker

TERMINAL = ("WorkflowCompleted", "WorkflowFailed", "WorkflowCancelled")


@dataclass(frozen=True)
class Execution:
    execution_id: str
    workflow_id: str
    events: list[ev.Event]
    progress: Progress

    def count(self, kind: type) -> int:
        return sum(isinstance(event, kind) for event in self.events)


def sound(database: Path | str, key: Path | None = None) -> list[Execution]:
    """Every execution of the database, once it has passed. `key` signed its audit log; else it lies beside the file."""
    if isinstance(database, Path):
        url, key = f"sqlite:///{database}", key or database.parent / "signing.key"
    else:
        url = database.replace("postgresql://", "postgresql+psycopg://", 1)
    assert key is not None
    engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool)
    with engine.connect() as connection:
        found = [_sound(connection, head) for head in _rows(connection, "SELECT * FROM executions")]
        logs = _rows(connection, "SELECT count(DISTINCT execution_id) FROM events")[0][0]
        assert logs == len(found), "there is a log without a head, or a head without a log"
        _nothing_left_of_what_ended(connection)
        _all_is_audited(connection, found, key)
    return found


def _rows(connection: Connection, query: str, **parameters: Any) -> list[Row[Any]]:
    return list(connection.execute(sqlalchemy.text(query), parameters))


def _sound(connection: Connection, head: Row[Any]) -> Execution:
    key = {"tenant_id": head.tenant_id, "execution_id": head.execution_id}
    where = "WHERE tenant_id = :tenant_id AND execution_id = :execution_id ORDER BY sequence"
    rows = _rows(connection, f"SELECT sequence, body FROM events {where}", **key)
    log = [ev.decode(row.body) for row in rows]
    assert [row.sequence for row in rows] == list(range(1, len(rows) + 1)), f"the log of {key} has a gap"
    progress = reduce(core.evolve, log, Progress())
    assert _head(head) == _replayed(progress), f"the head of {key} is not what its log adds up to"
    for snapshot in _rows(connection, f"SELECT sequence, body FROM snapshots {where}", **key):
        prefix = reduce(core.evolve, log[: snapshot.sequence], Progress())
        assert core.encode(prefix) == snapshot.body, f"a snapshot of {key} is not what its log adds up to"
    _each_result_once(log)
    _nothing_after_the_end(log)
    return Execution(head.execution_id, head.workflow_id, log, progress)


def _head(head: Row[Any]) -> tuple[Any, ...]:
    return head.sequence, head.status, head.workflow_id, head.workflow_version, head.completed_at


def _replayed(progress: Progress) -> tuple[Any, ...]:
    return (
        progress.sequence,
        progress.status.value,
        progress.workflow_id,
        progress.workflow_version,
        progress.ended_at,
    )


def _each_result_once(log: list[ev.Event]) -> None:
    results = Counter(_results(log))
    assert not [result for result, times in results.items() if times > 1], results


def _results(log: list[ev.Event]) -> Iterator[tuple[str | None, int, int]]:
    """A node's final results by (node, iteration), counted anew after each retry of the execution."""
    retries = 0
    for event in log:
        if isinstance(event, ev.WorkflowRetried):
            retries += 1
        if isinstance(event, ev.NodeCompleted) or (isinstance(event, ev.NodeFailed) and event.final):
            yield event.node_id, event.iteration, retries


def _nothing_after_the_end(log: list[ev.Event]) -> None:
    for event, following in pairwise(log):
        if ev.kind_of(event) in TERMINAL:
            assert isinstance(following, ev.WorkflowRetried), f"{following} follows {event}"


def _all_is_audited(connection: Connection, executions: list[Execution], key: Path) -> None:
    """The chains are whole and signed, and tell what the logs say and nothing else."""
    check = checker(Identity(load_pem_private_key(key.read_bytes(), None)).public_pem)  # type: ignore[arg-type]
    told: list[AuditRecord] = []
    for tenant_id, *end in _rows(connection, "SELECT * FROM audit_chains"):
        rows = _rows(connection, "SELECT * FROM audit WHERE tenant_id = :of ORDER BY sequence", of=tenant_id)
        chain = [_sealed(*row) for row in rows]
        assert list(verify(tenant_id, chain, ChainEnd(*end), check)) == []
        told += [sealed.record for sealed in chain if sealed.record]
    happened = Counter(
        (execution.execution_id, sequence, EVENT_TYPES[type(event)])
        for execution in executions
        for sequence, event in enumerate(execution.events, 1)
        if type(event) in TOLD and TOLD[type(event)](event) is not None
    )
    audited = Counter(
        (record.execution_id, json.loads(record.data)["sequence"], record.event_type)
        for record in told
        if record.execution_id is not None
    )
    assert audited == happened, f"not audited: {happened - audited}; did not happen: {audited - happened}"


def _sealed(_: str, sequence: int, *rest: Any) -> SealedRecord:
    *fields, previous, digest, signature = rest
    return SealedRecord(sequence, AuditRecord(*fields), previous, digest, signature)


def _nothing_left_of_what_ended(connection: Connection) -> None:
    for table in ("work_items", "timers", "approvals"):
        left = _rows(
            connection,
            f"SELECT rest.* FROM {table} AS rest JOIN executions USING (tenant_id, execution_id)"
            " WHERE status IN ('completed', 'failed', 'cancelled')",
        )
        assert not left, f"{table} of ended executions: {[tuple(row) for row in left[:5]]}"
    orphans = _rows(
        connection,
        "SELECT delivery_id FROM deliveries JOIN executions USING (tenant_id, execution_id)"
        " WHERE status IN ('completed', 'cancelled')",
    )
    assert not orphans, f"{len(orphans)} deliveries to executions that have ended"
