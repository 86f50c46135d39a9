"""Looking at executions, and moving them."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer
from rich.text import Text

from .. import render
from ..inputs import json_value, optional_object
from ..output import answers
from ..session import Session, remote
from ..timeline import timeline

ExecutionId = Annotated[str, typer.Argument(metavar="ID", help="The execution's id.")]


@remote
def list_(
    session: Session,
    status: Annotated[
        str | None,
        typer.Option("--status", "-s", metavar="STATUS", help="running, paused, completed, failed or cancelled."),
    ] = None,
    workflow: Annotated[str | None, typer.Option("--workflow", "-w", metavar="ID", help="Of this workflow.")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", metavar="N", min=1, help="How many, newest first.")] = 50,
) -> None:
    """List executions, newest first."""
    found = session.client.executions(status=status, workflow_id=workflow, limit=limit)
    session.output.answer(found, render.executions)


@remote
def inspect(session: Session, execution_id: ExecutionId) -> None:
    """Everything about one execution: fields, state, nodes and timeline."""
    execution = session.client.execution(execution_id)
    events = list(session.client.events(execution_id))
    if session.output.json:
        session.output.value({**execution, "events": events})
    else:
        answers.print(render.execution(execution, timeline(events), events))


@remote
def events(
    session: Session,
    execution_id: ExecutionId,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="And those to come, until it ends.")] = False,
    after: Annotated[int, typer.Option("--after", metavar="N", min=0, help="Only those after this sequence.")] = 0,
) -> None:
    """An execution's events, one a line."""
    from ..follow import say_connected

    client = session.client
    connected = partial(say_connected, session)
    found = client.follow(execution_id, after, connected=connected) if follow else client.events(execution_id, after)
    for event in found:
        if session.output.json:
            session.output.line(event)
        else:
            answers.print(render.event_line(event), soft_wrap=True)


@remote
def cancel(
    session: Session,
    execution_id: ExecutionId,
    reason: Annotated[str | None, typer.Option("--reason", metavar="TEXT", help="Kept in the log.")] = None,
) -> None:
    """Stop an execution for good."""
    answer = session.client.cancel(execution_id, reason)
    session.output.answer(answer, lambda _: _said(execution_id, "cancelled"))


@remote
def pause(session: Session, execution_id: ExecutionId) -> None:
    """Start nothing new in an execution, until it is resumed."""
    session.output.answer(session.client.pause(execution_id), lambda _: _said(execution_id, "paused"))


@remote
def resume(
    session: Session,
    execution_id: ExecutionId,
    event: Annotated[
        str | None, typer.Option("--event", metavar="KEY", help="Send the external event with this correlation key.")
    ] = None,
    payload: Annotated[
        str | None, typer.Option("--payload", metavar="JSON", help="The event's payload, @file.json, or - for stdin.")
    ] = None,
) -> None:
    """Resume a paused execution; with --event, send it the event that it waits for.

    An event may come before its wait: it is kept until then.
    """
    if event is None:
        if payload is not None:
            raise typer.BadParameter("it belongs to an event: name that with --event", param_hint="--payload")
        session.output.answer(session.client.resume(execution_id), lambda _: _said(execution_id, "resumed"))
        return
    value = None if payload is None else json_value(payload, "--payload")
    answer = session.client.external_event(execution_id, event, value)
    session.output.answer(answer, lambda _: _said(execution_id, f"took the event {event}"))


Follow = Annotated[bool, typer.Option("--follow", "-f", help="Follow it to its end and print the resulting state.")]


@remote
def retry(session: Session, execution_id: ExecutionId, follow: Follow = False) -> None:
    """Go on with a failed execution from the node that failed."""
    answer = session.client.retry(execution_id)
    if follow:
        _see_through(session, execution_id)
    session.output.answer(answer, lambda _: _said(execution_id, "goes on"))


@remote
def fork(
    session: Session,
    execution_id: ExecutionId,
    at: Annotated[
        int | None, typer.Option("--at", metavar="SEQ", min=1, help="After this event; the last one by default.")
    ] = None,
    patch: Annotated[
        str | None, typer.Option("--patch", metavar="JSON", help="A merge patch for the state, @file.json or -.")
    ] = None,
    state: Annotated[
        str | None, typer.Option("--state", metavar="JSON", help="A whole state instead, @file.json or -.")
    ] = None,
    follow: Follow = False,
) -> None:
    """Start a new execution from any point of another one, with its state as it was then or edited."""
    if patch is not None and state is not None:
        raise typer.BadParameter("give a patch or a whole state, not both", param_hint="--state")
    answer = session.client.fork(
        execution_id,
        sequence=at,
        state=optional_object(state, "--state"),
        state_patch=optional_object(patch, "--patch"),
    )
    if follow:
        _see_through(session, answer["execution_id"])
    session.output.answer(answer, lambda _: render.whole(answer["execution_id"]))


def _see_through(session: Session, execution_id: str) -> None:
    from ..follow import finish, follow

    follow(session, execution_id)
    finish(session, execution_id)


def _said(execution_id: str, what: str) -> Text:
    return Text.assemble((execution_id, "bold"), f" {what}")
