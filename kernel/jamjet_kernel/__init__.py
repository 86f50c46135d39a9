"""The public surface: all that a plugin may import, by name.

Three modules beside it are public, by what their `__all__` lists: `jamjet_kernel.http`, what a plugin's routes are made
of; `jamjet_kernel.runtime`, what a runtime offers beyond its ports; `jamjet_kernel.testing`, the kit for plugin tests.
"""

from typing import TYPE_CHECKING

from .context import NodeContext
from .core import chain, events
from .core.events import Event, Failure, Usage
from .core.progress import Status
from .errors import (
    Conflict,
    Forbidden,
    Invalid,
    InvalidTransition,
    JamJetError,
    KeyTaken,
    LeaseLost,
    LimitReached,
    NodeFailed,
    NotFound,
    PluginError,
    Problem,
    RateLimited,
    SequenceConflict,
    StorageError,
    Unauthenticated,
)
from .hookspecs import hookimpl, hookspec
from .ports import (
    DEFAULT_TENANT,
    Access,
    Agent,
    AgentCard,
    AgentProtocol,
    Agents,
    AgentStatus,
    Approvals,
    Audit,
    AuditRecord,
    Authenticator,
    Commit,
    Compute,
    Delivery,
    Executions,
    Head,
    Loaded,
    NodeCall,
    NodeExecutor,
    NodeResult,
    OpenApproval,
    Operation,
    Principal,
    Receipt,
    Receipts,
    Recorded,
    Role,
    Route,
    SealedRecord,
    Snapshot,
    Spent,
    Storage,
    Tenant,
    Tenants,
    TenantStatus,
    Timer,
    Timers,
    Token,
    Tokens,
    Work,
    Workflows,
    WorkflowVersion,
    WorkItem,
)
from .settings import Settings

if TYPE_CHECKING:
    from .runtime import Runtime

__all__ = [
    "DEFAULT_TENANT",
    "Access",
    "Agent",
    "AgentCard",
    "AgentProtocol",
    "AgentStatus",
    "Agents",
    "Approvals",
    "Audit",
    "AuditRecord",
    "Authenticator",
    "Commit",
    "Compute",
    "Conflict",
    "Delivery",
    "Event",
    "Executions",
    "Failure",
    "Forbidden",
    "Head",
    "Invalid",
    "InvalidTransition",
    "JamJetError",
    "KeyTaken",
    "LeaseLost",
    "LimitReached",
    "Loaded",
    "NodeCall",
    "NodeContext",
    "NodeExecutor",
    "NodeFailed",
    "NodeResult",
    "NotFound",
    "OpenApproval",
    "Operation",
    "PluginError",
    "Principal",
    "Problem",
    "RateLimited",
    "Receipt",
    "Receipts",
    "Recorded",
    "Role",
    "Route",
    "Runtime",
    "SealedRecord",
    "SequenceConflict",
    "Settings",
    "Snapshot",
    "Spent",
    "Status",
    "Storage",
    "StorageError",
    "Tenant",
    "TenantStatus",
    "Tenants",
    "Timer",
    "Timers",
    "Token",
    "Tokens",
    "Unauthenticated",
    "Usage",
    "Work",
    "WorkItem",
    "WorkflowVersion",
    "Workflows",
    "chain",
    "events",
    "hookimpl",
    "hookspec",
]


def __getattr__(name: str) -> object:
    # A plugin names the runtime in annotations; the kernel's own modules come here first and must not need it.
    if name == "Runtime":
        from .runtime import Runtime

        return Runtime
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
