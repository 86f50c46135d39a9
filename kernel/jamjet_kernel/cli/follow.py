"""An execution as it happens: a live view on a terminal, a line per event elsewhere.

It goes to stderr, so that stdout holds the result and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import partial

import typer
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from . import render
from .exit_codes import ExitCode, of_status
from .failures import CommandFailed
from .output import problems
from .session import Session
from .timeline import Event, Row, Timeline, duration, planned, told

Show = Callable[[Timeline, Event], None]

_AROUND_THE_ROWS = 7


def follow(
    session: Session, execution_id: str, *, after: int = 0, nodes: Iterable[str] = (), wait: bool = True
) -> Timeline:
    """Until the execution ends; without `wait`, until it ends or only somebody else can move it on."""
    now = planned(nodes)
    try:
        with _view(session, execution_id, now) as show:
            for event in session.client.follow(execution_id, after, connected=partial(say_connected, session)):
                now = told(now, event)
                show(now, event)
                if not wait and now.needs_somebody:
                    return now
    except KeyboardInterrupt as interrupt:
        session.output.note(f"\nThe execution goes on. Come back with: jamjet events {execution_id} --follow")
        raise typer.Exit(ExitCode.INTERRUPTED) from interrupt
    except CommandFailed as lost:
        if lost.code is ExitCode.UNREACHABLE:
            lost.hint = f"the execution goes on when its runtime does: jamjet events {execution_id} --follow"
        raise
    return now


def say_connected(session: Session, is_connected: bool) -> None:
    if is_connected:
        session.output.note("[green]note:[/] connected again")
    else:
        session.output.note(f"[yellow]note:[/] lost the connection to {session.client.url}; trying again")


def finish(session: Session, execution_id: str) -> None:
    """Says what came of an execution that was followed, and ends with the exit code for it."""
    execution = session.client.execution(execution_id)
    status = execution["status"]
    if session.output.json:
        session.output.value(execution)
    elif status == "completed":
        session.output.value(execution["state"])
    if status == "failed" and not session.output.json:
        why = render.error_message(execution.get("error")) or "see its events"
        raise CommandFailed(f"{execution_id} failed: {why}", hint=f"jamjet inspect {execution_id}")
    raise typer.Exit(of_status(status))


def how_to_go_on(execution_id: str, now: Timeline) -> list[str]:
    """The commands that would move on an execution that waits."""
    ways = {
        "a person": lambda row: f"jamjet approve {execution_id} --node {row.node_id}",
        "an event": lambda row: f"jamjet resume {execution_id} --event {row.correlation_key} --payload JSON",
    }
    found = [ways[row.waits_for](row) for row in now.waiting if row.waits_for in ways]
    return [*found, f"jamjet resume {execution_id}"] if now.held else found


@contextmanager
def _view(session: Session, execution_id: str, begin: Timeline) -> Iterator[Show]:
    if session.output.json:
        yield lambda now, event: None
    elif problems.is_terminal:
        with _live(execution_id, begin) as show:
            yield show
    else:
        yield lambda now, event: _lines(execution_id, now, event)


def _lines(execution_id: str, now: Timeline, event: Event) -> None:
    problems.print(render.event_line(event), soft_wrap=True)
    if event["kind"] == "WorkflowPaused":
        for way in how_to_go_on(execution_id, now):
            problems.print(f"       go on with: {way}", markup=False, soft_wrap=True)


@contextmanager
def _live(execution_id: str, begin: Timeline) -> Iterator[Show]:
    from rich.live import Live

    picture = _Picture(execution_id, begin)
    with Live(get_renderable=picture.render, console=problems, refresh_per_second=10) as live:

        def show(now: Timeline, event: Event) -> None:
            picture.now = now

        yield show
        live.refresh()


class _Picture:
    """What the live view shows; it is drawn again ten times a second, so that spinners turn."""

    def __init__(self, execution_id: str, now: Timeline) -> None:
        from rich.spinner import Spinner

        self.now = now
        self._execution_id = execution_id
        self._spinner = Spinner("dots", style="cyan")

    def render(self) -> RenderableType:
        ways = [Text(f"  go on with: {way}", style="yellow") for way in self._ways()]
        return Group(self._head(), Text(), self._rows(), *ways)

    def _ways(self) -> list[str]:
        return how_to_go_on(self._execution_id, self.now) if self.now.status == "paused" else []

    def _head(self) -> Text:
        took = duration(_elapsed(self.now.started, self.now.ended))
        return Text.assemble(
            render.status(self.now.status), "  ", (self._execution_id, "bold"), "  ", (took, "dim"), no_wrap=True
        )

    def _rows(self) -> Table:
        table = Table.grid(padding=(0, 2))
        for _ in range(2):
            table.add_column(no_wrap=True)
        table.add_column(justify="right", no_wrap=True)
        table.add_column(overflow="ellipsis", no_wrap=True)
        rows, left_out = _fitting(list(self.now.rows.values()), problems.height - _AROUND_THE_ROWS)
        if left_out:
            table.add_row("", Text(f"… {left_out} more", style="dim"))
        for row in rows:
            table.add_row(*self._cells(row))
        return table

    def _cells(self, row: Row) -> tuple[RenderableType, ...]:
        name, status, _, took, note = render.node_cells(row)
        attempts = Text(f"attempt {row.attempts}  ", style="magenta") if row.attempts > 1 else Text()
        if row.status == "running":
            took = Text(duration(_elapsed(row.started, None)), style="dim")
        mark = self._spinner if row.status == "running" else Text(status.plain[0], style=status.style)
        return mark, name, took, attempts + note


def _fitting(rows: list[Row], room: int) -> tuple[list[Row], int]:
    """The rows that fit; those that are over give way first."""
    surplus = len(rows) - max(room, 3)
    over = [row.node_id for row in rows if row.status in ("completed", "skipped")]
    waiting = [row.node_id for row in reversed(rows) if row.status == "pending"]
    gone = set([*over, *waiting][: max(surplus, 0)])
    return [row for row in rows if row.node_id not in gone], len(gone)


def _elapsed(begin: datetime | None, end: datetime | None) -> float | None:
    if begin is None:
        return None
    return max(0.0, ((end or datetime.now().astimezone()) - begin).total_seconds() * 1000)
