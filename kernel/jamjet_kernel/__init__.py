"""The public surface: all that a plugin may import, by name.

A plugin that adds routes finds what they are made of in `jamjet_kernel.http`, and what a runtime offers beyond its
ports in `jamjet_kernel.runtime`; there too, what `__all__` lists is public.
"""

from .context import NodeContext
from .core.events import Event, Failure, Usage
from .errors import (
    Conflict,
    Forbidden,
    Invalid,
    JamJetError,
    KeyTaken,
    NodeFailed,
    NotFound,
    PluginError,
    Problem,
    RateLimited,
    StorageError,
    Unauthenticated,
)
from .hookspecs import hookimpl, hookspec
from .ports import (
    DEFAULT_TENANT,
    Access,
    AgentCard,
    AgentProtocol,
    AuditRecord,
    Authenticator,
    Compute,
    NodeCall,
    NodeExecutor,
    NodeResult,
    Operation,
    Principal,
    Receipt,
    Role,
    Route,
    Storage,
    Token,
    Tokens,
)
from .settings import Settings

__all__ = [
    "DEFAULT_TENANT",
    "Access",
    "AgentCard",
    "AgentProtocol",
    "AuditRecord",
    "Authenticator",
    "Compute",
    "Conflict",
    "Event",
    "Failure",
    "Forbidden",
    "Invalid",
    "JamJetError",
    "KeyTaken",
    "NodeCall",
    "NodeContext",
    "NodeExecutor",
    "NodeFailed",
    "NodeResult",
    "NotFound",
    "Operation",
    "PluginError",
    "Principal",
    "Problem",
    "RateLimited",
    "Receipt",
    "Role",
    "Route",
    "Settings",
    "Storage",
    "StorageError",
    "Token",
    "Tokens",
    "Unauthenticated",
    "Usage",
    "hookimpl",
    "hookspec",
]
