"""The commands of `jamjet`, as a table."""

from __future__ import annotations

from typing import Annotated

import typer

from .commands import (
    agents,
    approvals,
    audit,
    db,
    dead_letters,
    dev,
    executions,
    plugins,
    projects,
    run,
    tokens,
    validate,
    worker,
    workers,
    workflows,
)
from .exit_codes import MEANINGS
from .help import Command, Group
from .session import AsJson, Given, RuntimeUrl, Token

_CODES = " · ".join(f"{int(code)} {meaning}" for code, meaning in MEANINGS.items())

app = typer.Typer(
    cls=Group,
    help="Write, run and look after durable agent workflows.",
    epilog=f"Exit codes: {_CODES}.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"jamjet {version('jamjet-runtime')}")
        raise typer.Exit


@app.callback()
def before(
    context: typer.Context,
    runtime: RuntimeUrl = None,
    token: Token = None,
    json: AsJson = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="The version of JamJet.")
    ] = False,
) -> None:
    context.obj = Given(runtime, token, json)


_PANELS = {
    "Write": {"init": projects.init, "validate": validate.validate},
    "Run": {"dev": dev.dev, "run": run.run, "worker": worker.worker},
    "Look": {
        "list": executions.list_,
        "inspect": executions.inspect,
        "events": executions.events,
        "approvals": approvals.approvals,
    },
    "Act": {
        "approve": approvals.approve,
        "pause": executions.pause,
        "resume": executions.resume,
        "cancel": executions.cancel,
        "retry": executions.retry,
        "fork": executions.fork,
    },
    "Runtime": {"workflows": workflows.workflows, "workers": workers.workers, "plugins": plugins.plugins},
}

for panel, commands in _PANELS.items():
    for name, command in commands.items():
        app.command(name, cls=Command, rich_help_panel=panel)(command)

_GROUPS = {
    "agents": (
        "Runtime",
        "Agents: who they are, what they can do, and whether they are at work.",
        {
            "list": agents.list_,
            "inspect": agents.inspect,
            "activate": agents.activate,
            "deactivate": agents.deactivate,
            "discover": agents.discover,
        },
    ),
    "dead-letters": (
        "Act",
        "What failed for good and took its execution with it.",
        {"list": dead_letters.list_, "requeue": dead_letters.requeue},
    ),
    "audit": (
        "Access",
        "Who did what, and whether anybody has touched the log of it.",
        {"list": audit.list_, "verify": audit.verify, "export": audit.export},
    ),
    "db": (
        "Runtime",
        "The database: the version of its schema, upgrades, and moving it elsewhere.",
        {"status": db.status, "upgrade": db.upgrade, "copy": db.copy},
    ),
    "tokens": (
        "Access",
        "Who may use the runtime: API tokens. For operators.",
        {"create": tokens.create, "list": tokens.list_, "revoke": tokens.revoke},
    ),
}

for noun, (panel, help, commands) in _GROUPS.items():
    group = typer.Typer(cls=Group, help=help, no_args_is_help=True)
    for name, command in commands.items():
        group.command(name, cls=Command)(command)
    app.add_typer(group, name=noun, rich_help_panel=panel)
