"""What the database saw by itself, what the functions did, and what all of that must add up to."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import psycopg
from chaos_load import Load
from chaos_runtimes import Runtimes
from psycopg.rows import namedtuple_row
from scenario_checks import Execution, sound
from scenario_load import EXPECTED

from jamjet_kernel.core import events as ev
from jamjet_kernel.core.progress import Status
from jamjet_kernel.runtime.commits import FENCES

TOLD_BY_DATABASE = f"""
CREATE TABLE witness_settled (
    execution_id text, run_id text, base bigint, fence bigint, losses integer, lease_owner text);
CREATE TABLE witness_workers AS SELECT worker_id, pid FROM workers;

CREATE FUNCTION witness_settle() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF TG_OP = 'DELETE' OR NEW.fence >> {FENCES} <> OLD.fence >> {FENCES} THEN
        INSERT INTO witness_settled VALUES (
            OLD.execution_id, OLD.run_id, OLD.fence >> {FENCES}, OLD.fence, OLD.losses, OLD.lease_owner);
    END IF;
    RETURN NULL;
END $$;
CREATE FUNCTION witness_join() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO witness_workers VALUES (NEW.worker_id, NEW.pid);
    RETURN NULL;
END $$;
CREATE TRIGGER witness_settle AFTER UPDATE OR DELETE ON work_items
    FOR EACH ROW EXECUTE FUNCTION witness_settle();
CREATE TRIGGER witness_join AFTER INSERT ON workers FOR EACH ROW EXECUTE FUNCTION witness_join();
"""
"""Who held an item when its result was committed: a result may only come from there."""

_BY_THE_DOOR = (
    ev.WorkflowStarted,
    ev.NodeCompleted,
    ev.NodeFailed,
    ev.TimerFired,
    ev.ApprovalReceived,
    ev.ExternalEventReceived,
    ev.ChildWorkflowCompleted,
)


@dataclass(frozen=True)
class Figures:
    acknowledged: int
    executions: int
    events: int
    commits: int
    """Decisions that were stored, however many shared a transaction."""
    buried: int
    taken_over: int
    """Work items that were lost with the process that held them, and went on in another."""
    calls_repeated: int
    lost: int
    doubled: int
    stuck: int

    def __str__(self) -> str:
        return ", ".join(f"{getattr(self, field.name)} {field.name.replace('_', ' ')}" for field in fields(self))


def watch(url: str) -> None:
    """From now on the database tells of itself. Its tables must be there."""
    with psycopg.connect(url) as connection:
        connection.execute(TOLD_BY_DATABASE)


def verdict(url: str, runtimes: Runtimes, load: Load | None = None) -> Figures:
    """Once all is quiet. Raises `AssertionError` where something does not hold."""
    executions = sound(url, runtimes.key)
    called = calls(runtimes.effects)
    settled = _settled(url)
    assert not list(rows_of_the_dead(url))
    _results_come_from_who_held_the_work(executions, called, settled, url)
    figures = _figures(executions, runtimes, called, settled, load)
    if load is not None:
        assert (figures.lost, figures.doubled, figures.stuck) == (0, 0, 0), f"{figures}\n{_of_stuck(load, executions)}"
        _all_ended_as_they_should(executions, load)
    return figures


def _figures(
    executions: list[Execution],
    runtimes: Runtimes,
    called: list[Call],
    settled: Mapping[_Item, list[Any]],
    load: Load | None,
) -> Figures:
    acknowledged = load.acknowledged if load else {}
    known = {execution.execution_id for execution in executions}
    made = Counter(str(execution.progress.input.get("request")) for execution in executions if _is_root(execution))
    attempts = Counter((call.key, call.attempt) for call in called)
    return Figures(
        acknowledged=len(acknowledged),
        executions=len(executions),
        events=sum(len(execution.events) for execution in executions),
        commits=sum(isinstance(event, _BY_THE_DOOR) for execution in executions for event in execution.events),
        buried=len(runtimes.said("is dead; what it was doing")),
        taken_over=sum(row.losses > 0 for rows in settled.values() for row in rows),
        calls_repeated=sum(times - 1 for times in attempts.values()),
        lost=len(acknowledged.keys() - known),
        doubled=sum(times - 1 for times in made.values()) if load else 0,
        stuck=len(load.stuck) if load else 0,
    )


def _is_root(execution: Execution) -> bool:
    return execution.progress.parent is None


def _of_stuck(load: Load, executions: list[Execution]) -> str:
    stuck = {execution["execution_id"] for execution in load.stuck}
    return "\n".join(
        f"{execution.workflow_id} {execution.execution_id}: … {[ev.kind_of(event) for event in execution.events[-6:]]}"
        for execution in executions
        if execution.execution_id in stuck
    )


def _all_ended_as_they_should(executions: list[Execution], load: Load) -> None:
    for execution in filter(_is_root, executions):
        progress = execution.progress
        assert progress.status is Status.COMPLETED, (execution.execution_id, progress.status, progress.error)
        assert execution.workflow_id == load.workflow_of[progress.state["request"]]
        assert _plain(progress.state) == EXPECTED[execution.workflow_id], execution.execution_id
        assert execution.count(ev.ExternalEventReceived) == (execution.workflow_id == "paid")
        assert execution.count(ev.ApprovalReceived) == (execution.workflow_id == "approved")


def _plain(value: Any) -> Any:
    """Without what says which call and which request it came from."""
    match value:
        case {"square": square}:
            return square
        case dict():
            return {key: _plain(inner) for key, inner in value.items() if key not in ("call", "request")}
        case list():
            return [_plain(inner) for inner in value]
    return value


# Calls


@dataclass(frozen=True)
class Call:
    call: str
    key: str
    attempt: int
    pid: int
    ended: bool


def calls(effects: Path) -> list[Call]:
    lines = [line.split() for line in effects.read_text().splitlines()] if effects.exists() else []
    ended = {call for what, call, *_ in lines if what == "end"}
    begun = (line for line in lines if line[0] == "begin")
    return [Call(call, key, int(attempt), int(pid), call in ended) for _, call, key, attempt, pid, _ in begun]


# Leases

_Item = tuple[str, str]
"""(execution_id, run_id)"""


def _settled(url: str) -> dict[_Item, list[Any]]:
    found: defaultdict[_Item, list[Any]] = defaultdict(list)
    for row in _rows(url, "SELECT * FROM witness_settled"):
        found[row.execution_id, row.run_id].append(row)
    return found


def rows_of_the_dead(url: str) -> Iterator[Any]:
    """What is leased to processes that are not there."""
    for table in ("work_items", "timers", "deliveries"):
        yield from _rows(
            url,
            f"SELECT '{table}' AS of, * FROM {table} WHERE lease_owner IS NOT NULL"
            " AND lease_owner NOT IN (SELECT worker_id FROM workers)",
        )


def _results_come_from_who_held_the_work(
    executions: Iterable[Execution], called: Iterable[Call], settled: Mapping[_Item, list[Any]], url: str
) -> None:
    made_by = {call.call: call for call in called}
    pids = {row.worker_id: row.pid for row in _rows(url, "SELECT * FROM witness_workers")}
    for execution, sequence, event in _results_with_calls(executions):
        call = made_by[event.output["call"]]
        if call.key != f"{execution.execution_id}:{event.node_id}:{event.iteration}":
            continue  # a child's result, as its parent got it
        assert call.ended, f"{call} has a result and did not end"
        held = [row for row in settled[execution.execution_id, event.node_id] if row.base < sequence]
        assert held, f"{event.node_id} of {execution.execution_id} has a result, and no work that led to it"
        holder = max(held, key=lambda row: row.base)
        assert pids.get(holder.lease_owner) == call.pid, (
            f"the result of {event.node_id} in {execution.execution_id} is from process {call.pid},"
            f" and its work was held by {holder.lease_owner}, process {pids.get(holder.lease_owner)}"
        )


def _results_with_calls(executions: Iterable[Execution]) -> Iterator[tuple[Execution, int, Any]]:
    for execution in executions:
        for sequence, event in enumerate(execution.events, 1):
            if isinstance(event, ev.NodeCompleted) and isinstance(event.output, dict) and "call" in event.output:
                yield execution, sequence, event


def _rows(url: str, query: str) -> list[Any]:
    with psycopg.connect(url, row_factory=namedtuple_row) as connection:
        return connection.execute(query).fetchall()  # type: ignore[arg-type]
