"""What is installed in this environment."""

from __future__ import annotations

from dataclasses import asdict

import typer

from .. import render
from ..exit_codes import ExitCode
from ..session import Session, local


@local
def plugins(session: Session) -> None:
    """Installed plugins: where each is from and which hooks it implements. Needs no runtime.

    Exits with 1 when one of them cannot be imported.
    """
    from ...plugins import installed

    found = [asdict(plugin) for plugin in installed()]
    session.output.answer({"plugins": found}, lambda answer: render.plugins(answer["plugins"]))
    if any(plugin["error"] for plugin in found):
        raise typer.Exit(ExitCode.FAILED)
