"""Who may do what: one table, asked in one place."""

from __future__ import annotations

from .errors import Forbidden
from .ports import Access, Principal, Role

GRANTED: dict[Access, tuple[Role, ...]] = {
    Access.READ: (Role.VIEWER, Role.REVIEWER, Role.DEVELOPER, Role.OPERATOR),
    Access.WRITE: (Role.DEVELOPER, Role.OPERATOR),
    # Beyond the contract's table: to decide approvals is what a reviewer is for.
    Access.DECIDE: (Role.REVIEWER, Role.DEVELOPER, Role.OPERATOR),
    Access.ADMIN: (Role.OPERATOR,),
}


def check(principal: Principal, access: Access) -> None:
    """Raises `Forbidden`, in the contract's words."""
    granted = GRANTED[access]
    if principal.role not in granted:
        *others, last = granted
        required = f"{', '.join(others)} or {last}" if others else last
        raise Forbidden(f"insufficient role — {required} required")
