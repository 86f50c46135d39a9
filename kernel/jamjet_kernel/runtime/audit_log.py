"""The audit log as people ask for it: looked through, verified, exported, and shortened when it is old."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import msgspec

from ..core.chain import FORGOTTEN, Anchor, Fault, Verification
from ..errors import PluginError
from ..ports import DEFAULT_TENANT, AuditRecord, ChainEnd, Principal, SealedRecord, Storage
from .audit import RUNTIME
from .identity import Identity, checker
from .world import World

log = logging.getLogger("jamjet.audit")

DAY = 86_400_000
PORTION = 1000
SHOWN_FAULTS = 100


@dataclass(frozen=True, slots=True)
class Verified:
    """`faults` are the first of them; `count` is how many there are."""

    records: int
    faults: list[Fault]
    count: int
    end: ChainEnd | None


class AuditLog:
    """`earlier_keys`: public keys in PEM that the runtime signed with before it got the one that it has."""

    def __init__(self, storage: Storage, identity: Identity, earlier_keys: str | None) -> None:
        self._storage = storage
        self.public_key = identity.public_pem
        self._verifying = asyncio.Lock()
        self.all_keys = identity.public_pem
        if earlier_keys is not None:
            self.all_keys += _readable(earlier_keys.replace("\\n", "\n"))
        self._check = checker(self.all_keys)

    async def page(self, principal: Principal, **asked: Any) -> tuple[list[SealedRecord], int]:
        return await self._storage.audit.page(principal.tenant_id, **asked)

    async def verify(self, principal: Principal, anchor: Anchor | None = None) -> Verified:
        """The whole chain of the caller's tenant, as far as it went when this was asked. One at a time: it is work."""
        tenant_id = principal.tenant_id
        async with self._verifying:
            while True:
                end = await self._storage.audit.end(tenant_id)
                verified = await self._verify(tenant_id, end, anchor)
                # What is forgotten while it is read looks like a fault.
                if not verified.count or not await self._was_shortened(tenant_id, end):
                    return verified

    async def _verify(self, tenant_id: str, end: ChainEnd | None, anchor: Anchor | None) -> Verified:
        verification = Verification(tenant_id, self._check, anchor)
        faults: list[Fault] = []
        count = 0
        async for portion in self.portions(tenant_id, end):
            found = await asyncio.to_thread(lambda portion: list(verification.take(portion)), portion)
            count += len(found)
            faults += found[: SHOWN_FAULTS - len(faults)]
        found = list(verification.finish(end))
        return Verified(verification.records, (faults + found)[:SHOWN_FAULTS], count + len(found), end)

    async def _was_shortened(self, tenant_id: str, since: ChainEnd | None) -> bool:
        found, _ = await self._storage.audit.page(tenant_id, event_type=FORGOTTEN, limit=1)
        return bool(found) and found[0].sequence > (since.sequence if since else 0)

    async def portions(self, tenant_id: str, end: ChainEnd | None) -> AsyncIterator[list[SealedRecord]]:
        """Until the end, or whatever there is when no end is stored or the records stop before it."""
        after = 0
        while portion := await self._storage.audit.chain(tenant_id, after, PORTION):
            after = portion[-1].sequence
            if end is not None and end.sequence > 0:
                portion = [sealed for sealed in portion if sealed.sequence <= end.sequence]
            if portion:
                yield portion
            if end is not None and 0 < end.sequence <= after:
                return

    async def end(self, principal: Principal) -> ChainEnd | None:
        return await self._storage.audit.end(principal.tenant_id)


def _readable(keys: str) -> str:
    try:
        checker(keys)
    except ValueError as error:
        raise PluginError(f"JAMJET_AUDIT_KEYS cannot be used: {error}") from error
    return keys


class Retention:
    """Once a day, removes what is older than it may become: by the setting, and by each workflow's `data_policy`."""

    def __init__(self, storage: Storage, world: World, days: int | None) -> None:
        self._storage = storage
        self._world = world
        self._days = days
        self._next = 0

    async def look(self) -> None:
        """Called now and then."""
        now = self._world.now()
        if now < self._next:
            return
        for tenant_id in await self._tenants():
            removed = await self._shorten(tenant_id, now)
            if removed:
                log.info("%d audit records of the tenant %s were too old", removed, tenant_id)
        self._next = now + DAY

    async def _shorten(self, tenant_id: str, now: int) -> int:
        removed = 0
        async for workflow, days in self._workflows(tenant_id):
            while count := await self._storage.audit.forget(
                tenant_id, now - days * DAY, self._told(now), workflow=workflow
            ):
                removed += count
        if self._days is not None:
            removed += await self._storage.audit.forget(tenant_id, now - self._days * DAY, self._told(now))
        return removed

    async def _tenants(self) -> list[str]:
        found = [DEFAULT_TENANT]
        after: str | None = None
        while tenants := await self._storage.tenants.page(after=after, limit=PORTION):
            found += [tenant.tenant_id for tenant in tenants if tenant.tenant_id != DEFAULT_TENANT]
            after = tenants[-1].tenant_id
        return found

    async def _workflows(self, tenant_id: str) -> AsyncIterator[tuple[tuple[str, str], int]]:
        """Those that say how long their records are kept, and the days."""
        after: str | None = None
        while found := await self._storage.workflows.page(tenant_id, after=after):
            for workflow_id, version, _ in found:
                stored = await self._storage.workflows.get(tenant_id, workflow_id, version)
                if stored is not None and (days := _retention_days(stored.ir)) is not None:
                    yield (workflow_id, version), days
            after = found[-1][0]

    def _told(self, now: int) -> AuditRecord:
        return AuditRecord(self._world.new_id("audit"), FORGOTTEN, RUNTIME, now)


class _Kept(msgspec.Struct):
    retention_days: int | None = None


class _Definition(msgspec.Struct):
    data_policy: _Kept | None = None


_read = msgspec.json.Decoder(_Definition).decode


def _retention_days(ir: bytes) -> int | None:
    policy = _read(ir).data_policy
    return policy.retention_days if policy else None
