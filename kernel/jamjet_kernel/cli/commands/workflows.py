"""What is registered with the runtime."""

from __future__ import annotations

from typing import Annotated

import typer

from .. import render
from ..session import Session, remote


@remote
def workflows(
    session: Session,
    workflow_id: Annotated[str | None, typer.Argument(metavar="ID", help="The versions of this one.")] = None,
    version: Annotated[str | None, typer.Argument(metavar="VERSION", help="Its definition in this version.")] = None,
) -> None:
    """Registered workflows; with an ID its versions, with a VERSION (or `latest`) its definition."""
    if workflow_id is None:
        session.output.answer(session.client.workflows(), render.workflows)
    elif version is None:
        session.output.answer(session.client.workflow_versions(workflow_id), render.versions)
    else:
        session.output.value(session.client.workflow(workflow_id, version))
