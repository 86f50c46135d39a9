"""What other runtimes and agents may know without a token: the DID document, and the cards of the active agents.

Only the default tenant's agents are published. A service of the DID document leads to the agent's card here, which
always answers, and the card tells where the agent itself is; `POST /agents/discover` takes such a URL.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

import msgspec
from falcon.asgi import Request, Response
from pydantic import ConfigDict, Field

from jamjet_kernel import Access, Operation, Route
from jamjet_kernel.http import Answer, answer, no_query

from .did import did_document

if TYPE_CHECKING:
    from jamjet_kernel.runtime import Runtime


class VerificationMethod(Answer):
    id: str
    type: str = Field(examples=["Multikey"])
    controller: str
    publicKeyMultibase: str


class Service(Answer):
    id: str
    type: str
    serviceEndpoint: str = Field(json_schema_extra={"format": "uri"})


class DidDocument(Answer):
    context: list[str] = Field(alias="@context")
    id: str = Field(examples=["did:web:localhost%3A7700"])
    verificationMethod: list[VerificationMethod]
    authentication: list[str]
    assertionMethod: list[str]
    service: list[Service] = Field(description="One for each active agent.")


class PublishedCard(Answer):
    """The agent's card, without credentials."""

    model_config = ConfigDict(extra="allow")

    name: str


def routes(runtime: Runtime) -> Iterator[Route]:
    federation = Federation(runtime)
    document = Operation("Get the runtime's DID document", Access.OPEN, {200: DidDocument}, tag="federation")
    card = Operation("Get the card of an active agent", Access.OPEN, {200: PublishedCard}, tag="federation")
    yield Route("/.well-known/did.json", federation, {"GET": document})
    if urlsplit(runtime.settings.url).path.strip("/"):
        # A did:web with a path is looked for at that path, not in its .well-known.
        yield Route("/did.json", federation, {"GET": document})
    yield Route("/.well-known/agents/{agent_id}/agent-card.json", federation, {"GET": card}, "card")


class Federation:
    def __init__(self, runtime: Runtime) -> None:
        self._agents = runtime.agents
        self._public_key = runtime.identity.public_key
        self._url = runtime.settings.url.rstrip("/")

    async def on_get(self, req: Request, resp: Response) -> None:
        no_query(req)
        services = {agent.agent_id: self._card_url(agent.agent_id) for agent in await self._agents.published()}
        answer(resp, did_document(self._url, self._public_key, services))

    async def on_get_card(self, req: Request, resp: Response, agent_id: str) -> None:
        no_query(req)
        agent = await self._agents.published_one(agent_id)
        answer(resp, _without_credentials(msgspec.json.decode(agent.card)))

    def _card_url(self, agent_id: str) -> str:
        return f"{self._url}/.well-known/agents/{quote(agent_id, safe='')}/agent-card.json"


def _without_credentials(card: dict[str, Any]) -> dict[str, Any]:
    """Our own cards may hold some in `auth`, those of A2A 0.1 in `authentication`."""
    public = dict(card)
    if isinstance(auth := card.get("auth"), dict):
        public["auth"] = {name: value for name, value in auth.items() if name == "type"}
    if isinstance(authentication := card.get("authentication"), dict):
        public["authentication"] = {name: value for name, value in authentication.items() if name == "schemes"}
    return public
