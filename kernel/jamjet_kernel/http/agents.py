"""Agents: registry, cards, lifecycle and discovery."""

from __future__ import annotations

from typing import Any

import msgspec
from falcon.asgi import Request, Response

from ..ports import Agent, AgentStatus
from ..runtime import Runtime
from . import cursors, models
from .answers import answer, created, optional_timestamp, timestamp
from .requests import body, no_query, principal_of, query


class Agents:
    def __init__(self, runtime: Runtime) -> None:
        self._agents = runtime.agents
        self._max_bytes = runtime.settings.max_body_bytes

    async def on_get(self, req: Request, resp: Response) -> None:
        asked = query(req, models.AgentsPage)
        after = cursors.read(asked.cursor, tuple[cursors.Text])
        found = await self._agents.page(
            principal_of(req),
            status=asked.status,
            skill=asked.skill,
            protocol=asked.protocol,
            search=asked.q,
            limit=asked.limit + 1,
            after=after[0] if after else None,
        )
        shown, cursor = cursors.page(found, asked.limit, lambda agent: (agent.agent_id,))
        answer(resp, {"agents": [self._summary(agent) for agent in shown], "next_cursor": cursor})

    async def on_post(self, req: Request, resp: Response) -> None:
        card, once = await body(req, models.AgentRegistration, self._max_bytes)
        agent_id = await self._agents.register(principal_of(req), card, once=once)
        created(resp, {"agent_id": agent_id}, "agents", agent_id)

    async def on_post_discover(self, req: Request, resp: Response) -> None:
        given, _ = await body(req, models.AgentDiscovery, self._max_bytes)
        agent = await self._agents.discover(principal_of(req), given.url)
        created(resp, self._whole(agent), "agents", agent.agent_id)

    async def on_get_one(self, req: Request, resp: Response, agent_id: str) -> None:
        no_query(req)
        answer(resp, self._whole(await self._agents.get(principal_of(req), agent_id)))

    async def on_put_one(self, req: Request, resp: Response, agent_id: str) -> None:
        card, _ = await body(req, models.AgentRegistration, self._max_bytes)
        answer(resp, self._whole(await self._agents.update(principal_of(req), agent_id, card)))

    async def on_delete_one(self, req: Request, resp: Response, agent_id: str) -> None:
        no_query(req)
        await self._agents.remove(principal_of(req), agent_id)
        answer(resp, {"agent_id": agent_id, "deleted": True})

    async def on_post_activate(self, req: Request, resp: Response, agent_id: str) -> None:
        await self._move(req, resp, agent_id, AgentStatus.ACTIVE)

    async def on_post_deactivate(self, req: Request, resp: Response, agent_id: str) -> None:
        await self._move(req, resp, agent_id, AgentStatus.DEACTIVATED)

    async def on_post_pause(self, req: Request, resp: Response, agent_id: str) -> None:
        await self._move(req, resp, agent_id, AgentStatus.PAUSED)

    async def on_post_heartbeat(self, req: Request, resp: Response, agent_id: str) -> None:
        await body(req, models.Nothing, self._max_bytes)
        await self._agents.heartbeat(principal_of(req), agent_id)
        answer(resp, {"agent_id": agent_id, "ok": True})

    async def _move(self, req: Request, resp: Response, agent_id: str, status: AgentStatus) -> None:
        await body(req, models.Nothing, self._max_bytes)
        await self._agents.move(principal_of(req), agent_id, status)
        answer(resp, {"agent_id": agent_id, "status": status})

    def _summary(self, agent: Agent) -> dict[str, Any]:
        return {
            "agent_id": agent.agent_id,
            "uri": agent.uri,
            "name": agent.name,
            "description": agent.description,
            "version": agent.version,
            "status": agent.status,
            "skills": agent.skills,
            "protocols": agent.protocols,
            "reachable": self._agents.is_reachable(agent),
            "last_seen_at": optional_timestamp(agent.last_seen_at),
            "created_at": timestamp(agent.created_at),
            "updated_at": optional_timestamp(agent.updated_at),
            "discovered_from": agent.discovered_from,
        }

    def _whole(self, agent: Agent) -> dict[str, Any]:
        return {**self._summary(agent), "card": msgspec.Raw(agent.card)}
