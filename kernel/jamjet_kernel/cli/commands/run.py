"""`jamjet run`: a file becomes an execution, seen through to its result."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from ..inputs import json_object
from ..render import whole
from ..session import Session, remote


@remote
def run(
    session: Session,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A workflow file: YAML, JSON or Python.")],
    input: Annotated[
        str, typer.Option("--input", "-i", metavar="JSON", help="A JSON object, @file.json, or - for stdin.")
    ] = "{}",
    priority: Annotated[
        int | None, typer.Option("--priority", "-p", metavar="N", help="What has a higher one is done first.")
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow/--no-follow", help="Follow it to its end; or print its id and leave.")
    ] = True,
    wait: Annotated[
        bool,
        typer.Option(
            "--wait/--no-wait",
            help="When only a person or an event can move it on: keep waiting; or leave with exit code 4.",
        ),
    ] = True,
) -> None:
    """Run a workflow file and print the resulting state.

    Compiles the file, registers it with the runtime, starts an execution and shows its nodes as they run (on
    stderr). The state goes to stdout. Ctrl-C stops the watching, not the execution.
    """
    from .. import follow as following
    from ..definitions import compiled

    given = json_object(input, "--input")
    ir = compiled(file)
    registered = _register(session, ir)
    for warning in registered.get("warnings") or ():
        session.output.note(f"[yellow]warning:[/] {escape(warning)}")
    started = session.client.start(registered["workflow_id"], registered["version"], given, priority)
    execution_id = started["execution_id"]
    if not follow:
        session.output.answer({**started, **registered}, lambda answer: whole(answer["execution_id"]))
        return
    now = following.follow(session, execution_id, nodes=_nodes(ir), wait=wait)
    if now.needs_somebody:
        for way in following.how_to_go_on(execution_id, now):
            session.output.note(f"Go on with: {escape(way)}")
    following.finish(session, execution_id)


def _register(session: Session, ir: dict[str, Any]) -> dict[str, Any]:
    """Registers it. A version is immutable; an edited file under an old version runs as a build of that version."""
    from ..client import Refused

    try:
        return session.client.register(ir)
    except Refused as refused:
        if refused.status != 409:
            raise
    build = {**ir, "version": _build(ir)}
    answer = session.client.register(build)
    session.output.note(
        f"[yellow]note:[/] {ir['workflow_id']} {ir['version']} is registered with other content; "
        f"this file runs as {build['version']}"
    )
    return answer


def _build(ir: dict[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps(ir, sort_keys=True).encode()).hexdigest()[:8]
    version = str(ir["version"])
    return f"{version}{'.' if '+' in version else '+'}{digest}"


def _nodes(ir: dict[str, Any]) -> list[str]:
    """What will run under its own name, in the order of the file: no end, no body of a map or finalizer."""
    kinds = {node_id: node.get("kind", node) for node_id, node in ir["nodes"].items()}
    bodies = {kind.get("node") for kind in kinds.values()}
    return [node_id for node_id, kind in kinds.items() if kind.get("type") != "end" and node_id not in bodies]
