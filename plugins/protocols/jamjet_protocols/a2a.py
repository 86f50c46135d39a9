"""A2A: agent cards of all published versions (0.1, 0.2, 0.3, 1.0).

Only what every version says in one way or another is read; the card is kept whole beside it. So nothing of the SDK is
needed here, which takes 0.4 s to import.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from jamjet_kernel import AgentCard, Invalid, Problem

Name = Annotated[str, StringConstraints(min_length=1, max_length=255, pattern=r"^[^\x00-\x1f\x7f]+$")]
Text = Annotated[str, StringConstraints(max_length=100_000, pattern=r"^[^\x00]*$")]
Url = Annotated[str, StringConstraints(min_length=1, max_length=2000, pattern=r"^[^\x00-\x20\x7f@]+$")]


class A2a:
    """An `AgentProtocol`."""

    name = "a2a"

    def read_card(self, card: Mapping[str, Any], url: str) -> AgentCard | None:
        if not _is_card(card):
            return None
        try:
            return _read(_Card.model_validate(card), url)
        except ValidationError as error:
            problems = error.errors(include_url=False, include_context=False, include_input=False)
            raise Invalid([Problem(".".join(map(str, wrong["loc"])), wrong["msg"]) for wrong in problems]) from None


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True)


class _Skill(_Part):
    name: Name
    id: Name | None = None
    description: Text | None = None
    tags: list[Text] | None = None
    examples: list[Text] | None = None


class _Interface(_Part):
    url: Url


class _Card(_Part):
    """`url` is where the agent is until 0.3, `supportedInterfaces` since 1.0."""

    name: Name
    url: Url | None = None
    interfaces: list[_Interface] = Field([], alias="supportedInterfaces")
    description: Text | None = None
    version: Name | None = None
    skills: list[_Skill] | None = Field(None, max_length=1000)


def _is_card(card: Mapping[str, Any]) -> bool:
    return "supportedInterfaces" in card or ("url" in card and ("skills" in card or "capabilities" in card))


def _read(card: _Card, url: str) -> AgentCard:
    skills = card.skills or []
    return AgentCard(
        agent_id=agent_id_at(url),
        uri=_endpoint(card),
        name=card.name,
        description=card.description,
        version=card.version,
        skills=[name for skill in skills for name in dict.fromkeys((skill.name, skill.id)) if name],
        protocols=["a2a"],
        texts=[text for skill in skills for text in _texts(skill)],
    )


def agent_id_at(url: str) -> str:
    """Where it is, such as `agent.example.com` or `localhost:9000:math`: a card has no id, and its name may change."""
    parts = urlsplit(url)
    ends = (".well-known", "agent.json", "agent-card.json")
    path = [part for part in parts.path.split("/") if part and part not in ends]
    return ":".join((parts.netloc.lower(), *path))


def _endpoint(card: _Card) -> str:
    """By HTTP where the agent can be reached in more than one way."""
    urls = [interface.url for interface in card.interfaces] or ([card.url] if card.url else [])
    if not urls:
        raise Invalid([Problem("supportedInterfaces", "must name the agent's URL, or `url` must")])
    return next((url for url in urls if url.startswith(("https://", "http://"))), urls[0])


def _texts(skill: _Skill) -> Iterator[str]:
    yield from filter(None, (skill.name, skill.id, skill.description))
    yield from skill.tags or ()
    yield from skill.examples or ()
