"""Agents that are reached by letter: their cards are of a kind of their own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from jamjet_kernel import AgentCard, AgentProtocol, Invalid, Problem, hookimpl


class Letterbox(BaseModel):
    owner: str
    address: str
    writes_about: list[str]


class ByLetter:
    name = "letter"

    def read_card(self, card: Mapping[str, Any], url: str) -> AgentCard | None:
        if "letterbox" not in card:
            return None
        try:
            box = Letterbox.model_validate(card["letterbox"])
        except ValidationError as error:
            places = (("letterbox", *each["loc"]) for each in error.errors())
            raise Invalid([Problem(".".join(map(str, place)), "is missing or wrong") for place in places]) from None
        return AgentCard(
            agent_id=box.owner.lower().replace(" ", "-"),
            uri=box.address,
            name=box.owner,
            skills=box.writes_about,
            protocols=[self.name],
            texts=box.writes_about,
        )


@hookimpl
def agent_protocols() -> Iterable[AgentProtocol]:
    return [ByLetter()]
