"""The public surface: all that a plugin may import, by name."""

from .context import NodeContext
from .core.events import Event, Failure, Usage
from .errors import (
    Conflict,
    Forbidden,
    Invalid,
    JamJetError,
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
    Compute,
    NodeCall,
    NodeExecutor,
    NodeResult,
    Operation,
    Principal,
    Route,
    Storage,
)
from .settings import Settings

__all__ = [
    "Compute",
    "Conflict",
    "Event",
    "Failure",
    "Forbidden",
    "Invalid",
    "JamJetError",
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
    "Route",
    "Settings",
    "Storage",
    "StorageError",
    "Unauthenticated",
    "Usage",
    "hookimpl",
    "hookspec",
]
