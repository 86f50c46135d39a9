"""Agent cards of our own kind, and what every kind is asked for."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from pydantic_core import PydanticCustomError

from ..errors import Invalid, Problem
from ..ports import AgentCard

_WORDS = 2000
"""Of one agent, at most."""


def _fit_for_a_path(agent_id: str) -> str:
    if "/" in agent_id or agent_id in (".", "..", "discover"):
        raise PydanticCustomError("agent_id", "must not hold a slash, nor be '.', '..' or 'discover'")
    return agent_id


def _without_credentials(uri: str) -> str:
    try:
        parts = urlsplit(uri)
        _ = parts.port
    except ValueError as error:
        raise PydanticCustomError("agent_uri", "is not a URI") from error
    if not parts.scheme or "@" in parts.netloc:
        raise PydanticCustomError("agent_uri", "must be a URI without credentials, such as https://agent.example.com")
    return uri


# Databases store no NUL in a text, and no other control character belongs into a name.
_Name = Annotated[str, StringConstraints(min_length=1, max_length=255, pattern=r"^[^\x00-\x1f\x7f]+$")]
_Uri = Annotated[str, StringConstraints(min_length=1, max_length=2000, pattern=r"^[^\x00-\x20\x7f]+$")]
_Text = Annotated[str, StringConstraints(max_length=100_000, pattern=r"^[^\x00]*$")]


class _Part(BaseModel):
    """What a card says beyond this is kept as well."""

    model_config = ConfigDict(extra="allow", strict=True, frozen=True)


class Skill(_Part):
    name: _Name = Field(examples=["research"])
    description: _Text | None = Field(None, examples=["Deep research on any topic"])
    input_schema: dict[str, Any] | None = Field(None, description="JSON Schema.")
    output_schema: dict[str, Any] | None = Field(None, description="JSON Schema.")


class Capabilities(_Part):
    skills: list[Skill] = Field([], max_length=1000)
    protocols: list[_Name] = Field([], max_length=100, examples=[["a2a"]])
    tools_provided: list[_Name] = Field([], max_length=1000, examples=[["web_search"]])
    tools_consumed: list[_Name] = Field([], max_length=1000)


class Card(_Part):
    id: Annotated[_Name, AfterValidator(_fit_for_a_path)] = Field(examples=["research-agent"])
    uri: Annotated[_Uri, AfterValidator(_without_credentials)] = Field(examples=["http://localhost:7701"])
    name: _Name = Field(examples=["Research Agent"])
    description: _Text | None = Field(None, examples=["Searches the web and synthesizes reports."])
    version: _Name | None = Field(None, examples=["0.1.0"])
    capabilities: Capabilities = Capabilities()
    autonomy: _Name | None = Field(None, examples=["guided"])
    auth: dict[str, Any] | None = Field(None, examples=[{"type": "bearer_token"}])


def is_card(card: Mapping[str, Any]) -> bool:
    """Of our own kind: no protocol's card has both."""
    return isinstance(card.get("id"), str) and isinstance(card.get("uri"), str)


def parse_card(card: Mapping[str, Any]) -> AgentCard:
    """Raises `Invalid`."""
    try:
        return read_card(Card.model_validate(card))
    except ValidationError as error:
        problems = error.errors(include_url=False, include_context=False, include_input=False)
        raise Invalid([Problem(".".join(map(str, wrong["loc"])), wrong["msg"]) for wrong in problems]) from None


def read_card(card: Card) -> AgentCard:
    skills = card.capabilities.skills
    return AgentCard(
        agent_id=card.id,
        uri=card.uri,
        name=card.name,
        description=card.description,
        version=card.version,
        skills=[skill.name for skill in skills],
        protocols=[protocol.lower() for protocol in card.capabilities.protocols],
        texts=[text for skill in skills for text in (skill.name, skill.description) if text],
    )


def words_of(texts: Iterable[str]) -> tuple[str, ...]:
    """Each once, in lower case."""
    found = dict.fromkeys(word[:100] for text in texts for word in re.findall(r"[^\W_]+", text.lower()))
    return tuple(found)[:_WORDS]
