"""What failed for good, and running it again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any

import typer
from rich.text import Text

from .. import render
from ..failures import CommandFailed
from ..session import Session, remote


def _named(queue: str | None) -> str | None:
    """A script whose variable is not set does not mean all queues."""
    if queue is not None and not queue.strip():
        raise typer.BadParameter("names no queue")
    return queue


Queue = Annotated[
    str | None,
    typer.Option("--queue", "-q", metavar="NAME", help="Only those of this queue.", callback=_named),
]


@remote
def list_(
    session: Session,
    queue: Queue = None,
    limit: Annotated[int, typer.Option("--limit", "-n", metavar="N", min=1, help="How many.")] = 50,
) -> None:
    """List what failed for good and took its execution with it."""
    session.output.answer(session.client.dead_letters(queue=queue, limit=limit), render.dead_letters)


@remote
def requeue(
    session: Session,
    letter_ids: Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="Ids of dead letters.")] = None,
    every: Annotated[bool, typer.Option("--all", help="All of them; with --queue, all of that queue.")] = False,
    queue: Queue = None,
) -> None:
    """Run again what failed. Everything that failed in the same execution runs again too."""
    if bool(letter_ids) == every:
        raise typer.BadParameter("name dead letters by their ids, or say --all", param_hint="ID")
    if queue is not None and not every:
        raise typer.BadParameter("goes with --all", param_hint="--queue")
    named = letter_ids or []
    known = session.client.dead_letters(queue=queue, limit=None)["dead_letters"] if every or len(named) > 1 else []
    execution_of = {letter["id"]: letter["execution_id"] for letter in known}
    requeued, refused = _requeue(session, list(execution_of) if every else named, execution_of)
    failed = refused if named else []  # of all that there were, somebody else may be quicker
    if requeued or not failed:
        session.output.answer({"requeued": requeued}, _said)
    if failed:
        raise CommandFailed(failed[0], details=failed[1:])


def _requeue(
    session: Session, letter_ids: Iterable[str], execution_of: Mapping[str, str]
) -> tuple[list[str], list[str]]:
    """The executions that go on, each with all of its letters; and why others do not."""
    from ..client import Refused

    requeued: dict[str, None] = {}
    refused = []
    for letter_id in letter_ids:
        if execution_of.get(letter_id) in requeued:
            continue
        try:
            requeued[session.client.requeue(letter_id)["execution_id"]] = None
        except Refused as error:
            if error.status not in (404, 409):
                raise
            refused.append(str(error))
    return list(requeued), refused


def _said(answer: dict[str, Any]) -> Text:
    requeued = answer["requeued"]
    if not requeued:
        return render.nothing("nothing to run again")
    return Text("\n").join(Text.assemble((execution_id, "bold"), " goes on") for execution_id in requeued)
