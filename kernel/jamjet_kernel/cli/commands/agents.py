"""Which agents there are, and which of them are at work."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.text import Text

from ...ports import AgentStatus
from .. import render
from ..session import Session, remote

_STATUSES = f"{', '.join(list(AgentStatus)[:-1])} or {list(AgentStatus)[-1]}."

AgentId = Annotated[str, typer.Argument(metavar="ID", help="The agent's id.")]


@remote
def list_(
    session: Session,
    status: Annotated[AgentStatus | None, typer.Option("--status", "-s", metavar="STATUS", help=_STATUSES)] = None,
    skill: Annotated[str | None, typer.Option("--skill", metavar="NAME", help="Who can do this.")] = None,
    protocol: Annotated[
        str | None, typer.Option("--protocol", metavar="NAME", help="Who speaks mcp, a2a or anp.")
    ] = None,
    search: Annotated[str | None, typer.Option("--search", "-q", metavar="WORDS", help="In their skills.")] = None,
) -> None:
    """List agents: all, or some of them."""
    asked = {"status": status, "skill": skill, "protocol": protocol, "q": search}
    session.output.answer(session.client.agents(asked), render.agents)


@remote
def inspect(session: Session, agent_id: AgentId) -> None:
    """Show everything about an agent, its card included."""
    session.output.answer(session.client.agent(agent_id), render.agent)


@remote
def activate(session: Session, agent_id: AgentId) -> None:
    """Put an agent to work."""
    session.output.answer(session.client.move_agent(agent_id, "activate"), _moved)


@remote
def deactivate(session: Session, agent_id: AgentId) -> None:
    """Take an agent out of use."""
    session.output.answer(session.client.move_agent(agent_id, "deactivate"), _moved)


@remote
def discover(
    session: Session, url: Annotated[str, typer.Argument(metavar="URL", help="Of the agent, or of its card.")]
) -> None:
    """Register the agent at a URL, or update it."""
    session.output.answer(session.client.discover_agent(url), render.agent)


def _moved(answer: render.Json) -> Text:
    return Text.assemble((answer["agent_id"], "bold"), f" is {answer['status']}")
