"""The extension API, on one page.

A plugin is a module (or object) with `@hookimpl` functions, found by an entry point of the group `jamjet.plugins`;
a storage driver by one of the group `jamjet.storage` whose name is its URL's scheme. Hooks build the
runtime, ports run it: a hook is called at start-up or after a commit, never per request, and what it returns is used
from then on. An implementation takes only the arguments it uses.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from .core.events import Event
    from .ports import AgentProtocol, Authenticator, Compute, Database, NodeExecutor, Route, Storage
    from .runtime import Runtime, World
    from .settings import Settings

# mypy: disable-error-code="empty-body"

hookspec = pluggy.HookspecMarker("jamjet")
hookimpl = pluggy.HookimplMarker("jamjet")


@hookspec(firstresult=True)
def open_storage(url: str, settings: Settings) -> Storage | None:
    """Asked at start-up of the driver that the URL's scheme names. Opens the database, creates its tables where they
    are missing, and raises `PluginError` when it cannot be used. None: not my kind of URL."""


@hookspec(firstresult=True)
def open_database(url: str, settings: Settings) -> Database | None:
    """Asked by `jamjet db` of the driver that the URL's scheme names; no runtime runs. A driver without it cannot have
    its databases upgraded or copied by the command. None: not my kind of URL."""


@hookspec(firstresult=True)
def open_compute(url: str, settings: Settings) -> Compute | None:
    """Asked at start-up where Python functions run. None: not my kind of URL."""


@hookspec
def authenticators(settings: Settings, storage: Storage, world: World) -> Iterable[Authenticator]:
    """Asked at start-up for what proves who calls. Per request they are asked in the order of the plugins. The world
    knows what time it is."""


@hookspec
def node_executors(settings: Settings, compute: Compute) -> Iterable[NodeExecutor]:
    """Asked at start-up for one executor per node kind. A second one for a kind is an error that names both."""


@hookspec
def agent_protocols(settings: Settings) -> Iterable[AgentProtocol]:
    """Asked at start-up for the protocols that agents are reached by."""


@hookspec
def http_routes(runtime: Runtime) -> Iterable[Route]:
    """Asked when the HTTP application is built. The routes appear in the OpenAPI document as well."""


@hookspec
def lifespans(runtime: Runtime) -> Iterable[AbstractAsyncContextManager[object]]:
    """Asked at start-up. Entered in order once the runtime runs, left in reverse before it stops."""


@hookspec
def events_recorded(tenant_id: str, execution_id: str, events: Sequence[Event]) -> None:
    """These events have just been committed. Called on the event loop: must not block, cannot veto."""
