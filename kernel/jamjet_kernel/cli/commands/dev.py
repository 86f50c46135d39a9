"""`jamjet dev`: a runtime on this machine, now."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from ..failures import read_settings
from ..output import Output, answers
from ..session import Session, local

if TYPE_CHECKING:
    from ...settings import Settings


@local
def dev(
    session: Session,
    port: Annotated[
        int | None, typer.Option("--port", "-p", min=0, max=65535, help="Else JAMJET_PORT, else 7700; 0: any free one.")
    ] = None,
    host: Annotated[
        str | None, typer.Option("--host", help="A loopback address: there is no authentication yet.")
    ] = None,
) -> None:
    """Serve a runtime from this folder, until Ctrl-C.

    Executions are kept in .jamjet/runtime.db (else DATABASE_URL) and go on where they were after a restart. Python
    functions of workflows are imported from this folder.
    """
    from ..server import serve

    settings = read_settings(port=port, bind=host)
    if "allow_networks" not in settings.model_fields_set:
        # Agents and services under development run beside it.
        settings = settings.model_copy(update={"allow_networks": ("loopback",)})
    serve(settings, announce=_as_json if session.output.json else _banner)


def _as_json(settings: Settings, version: str) -> None:
    from ..server import database

    Output(json=True).value({"url": settings.url, "database": database(settings), "version": version})


def _banner(settings: Settings, version: str) -> None:
    from ..server import database

    url = settings.url
    rows = {
        "API": url,
        "Docs": f"{url}/docs",
        "Database": database(settings),
        "Reachable": "from this machine only, as there is no authentication yet",
    }
    grid = Table.grid(padding=(0, 2))
    for name, value in rows.items():
        grid.add_row(Text(f"  {name}", style="dim"), Text(value, no_wrap=True, overflow="ignore"))
    answers.print(Text.assemble(("JamJet Runtime", "bold green"), f" {version} is ready\n"))
    answers.print(grid)
    answers.print("\n  [dim]In another terminal:[/] jamjet run workflow.yaml    [dim]Stop:[/] Ctrl-C\n")
