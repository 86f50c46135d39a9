"""Agents: which ones there are, what their cards say, and how they are doing."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msgspec

from .. import outgoing
from ..errors import Conflict, Invalid, NotFound, PluginError, Problem, RemoteFailed, StorageError
from ..plugins import contributed
from ..ports import DEFAULT_TENANT, Agent, AgentCard, AgentProtocol, AgentStatus, AuditRecord, Principal, Receipt
from .audit import audited
from .cards import Card, is_card, parse_card, read_card, words_of

if TYPE_CHECKING:
    import httpx

    from .runtime import Once, Runtime

WELL_KNOWN = ("/.well-known/agent.json", "/.well-known/agent-card.json")

_RACES = 20
_PUBLISHED_MS = 1000
"""How long what is published may be out of date, where another process changed it."""

_FROM: Mapping[AgentStatus, tuple[AgentStatus, ...]] = {
    AgentStatus.ACTIVE: (AgentStatus.REGISTERED, AgentStatus.PAUSED, AgentStatus.DEACTIVATED),
    AgentStatus.PAUSED: (AgentStatus.ACTIVE,),
    AgentStatus.DEACTIVATED: (AgentStatus.REGISTERED, AgentStatus.ACTIVE, AgentStatus.PAUSED),
}
"""From where an agent gets to a status. To the one that it has it gets by doing nothing."""

_TOLD = {
    AgentStatus.ACTIVE: "agent_activated",
    AgentStatus.PAUSED: "agent_paused",
    AgentStatus.DEACTIVATED: "agent_deactivated",
}


class Agents:
    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._storage = runtime.storage
        self._world = runtime.world
        self._allow_networks = runtime.settings.allow_networks
        self._liveness_ms = runtime.settings.agent_liveness_secs * 1000
        self._protocols = _protocols(runtime)
        self._published: tuple[Sequence[Agent], float] | None = None

    # Registry

    async def register(self, principal: Principal, card: Card, *, once: Once | None = None) -> str:
        """The agent's id. Raises `Conflict` when there is one of this id."""
        agent = self._new(read_card(card), _whole(card))
        record = self._record(principal, "agent_registered", agent, uri=agent.uri)

        async def add(receipt: Receipt | None) -> None:
            if not await self._storage.agents.put(principal.tenant_id, agent, None, receipt, [record]):
                raise Conflict(f"agent {agent.agent_id} is registered already; PUT /agents/{agent.agent_id} updates it")

        return await self._runtime.once(principal, once, agent.agent_id, add)

    async def get(self, principal: Principal, agent_id: str) -> Agent:
        """Raises `NotFound`."""
        agent = await self._storage.agents.get(principal.tenant_id, agent_id)
        if agent is None:
            raise NotFound(f"agent {agent_id}")
        return agent

    async def page(
        self,
        principal: Principal,
        *,
        status: AgentStatus | None = None,
        skill: str | None = None,
        protocol: str | None = None,
        search: str | None = None,
        limit: int = 50,
        after: str | None = None,
    ) -> list[Agent]:
        """`search` holds words, each of which must begin one that the agent's skills are described with."""
        words = words_of([search]) if search is not None else ()
        if search is not None and not words:
            raise Invalid([Problem("q", "must hold a word to search for")])
        return await self._storage.agents.page(
            principal.tenant_id,
            status=status,
            skill=skill,
            protocol=protocol.lower() if protocol is not None else None,
            words=words,
            limit=limit,
            after=after,
        )

    async def update(self, principal: Principal, agent_id: str, card: Card) -> Agent:
        """By another card; its status stays. Raises `NotFound`, and `Invalid` for a card of another agent."""
        if card.id != agent_id:
            raise Invalid([Problem("id", f"must be {agent_id!r}, as in the path; an agent keeps its id")])
        for _ in range(_RACES):
            before = await self.get(principal, agent_id)
            after = self._with(before, read_card(card), _whole(card))
            if await self._change(principal, before, after, "agent_updated", uri=after.uri):
                return after
        raise _too_busy(agent_id)

    async def remove(self, principal: Principal, agent_id: str) -> None:
        """Raises `NotFound`."""
        agent = await self.get(principal, agent_id)
        record = self._record(principal, "agent_removed", agent, status=agent.status)
        if not await self._storage.agents.remove(principal.tenant_id, agent_id, [record]):
            raise NotFound(f"agent {agent_id}")
        self._published = None

    # Lifecycle

    async def move(self, principal: Principal, agent_id: str, status: AgentStatus) -> None:
        """To that status. Raises `NotFound`, and `Conflict` where no way leads there."""
        for _ in range(_RACES):
            before = await self.get(principal, agent_id)
            if before.status is status:
                return
            if before.status not in _FROM[status]:
                ways = " or ".join(_FROM[status])
                raise Conflict(f"agent {agent_id} is {before.status}; it can become {status} only when it is {ways}")
            after = replace(before, status=status, updated_at=self._world.now())
            if await self._change(principal, before, after, _TOLD[status], was=before.status):
                return
        raise _too_busy(agent_id)

    async def heartbeat(self, principal: Principal, agent_id: str) -> None:
        """Not audited: it is a sign of life and no change. Raises `NotFound`."""
        if not await self._storage.agents.seen(principal.tenant_id, agent_id, self._world.now()):
            raise NotFound(f"agent {agent_id}")

    def is_reachable(self, agent: Agent) -> bool | None:
        """By its heartbeats; None: it never sent one, so nothing is known."""
        if agent.last_seen_at is None:
            return None
        return self._world.now() - agent.last_seen_at <= self._liveness_ms

    # Federation

    async def discover(self, principal: Principal, url: str) -> Agent:
        """Registers the agent whose card is found there, or updates it.

        Raises `OutgoingRefused` and `Invalid` for a URL that is not asked, `RemoteFailed` where there is no card, and
        `Conflict` when the card claims the id of an agent that is somewhere else.
        """
        found_at, raw, card = await self._fetch(_card_urls(url))
        for _ in range(_RACES):
            before = await self._storage.agents.get(principal.tenant_id, card.agent_id)
            if before is None:
                after = replace(self._new(card, raw), discovered_from=found_at)
            else:
                _check_same_origin(before, found_at)
                if (before.card, before.discovered_from) == (raw, found_at):
                    return before
                after = replace(self._with(before, card, raw), discovered_from=found_at)
            told = "agent_registered" if before is None else "agent_updated"
            if await self._change(principal, before, after, told, uri=after.uri, discovered_from=found_at):
                return after
        raise _too_busy(card.agent_id)

    async def published(self) -> Sequence[Agent]:
        """What everybody may know: the active agents of the default tenant."""
        # Whoever comes along may ask, so the database is not asked each time.
        if self._published is None or self._world.stopwatch() > self._published[1]:
            until = self._world.stopwatch() + _PUBLISHED_MS
            self._published = await self._active(DEFAULT_TENANT), until
        return self._published[0]

    async def published_one(self, agent_id: str) -> Agent:
        """Raises `NotFound` for one that is not published too."""
        agent = await self._storage.agents.get(DEFAULT_TENANT, agent_id)
        if agent is None or agent.status is not AgentStatus.ACTIVE:
            raise NotFound(f"agent {agent_id}")
        return agent

    async def _active(self, tenant_id: str) -> list[Agent]:
        found: list[Agent] = []
        while page := await self._storage.agents.page(
            tenant_id, status=AgentStatus.ACTIVE, limit=1000, after=found[-1].agent_id if found else None
        ):
            found += page
        return found

    async def _fetch(self, urls: Sequence[str]) -> tuple[str, bytes, AgentCard]:
        """The first card among them: where it was, as it came, and what it says."""
        missed: list[str] = []
        client = await asyncio.to_thread(outgoing.open_client, self._allow_networks)
        try:
            async with client, asyncio.timeout(outgoing.SECONDS):
                for url in urls:
                    if (found := await self._card_at(client, url, missed)) is not None:
                        return url, *found
        except TimeoutError as error:
            raise RemoteFailed(f"{urls[0]} did not answer within {outgoing.SECONDS:g} s") from error
        raise RemoteFailed(f"there is no agent card: {'; '.join(missed)}")

    async def _card_at(self, client: httpx.AsyncClient, url: str, missed: list[str]) -> tuple[bytes, AgentCard] | None:
        fetched = await outgoing.fetch(client, url)
        if not 200 <= fetched.status < 300:
            missed.append(f"{url} answered {fetched.status}")
            return None
        try:
            return fetched.body, self._read(msgspec.json.decode(fetched.body), url)
        except Invalid as invalid:
            missed.append(f"the card at {url} is not valid: {invalid}")
        except (ValueError, RecursionError) as error:
            missed.append(f"{url} did not answer with JSON: {error}")
        return None

    def _read(self, card: Any, url: str) -> AgentCard:
        if not isinstance(card, dict):
            raise Invalid("it is not an object")
        if is_card(card):
            return parse_card(card)
        for protocol in self._protocols:
            if (read := protocol.read_card(card, url)) is not None:
                return read
        raise Invalid(f"it is of no kind that is known here ({', '.join(p.name for p in self._protocols) or 'none'})")

    # Changes

    def _new(self, card: AgentCard, raw: bytes) -> Agent:
        now = self._world.now()
        blank = Agent(agent_id=card.agent_id, uri=card.uri, name=card.name, created_at=now, card=raw)
        return replace(self._with(blank, card, raw), updated_at=None)

    def _with(self, agent: Agent, card: AgentCard, raw: bytes) -> Agent:
        return replace(
            agent,
            uri=card.uri,
            name=card.name,
            card=raw,
            description=card.description,
            version=card.version,
            skills=tuple(dict.fromkeys(card.skills)),
            protocols=tuple(dict.fromkeys(card.protocols)),
            words=words_of(card.texts),
            updated_at=self._world.now(),
        )

    async def _change(
        self, principal: Principal, before: Agent | None, after: Agent, event_type: str, **data: Any
    ) -> bool:
        record = self._record(principal, event_type, after, **data)
        done = await self._storage.agents.put(principal.tenant_id, after, before, None, [record])
        self._published = None
        return done

    def _record(self, principal: Principal, event_type: str, agent: Agent, **data: Any) -> AuditRecord:
        return audited(self._world, principal, event_type, resource=f"agent/{agent.agent_id}", **data)


def _protocols(runtime: Runtime) -> list[AgentProtocol]:
    """In the order of the plugins. Raises `PluginError` where two have one name."""
    found: dict[str, AgentProtocol] = {}
    for protocol in contributed(runtime.plugins.hook.agent_protocols, settings=runtime.settings):
        if protocol.name in found:
            raise PluginError(f"two plugins bring the agent protocol {protocol.name!r}")
        found[protocol.name] = protocol
    return list(found.values())


def _whole(card: Card) -> bytes:
    return msgspec.json.encode(card.model_dump(exclude_unset=True))


def _card_urls(url: str) -> list[str]:
    """Where a card may be that belongs to a URL: of an agent, or of the card itself."""
    try:
        parts = urlsplit(url)._replace(fragment="")
    except ValueError as error:
        raise Invalid([Problem("url", f"is not a URL: {error}")]) from error
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise Invalid([Problem("url", "must begin with http:// or https:// and name a host")])
    path = parts.path.rstrip("/")
    if path.endswith(".json"):
        return [parts.geturl()]
    known = [parts._replace(path=f"{path}{place}", query="").geturl() for place in WELL_KNOWN]
    return [*known, parts.geturl()] if path else known


def _check_same_origin(agent: Agent, found_at: str) -> None:
    """Whoever serves a card could else take over any agent, by its id."""
    known = agent.discovered_from or agent.uri
    if _origin(known) != _origin(found_at):
        raise Conflict(
            f"the card at {found_at} claims to be agent {agent.agent_id}, which is registered from {known};"
            " delete that one first if this one is to take its place"
        )


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)


def _too_busy(agent_id: str) -> StorageError:
    return StorageError(f"the agent {agent_id} is changed by others faster than this could be")
