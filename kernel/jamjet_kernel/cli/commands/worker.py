"""`jamjet worker`: functions on another machine."""

from __future__ import annotations

import asyncio
import os
import socket
from itertools import chain
from typing import Annotated

import typer
from rich.markup import escape

from ..exit_codes import ExitCode
from ..failures import CommandFailed, read_settings
from ..output import answers
from ..session import Session, remote


@remote
def worker(
    session: Session,
    queues: Annotated[
        list[str], typer.Option("--queues", "-q", metavar="NAMES", help="The queues to take work from: a,b,c.")
    ],
    module: Annotated[
        list[str],
        typer.Option(
            "--module",
            "-m",
            metavar="NAME",
            help="A module whose functions may be called, or a glob such as tools.*; as often as you like.",
        ),
    ],
    concurrency: Annotated[
        int, typer.Option("--concurrency", "-c", metavar="N", min=1, max=10_000, help="Nodes that run at a time.")
    ] = 4,
    name: Annotated[
        str | None, typer.Option("--name", metavar="NAME", help="What it is called; else host and process id.")
    ] = None,
    grace: Annotated[
        float,
        typer.Option("--grace", metavar="SECONDS", min=0, help="For running nodes to finish when it is told to stop."),
    ] = 10,
) -> None:
    """Work for a runtime from here, until Ctrl-C.

    Takes the work of some queues over REST, and calls the Python functions that python_fn and tool nodes name: those of
    the given modules, which are imported from this folder too, and no others. Told to stop, it finishes what runs
    within --grace and gives the rest back.
    """
    from ..service import import_from_here, leave_late_functions, log_to_stderr, loop_factory, signals
    from ..wire import Wire
    from ..worker import Worker

    named = [[part.strip() for part in given.split(",") if part.strip()] for given in queues]
    names = list(dict.fromkeys(chain.from_iterable(named)))
    if not all(named):
        raise CommandFailed("--queues names no queue", hint="write it like --queues gpu,model", code=ExitCode.USAGE)
    called = name or f"{socket.gethostname()}-{os.getpid()}"
    log_to_stderr(read_settings().log_level)
    import_from_here()
    _import(module)

    def announce() -> None:
        told = {"worker_id": called, "runtime": session.url, "queues": names, "modules": module}
        if session.output.json:
            session.output.line({**told, "concurrency": concurrency})
        else:
            answers.print(f"[bold green]{escape(called)}[/] works for {session.url}: {escape(', '.join(names))}")

    async def run() -> None:
        stop = asyncio.Event()
        wire = Wire(session.url, session.token, called, names, concurrency)
        with signals(stop):
            await Worker(wire, called, module, concurrency).run(stop, grace, announce)

    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(run())
    leave_late_functions("their nodes were given back, and run elsewhere")


def _import(modules: list[str]) -> None:
    from ...errors import NodeFailed
    from ...nodes.functions import load

    for named in modules:
        if not set(named) & set("*?["):
            try:
                load(named)
            except NodeFailed as error:
                details = error.details.get("traceback") or ()
                raise CommandFailed(str(error), details=list(map(str, details))) from error
