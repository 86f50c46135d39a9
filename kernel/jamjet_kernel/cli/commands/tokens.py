"""Who may use the runtime: API tokens. For operators."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer
from rich.text import Text

from ...ports import Role
from .. import render
from ..exit_codes import ExitCode
from ..failures import CommandFailed
from ..session import Session, remote

_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


@remote
def create(
    session: Session,
    name: Annotated[str, typer.Argument(metavar="NAME", help="What it is for.")],
    role: Annotated[Role, typer.Option("--role", "-r", metavar="ROLE", help=f"What it may do: {', '.join(Role)}.")],
    tenant: Annotated[str | None, typer.Option("--tenant", metavar="ID", help="Whose things it opens.")] = None,
    expires: Annotated[
        str | None, typer.Option("--expires", metavar="WHEN", help="30d, 12h, or a time of RFC 3339; else never.")
    ] = None,
) -> None:
    """Make a token. Its plain text is shown this once."""
    answer = session.client.create_token(name, role, tenant_id=tenant, expires_at=_moment(expires))
    session.output.answer(answer, render.new_token)


@remote
def list_(session: Session) -> None:
    """List all tokens, without their plain text."""
    session.output.answer(session.client.tokens(), render.tokens)


@remote
def revoke(session: Session, token_id: Annotated[str, typer.Argument(metavar="ID", help="The token's id.")]) -> None:
    """Let a token open nothing any more."""
    answer = session.client.revoke_token(token_id)
    session.output.answer(answer, lambda _: Text.assemble((token_id, "bold"), " is revoked"))


def _moment(text: str | None) -> str | None:
    """A span of time counts from now."""
    if text is None or "T" in text:
        return text
    span = re.fullmatch(r"([1-9]\d{0,4})([mhdw])", text)
    if span is None:
        raise CommandFailed(f"{text!r} is no time", hint="write 30d, 12h or 2027-01-31T12:00:00Z", code=ExitCode.USAGE)
    number, unit = span.groups()
    return (datetime.now(UTC) + timedelta(**{_UNITS[unit]: int(number)})).isoformat()
