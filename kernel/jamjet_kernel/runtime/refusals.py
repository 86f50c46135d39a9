"""Who was turned away: audited too, but never by a write per request.

What is alike is counted together and written every few seconds, so that somebody who knocks a thousand times a second
leaves one record with a count.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass

import msgspec

from ..errors import JamJetError
from ..ports import AuditRecord, Principal, Storage
from .world import World

log = logging.getLogger("jamjet.audit")

PAUSE = 5.0
"""Seconds between two writes."""

KINDS_AT_ONCE = 1000
"""That many different refusals are told apart between two writes; the rest are counted together."""


@dataclass(slots=True)
class _Refusal:
    first_at: int
    last_at: int
    request_id: str | None
    tried: str
    reason: str
    count: int = 1


Key = tuple[str, str, str, str | None]
"""(tenant_id, event_type, actor_id, address)"""


class Refusals:
    def __init__(self, storage: Storage, world: World) -> None:
        self._storage = storage
        self._world = world
        self._waiting: dict[Key, _Refusal] = {}

    def note(self, event_type: str, principal: Principal, *, tried: str, reason: str) -> None:
        """`tried` names what was asked for, such as `POST /tokens`."""
        now = self._world.now()
        key: Key = (principal.tenant_id, event_type, principal.id, principal.address)
        if key not in self._waiting and len(self._waiting) >= KINDS_AT_ONCE:
            key = (principal.tenant_id, event_type, "various", None)
        if (known := self._waiting.get(key)) is not None:
            known.count += 1
            known.last_at = now
        else:
            self._waiting[key] = _Refusal(now, now, principal.request_id, tried, reason)

    async def run(self) -> None:
        """Writes now and then until it is cancelled; `write` after that."""
        while True:
            await asyncio.sleep(PAUSE)
            await self.write()

    async def write(self) -> None:
        waiting, self._waiting = self._waiting, {}
        told: dict[str, list[AuditRecord]] = {}
        for (tenant_id, *key), refusal in waiting.items():
            told.setdefault(tenant_id, []).append(self._record(key, refusal))
        for tenant_id, records in told.items():
            try:
                await self._storage.audit.append(tenant_id, records)
            except JamJetError as error:
                log.warning("%d refusals of the tenant %s are not in the audit log: %s", len(records), tenant_id, error)

    def _record(self, key: list[str | None], refusal: _Refusal) -> AuditRecord:
        event_type, actor_id, address = key
        data = {
            "tried": refusal.tried,
            "reason": refusal.reason,
            "count": refusal.count,
            "first_at": refusal.first_at,
            "last_at": refusal.last_at,
        }
        return AuditRecord(
            audit_id=self._world.new_id("audit"),
            event_type=event_type or "",
            actor_id=actor_id or "",
            created_at=refusal.last_at,
            request_id=refusal.request_id,
            address=address,
            data=msgspec.json.encode(data),
        )
