"""What failed for good, and running it again."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.text import Text

from .. import render
from ..session import Session, remote

Queue = Annotated[str | None, typer.Option("--queue", "-q", metavar="NAME", help="Only those of this queue.")]


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
    found = session.client.dead_letters(queue=queue, limit=None)["dead_letters"] if every else []
    going_on = [_requeue(session, letter_id, missing_ok=every) for letter_id in _one_each(found) or letter_ids or ()]
    executions = list(dict.fromkeys(execution_id for execution_id in going_on if execution_id))
    session.output.answer({"requeued": executions}, _said)


def _one_each(letters: list[dict[str, Any]]) -> list[str]:
    """One of each execution: the others go with it."""
    return list({letter["execution_id"]: letter["id"] for letter in letters}.values())


def _requeue(session: Session, letter_id: str, *, missing_ok: bool) -> str | None:
    """None: somebody else was quicker."""
    from ..client import Refused

    try:
        execution_id: str = session.client.requeue(letter_id)["execution_id"]
    except Refused as refused:
        if missing_ok and refused.status in (404, 409):
            return None
        raise
    return execution_id


def _said(answer: dict[str, Any]) -> Text:
    requeued = answer["requeued"]
    if not requeued:
        return render.nothing("nothing to run again")
    return Text("\n").join(Text.assemble((execution_id, "bold"), " goes on") for execution_id in requeued)
