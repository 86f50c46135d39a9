"""Tenants: made, looked at and changed by operators of the default tenant; its own operators may look."""

from __future__ import annotations

from typing import Any

from falcon.asgi import Request, Response

from ..ports import Tenant, TenantStatus
from ..runtime import Runtime
from ..runtime.limits import Limits
from . import cursors, models
from .answers import answer, created, optional_timestamp, timestamp
from .requests import body, no_query, principal_of, query

_NO_LIMITS = dict.fromkeys(Limits.model_fields)


class Tenants:
    def __init__(self, runtime: Runtime) -> None:
        self._tenants = runtime.tenants
        self._max_bytes = runtime.settings.max_body_bytes

    async def on_post(self, req: Request, resp: Response) -> None:
        given, once = await body(req, models.TenantCreation, self._max_bytes)
        tenant_id = await self._tenants.create(
            principal_of(req),
            given.id,
            given.name,
            policy=_policy(given) or {},
            limits=_limits(given) or {},
            once=once,
        )
        created(resp, {"tenant_id": tenant_id}, "tenants", tenant_id)

    async def on_get(self, req: Request, resp: Response) -> None:
        asked = query(req, models.Page)
        after = cursors.read(asked.cursor, tuple[cursors.Text])
        found = await self._tenants.page(principal_of(req), limit=asked.limit + 1, after=after[0] if after else None)
        shown, cursor = cursors.page(found, asked.limit, lambda tenant: (tenant.tenant_id,))
        answer(resp, {"tenants": [_view(tenant) for tenant in shown], "next_cursor": cursor})

    async def on_get_one(self, req: Request, resp: Response, tenant_id: str) -> None:
        no_query(req)
        tenant = await self._tenants.get(principal_of(req), tenant_id)
        answer(resp, {**_view(tenant), "usage": await self._tenants.spent(tenant_id)})

    async def on_put_one(self, req: Request, resp: Response, tenant_id: str) -> None:
        given, _ = await body(req, models.TenantChange, self._max_bytes)
        tenant = await self._tenants.change(
            principal_of(req),
            tenant_id,
            name=given.name if "name" in given.model_fields_set else None,
            status=TenantStatus(given.status) if "status" in given.model_fields_set else None,
            policy=_policy(given),
            limits=_limits(given),
        )
        answer(resp, _view(tenant))


def _policy(given: models.TenantCreation | models.TenantChange) -> dict[str, Any] | None:
    """None: nothing is said of it."""
    if "policy" not in given.model_fields_set:
        return None
    return given.policy.model_dump(mode="json", exclude_unset=True, exclude_none=True) if given.policy else {}


def _limits(given: models.TenantCreation | models.TenantChange) -> dict[str, Any] | None:
    """None: nothing is said of them. A limit that is None is taken away."""
    if "limits" not in given.model_fields_set:
        return None
    return given.limits.model_dump(exclude_unset=True) if given.limits else _NO_LIMITS


def _view(tenant: Tenant) -> dict[str, Any]:
    return {
        "tenant_id": tenant.tenant_id,
        "name": tenant.name,
        "status": tenant.status,
        "policy": tenant.policy,
        "limits": tenant.limits,
        "created_at": timestamp(tenant.created_at),
        "updated_at": optional_timestamp(tenant.updated_at),
    }
