"""Who did what: the audit log, and whether anybody has touched it."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

import typer

from .. import render
from ..exit_codes import ExitCode
from ..failures import CommandFailed
from ..session import Session, remote

if TYPE_CHECKING:
    from ...core.chain import Fault

Expected = Annotated[
    str | None,
    typer.Option(
        "--expect",
        metavar="SEQUENCE:DIGEST",
        help="The head that an earlier verification told: finds a log that was cut shorter since.",
    ),
]


@remote
def list_(
    session: Session,
    execution: Annotated[str | None, typer.Option("--execution", "-e", metavar="ID", help="Of this execution.")] = None,
    actor: Annotated[str | None, typer.Option("--actor", metavar="ID", help="Who did it.")] = None,
    event_type: Annotated[str | None, typer.Option("--type", metavar="TYPE", help="Such as node_completed.")] = None,
    since: Annotated[str | None, typer.Option("--since", metavar="TIME", help="From this time of RFC 3339 on.")] = None,
    until: Annotated[str | None, typer.Option("--until", metavar="TIME", help="Up to this time of RFC 3339.")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", metavar="N", min=1, help="How many, newest first.")] = 50,
) -> None:
    """List the records, newest first."""
    asked = {
        "execution_id": execution,
        "actor_id": actor,
        "event_type": event_type,
        "since": since,
        "until": until,
    }
    session.output.answer(session.client.audit(asked, limit), render.audit)


@remote
def verify(
    session: Session,
    file: Annotated[
        Path | None,
        typer.Option(
            "--file", "-f", metavar="FILE", help="An export, instead of a runtime: needs neither it nor its database."
        ),
    ] = None,
    key: Annotated[
        Path | None,
        typer.Option(
            "--key", metavar="FILE", help="The public key as PEM, from where you trust it; else the export's own."
        ),
    ] = None,
    expect: Expected = None,
) -> None:
    """Check that every record is as it was written, and none is missing."""
    expected = _anchor(expect)
    if key is not None and file is None:
        raise CommandFailed("--key is for an export; name it with --file", code=ExitCode.USAGE)
    answer = session.client.audit_verification(expected) if file is None else _verified(file, key, expected)
    session.output.answer(answer, render.audit_verification)
    if file is not None and key is None:
        session.output.note("The key came with the export; give the runtime's own with --key to be sure of it.")
    if not answer["valid"]:
        raise typer.Exit(ExitCode.FAILED)


@remote
def export(
    session: Session,
    output: Annotated[Path | None, typer.Option("--output", "-o", metavar="FILE", help="Else stdout.")] = None,
) -> None:
    """Write the whole log as lines of JSON, which `audit verify --file` verifies anywhere."""
    with ExitStack() as stack:
        target: BinaryIO = sys.stdout.buffer if output is None else stack.enter_context(output.open("wb"))
        for part in session.client.audit_export():
            target.write(part)
    if output is not None:
        session.output.note(f"exported to {output}")


def _anchor(text: str | None) -> tuple[int, str] | None:
    if text is None:
        return None
    sequence, _, digest = text.partition(":")
    if not sequence.isdigit() or len(digest) != 64 or set(digest) - set("0123456789abcdef"):
        raise CommandFailed(f"--expect {text!r} is no SEQUENCE:DIGEST", code=ExitCode.USAGE)
    return int(sequence), digest


def _verified(file: Path, key: Path | None, expected: tuple[int, str] | None) -> dict[str, Any]:
    from ...core.chain import Anchor
    from ...core.chain_export import verify_export
    from ...runtime.identity import checker

    anchor = Anchor(expected[0], bytes.fromhex(expected[1])) if expected else None
    trusted = None if key is None else key.read_text()
    try:
        with file.open("rb") as lines:
            header, records, faults = verify_export(lines, lambda own: checker(trusted or own), anchor)
    except ValueError as error:
        raise CommandFailed(f"the key cannot be used: {error}", code=ExitCode.USAGE) from error
    head = header.head
    return {
        "valid": not faults,
        "records": records,
        "problems": [_told(fault) for fault in faults[:100]],
        "problem_count": len(faults),
        "head": {"sequence": head.sequence if head else 0, "digest": head.digest if head else None},
        "tenant_id": header.tenant_id,
        "public_key": trusted or header.public_key,
    }


def _told(fault: Fault) -> dict[str, Any]:
    return {"sequence": fault.sequence, "kind": fault.kind, "message": fault.message}
