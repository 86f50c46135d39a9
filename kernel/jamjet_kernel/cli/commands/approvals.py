"""What waits for a person, and the person's answer."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.text import Text

from .. import render
from ..inputs import optional_object
from ..session import Session, remote
from .executions import ExecutionId


@remote
def approvals(session: Session) -> None:
    """Everything that waits for a person."""
    session.output.answer(session.client.approvals(), render.approvals)


@remote
def approve(
    session: Session,
    execution_id: ExecutionId,
    reject: Annotated[bool, typer.Option("--reject", help="Say no.")] = False,
    node: Annotated[
        str | None, typer.Option("--node", metavar="NODE", help="Which one, where several nodes wait.")
    ] = None,
    comment: Annotated[str | None, typer.Option("--comment", "-m", metavar="TEXT", help="Kept in the log.")] = None,
    user: Annotated[str | None, typer.Option("--user", metavar="ID", help="Who decides.")] = None,
    patch: Annotated[
        str | None, typer.Option("--patch", metavar="JSON", help="A merge patch for the state, @file.json or -.")
    ] = None,
) -> None:
    """Approve, or reject, what an execution waits for."""
    decision = "rejected" if reject else "approved"
    answer = session.client.approve(
        execution_id,
        decision=decision,
        node_id=node,
        user_id=user,
        comment=comment,
        state_patch=optional_object(patch, "--patch"),
    )
    session.output.answer(answer, lambda _: Text.assemble((execution_id, "bold"), f" {decision}"))
