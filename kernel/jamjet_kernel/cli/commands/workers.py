"""Who does the work."""

from __future__ import annotations

from .. import render
from ..session import Session, remote


@remote
def workers(session: Session) -> None:
    """The live workers."""
    session.output.answer(session.client.workers(), render.workers)
