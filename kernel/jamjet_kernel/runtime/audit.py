"""What is audited, put into words."""

from __future__ import annotations

from typing import Any

import msgspec

from ..ports import AuditRecord, Principal
from .world import World


def audited(
    world: World,
    principal: Principal,
    event_type: str,
    *,
    resource: str | None = None,
    execution_id: str | None = None,
    **data: Any,
) -> AuditRecord:
    """One change that the principal made. What is None in `data` is left out."""
    told = {name: value for name, value in data.items() if value is not None}
    return AuditRecord(
        audit_id=world.new_id("audit"),
        event_type=event_type,
        actor_id=principal.id,
        created_at=world.now(),
        execution_id=execution_id,
        resource=resource,
        request_id=principal.request_id,
        address=principal.address,
        data=msgspec.json.encode(told),
    )
