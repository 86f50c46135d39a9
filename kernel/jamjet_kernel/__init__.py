"""The public surface: all that a plugin may import, by name.

The kit for plugin tests, `jamjet_kernel.testing`, is the one public module beside it.
"""

from typing import TYPE_CHECKING

from .context import NodeContext
from .core import events
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
    Approvals,
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
    Route,
    Snapshot,
    Storage,
    Timer,
    Timers,
    Work,
    Workflows,
    WorkflowVersion,
    WorkItem,
)
from .settings import Settings

if TYPE_CHECKING:
    from .runtime import Runtime

__all__ = [
    "Approvals",
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
    "Route",
    "Runtime",
    "SequenceConflict",
    "Settings",
    "Snapshot",
    "Status",
    "Storage",
    "StorageError",
    "Timer",
    "Timers",
    "Unauthenticated",
    "Usage",
    "Work",
    "WorkItem",
    "WorkflowVersion",
    "Workflows",
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
