"""Tenants: whose things they are, and under which terms."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ..core.definition import Policy
from ..errors import Conflict, Forbidden, NotFound, RateExceeded, StorageError
from ..ports import DEFAULT_TENANT, Access, Principal, Receipt, Role, Spent, Storage, Tenant, TenantStatus
from .audit import audited
from .gathering import Gathering, each
from .limits import NO_LIMITS, LastMinute, Limits, check_start, month_of
from .world import World

if TYPE_CHECKING:
    from .runtime import Once, Runtime

TENANT_ID = r"[a-z0-9][a-z0-9_-]{0,62}"
SECONDS_KNOWN = 5.0
"""How long another process may go on under terms that were changed here."""

_RACES = 20
_REMEMBERED = 10_000


@dataclass(frozen=True, slots=True)
class Terms:
    """What a tenant's things run under. `tenant` is None where there is none of that name."""

    tenant: Tenant | None
    policies: tuple[Policy, ...] = ()
    limits: Limits = NO_LIMITS


class KnownTerms:
    """Asked for with every request and every event, so they are kept: a request reads no database for them."""

    def __init__(self, storage: Storage, world: World) -> None:
        self._storage = storage
        self._world = world
        self._known: dict[str, tuple[Terms, float]] = {}
        self._changes = 0
        self._stored = Gathering(each(storage.tenants.get))

    async def get(self, tenant_id: str) -> Terms:
        known = self._known.get(tenant_id)
        if known is not None and (self._storage.exclusive or self._world.stopwatch() < known[1]):
            return known[0]
        changes = self._changes
        terms = _terms(await self._stored.get(tenant_id))
        if changes == self._changes:  # else what was read may be older than what was changed meanwhile
            self._keep(tenant_id, terms)
        return terms

    def changed(self, tenant_id: str) -> None:
        self._changes += 1
        self._known.pop(tenant_id, None)

    def _keep(self, tenant_id: str, terms: Terms) -> None:
        if len(self._known) >= _REMEMBERED:
            self._known.clear()
        self._known[tenant_id] = (terms, self._world.stopwatch() + SECONDS_KNOWN * 1000)


def _terms(tenant: Tenant | None) -> Terms:
    if tenant is None:
        return Terms(None)
    policies = (Policy.model_validate(tenant.policy),) if tenant.policy else ()
    return Terms(tenant, policies, Limits.model_validate(tenant.limits))


class Tenants:
    """A tenant is made and changed by operators of the default tenant; its own operators may look at it."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._storage = runtime.storage
        self._world = runtime.world
        self._terms = KnownTerms(runtime.storage, runtime.world)
        self._requests: dict[str, LastMinute] = {}

    async def terms(self, tenant_id: str) -> Terms:
        return await self._terms.get(tenant_id)

    async def prepare(self) -> None:
        """The default tenant is there from the first start."""
        if await self._storage.tenants.get(DEFAULT_TENANT) is None:
            try:
                await self._storage.tenants.add(Tenant(DEFAULT_TENANT, "Default", self._world.now()))
            except Conflict:  # another process was faster
                pass

    # Per request

    async def admit(
        self, caller: Principal, access: Access, *, acting_for: str | None = None, changes: bool
    ) -> Principal:
        """The caller, as one of the tenant that the request is for.

        Raises `Forbidden` where the tenant's status does not allow it, `RateExceeded` for too many requests. Neither
        hinders an operator of the default tenant who acts for another one, nor administration in the default tenant.
        """
        if acting_for is not None:
            return await self._acting(caller, acting_for)
        terms = await self._terms.get(caller.tenant_id)
        _check_status(caller.tenant_id, terms.tenant, changes)
        limit = terms.limits.requests_per_minute
        if limit is not None and not (access is Access.ADMIN and caller.tenant_id == DEFAULT_TENANT):
            self._count_request(caller.tenant_id, limit)
        return caller

    async def _acting(self, caller: Principal, tenant_id: str) -> Principal:
        if not _administers(caller):
            raise Forbidden("only operators of the default tenant may act for another tenant (X-JamJet-Tenant)")
        if (await self._known(tenant_id)).tenant is None:
            raise NotFound(f"tenant {tenant_id}")
        return replace(caller, tenant_id=tenant_id)

    async def _known(self, tenant_id: str) -> Terms:
        return await self._terms.get(tenant_id) if re.fullmatch(TENANT_ID, tenant_id) else Terms(None)

    def _count_request(self, tenant_id: str, limit: int) -> None:
        last_minute = self._requests.setdefault(tenant_id, LastMinute())
        wait = last_minute.take(limit, self._world.stopwatch())
        if wait is not None:
            raise RateExceeded("requests_per_minute", limit, wait)

    async def check_start(self, tenant_id: str) -> None:
        """Whether one more execution may start now. Raises `LimitReached` or `RateExceeded`."""
        terms = await self._terms.get(tenant_id)
        await check_start(self._storage, tenant_id, terms.limits, self._world.now())

    # Use cases

    async def create(
        self,
        principal: Principal,
        tenant_id: str,
        name: str,
        *,
        policy: Mapping[str, Any],
        limits: Mapping[str, Any],
        once: Once | None = None,
    ) -> str:
        """Raises `Conflict` when it is there, `Forbidden` for operators of other tenants than the default one."""
        _check_administers(principal)
        tenant = Tenant(tenant_id, name, self._world.now(), policy=policy, limits=_set(limits))
        record = audited(
            self._world,
            principal,
            "tenant_created",
            resource=f"tenant/{tenant_id}",
            name=name,
            policy=tenant.policy or None,
            limits=tenant.limits or None,
        )

        async def add(receipt: Receipt | None) -> None:
            await self._storage.tenants.add(tenant, receipt, [record])
            self._terms.changed(tenant_id)

        return await self._runtime.once(principal, once, tenant_id, add)

    async def page(self, principal: Principal, *, limit: int = 50, after: str | None = None) -> list[Tenant]:
        """Those that the principal may see."""
        if _administers(principal):
            return await self._storage.tenants.page(limit=limit, after=after)
        own = await self._storage.tenants.get(principal.tenant_id)
        return [own] if own is not None and (after is None or after < own.tenant_id) else []

    async def get(self, principal: Principal, tenant_id: str) -> Tenant:
        """Raises `NotFound`, for one that the principal may not see too."""
        visible = _administers(principal) or tenant_id == principal.tenant_id
        if not visible or (found := await self._storage.tenants.get(tenant_id)) is None:
            raise NotFound(f"tenant {tenant_id}")
        return found

    async def spent(self, tenant_id: str) -> Spent:
        """This month."""
        return await self._storage.tenants.spent(tenant_id, month_of(self._world.now()))

    async def change(
        self,
        principal: Principal,
        tenant_id: str,
        *,
        name: str | None = None,
        status: TenantStatus | None = None,
        policy: Mapping[str, Any] | None = None,
        limits: Mapping[str, Any] | None = None,
    ) -> Tenant:
        """What is None stays as it is. The limits are put over those there are; one that is None in them is taken
        away."""
        for _ in range(_RACES):
            before = await self.get(principal, tenant_id)
            _check_administers(principal)
            changed = _changed(before, name, status, policy, limits)
            if changed == before:
                return before
            after = replace(changed, updated_at=self._world.now())
            if await self._replace(principal, before, after):
                return after
        raise StorageError(f"the tenant {tenant_id} is changed by others faster than this could be")

    async def _replace(self, principal: Principal, before: Tenant, after: Tenant) -> bool:
        changes = _differences(before, after)
        record = audited(
            self._world, principal, "tenant_updated", resource=f"tenant/{before.tenant_id}", changes=changes
        )
        done = await self._storage.tenants.change(after, before, [record])
        self._terms.changed(before.tenant_id)
        return done


def _check_status(tenant_id: str, tenant: Tenant | None, changes: bool) -> None:
    match tenant and tenant.status:
        case TenantStatus.ACTIVE:
            pass
        case TenantStatus.SUSPENDED:
            if changes:
                raise Forbidden(f"the tenant {tenant_id} is suspended: it may be looked at, and not changed")
        case TenantStatus.ARCHIVED:
            raise Forbidden(f"the tenant {tenant_id} is archived: nothing of it is served any more")
        case _:
            raise Forbidden(f"there is no tenant {tenant_id}")


def _administers(principal: Principal) -> bool:
    return principal.tenant_id == DEFAULT_TENANT and principal.role is Role.OPERATOR


def _check_administers(principal: Principal) -> None:
    if not _administers(principal):
        raise Forbidden("only operators of the default tenant make and change tenants")


def _changed(
    tenant: Tenant,
    name: str | None,
    status: TenantStatus | None,
    policy: Mapping[str, Any] | None,
    limits: Mapping[str, Any] | None,
) -> Tenant:
    if tenant.tenant_id == DEFAULT_TENANT and status not in (None, TenantStatus.ACTIVE):
        raise Conflict("the default tenant stays active: nobody could bring it back")
    return replace(
        tenant,
        name=tenant.name if name is None else name,
        status=status or tenant.status,
        policy=tenant.policy if policy is None else policy,
        limits=tenant.limits if limits is None else _set({**tenant.limits, **limits}),
    )


def _set(limits: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in limits.items() if value is not None}


def _differences(before: Tenant, after: Tenant) -> dict[str, Any]:
    changed = [name for name in ("name", "status", "policy", "limits") if getattr(before, name) != getattr(after, name)]
    return {name: getattr(after, name) for name in changed}
