"""`jamjet dev`: a runtime on this machine, now."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from ..failures import read_settings
from ..output import Output, answers
from ..session import NoAuth, Session, local

if TYPE_CHECKING:
    from ...settings import Settings


@local
def dev(
    session: Session,
    port: Annotated[
        int | None,
        typer.Option(
            "--port", "-p", metavar="N", min=0, max=65535, help="Else JAMJET_PORT, else 7700; 0: any free one."
        ),
    ] = None,
    host: Annotated[
        str | None,
        typer.Option("--host", metavar="ADDRESS", help="Where to listen: else JAMJET_BIND, else this machine only."),
    ] = None,
    no_auth: NoAuth = False,
) -> None:
    """Serve a runtime from this folder, until Ctrl-C.

    Executions are kept in .jamjet/runtime.db (else DATABASE_URL) and go on where they were after a restart. Python
    functions of workflows are imported from this folder. The first start makes an operator's token and keeps it in
    .jamjet/operator.token, where `jamjet` finds it.
    """
    from ..server import serve

    settings = read_settings(port=port, bind=host, auth="off" if no_auth else None)
    if "allow_networks" not in settings.model_fields_set:
        # Agents and services under development run beside it.
        settings = settings.model_copy(update={"allow_networks": ("loopback",)})
    serve(settings, announce=_as_json if session.output.json else _banner)


def _as_json(settings: Settings, version: str) -> None:
    from ..databases import place_of

    told = {"url": settings.url, "database": place_of(settings.database_url), "version": version, "auth": settings.auth}
    Output(json=True).value(told)


def _banner(settings: Settings, version: str) -> None:
    from ..databases import path_from_here, place_of

    url = settings.url
    rows = {
        "API": url,
        "Docs": f"{url}/docs",
        "Database": place_of(settings.database_url),
        "Reachable": "from this machine only" if settings.is_local else "from other machines too",
        "Access": _access(settings, path_from_here(settings.operator_token_file)),
        "Python": "functions are loaded once: restart after editing them",
    }
    grid = Table.grid(padding=(0, 2))
    for name, value in rows.items():
        grid.add_row(Text(f"  {name}", style="dim"), Text(value, no_wrap=True, overflow="ignore"))
    answers.print(Text.assemble(("JamJet Runtime", "bold green"), f" {version} is ready\n"))
    answers.print(grid)
    answers.print("\n  [dim]In another terminal:[/] jamjet run workflow.yaml    [dim]Stop:[/] Ctrl-C\n")


def _access(settings: Settings, token_file: str) -> str:
    if settings.auth == "off":
        return "open: authentication is off, whoever reaches the API may do everything"
    if settings.operator_token_file.exists():
        return f"by token: {token_file} holds the operator's, `jamjet` finds it here"
    return "by token"
