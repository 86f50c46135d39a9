"""Where plugins come from: stevedore finds and imports them, pluggy checks and calls them.

stevedore forgives by default; we do not: what is broken, missing or contradictory stops the start and is named.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import pluggy
from pydantic import BaseModel
from stevedore import NamedExtensionManager

from . import hookspecs
from .errors import PluginError
from .ports import Compute, NodeExecutor, Storage
from .settings import Settings

PLUGINS, DRIVERS = "jamjet.plugins", "jamjet.storage"


def load(settings: Settings) -> pluggy.PluginManager:
    """The storage driver and the plugins that the settings choose, imported and registered, no others.

    pluggy calls the last registered first, so the settings' first comes last.
    """
    manager = pluggy.PluginManager("jamjet")
    manager.add_hookspecs(hookspecs)
    _register(manager, DRIVERS, [scheme_of(settings.database_url)])
    _register(manager, PLUGINS, list(settings.plugins or names(PLUGINS)))
    try:
        manager.check_pending()
    except pluggy.PluginValidationError as error:
        raise PluginError(f"plugin {error.plugin!r} does not fit the hooks: {error}") from error
    return manager


def names(group: str) -> list[str]:
    """The names of all that is installed, without importing any of it."""
    return sorted({point.name for point in entry_points(group=group)})


def scheme_of(url: str) -> str:
    """`postgresql+psycopg://…` is answered by the driver `postgresql`; a plain path is SQLite's."""
    scheme, found, _ = url.partition("://")
    name = scheme.partition("+")[0].lower() if found else "sqlite"
    return {"postgres": "postgresql"}.get(name, name)


def open_storage(manager: pluggy.PluginManager, settings: Settings) -> Storage:
    storage = manager.hook.open_storage(url=settings.database_url, settings=settings)
    if storage is None:
        raise PluginError(f"no storage plugin answers for {scheme_of(settings.database_url)!r}")
    return storage  # type: ignore[no-any-return]  # the hook's specification says what it is


def open_compute(manager: pluggy.PluginManager, settings: Settings) -> Compute:
    compute = manager.hook.open_compute(url=settings.compute, settings=settings)
    if compute is None:
        raise PluginError(f"no plugin knows the compute {settings.compute!r}; 'local' is always there")
    return compute  # type: ignore[no-any-return]  # as above


def node_executors(manager: pluggy.PluginManager, settings: Settings, compute: Compute) -> dict[str, NodeExecutor]:
    """By kind. Raises `PluginError` where two plugins bring the same kind, or one that the core decides itself."""
    from .core.definition import CONTROL_KINDS

    found: dict[str, NodeExecutor] = {}
    for batch in manager.hook.node_executors(settings=settings, compute=compute):
        for executor in batch:
            _check_executor(executor)
            other = "the kernel" if executor.kind in CONTROL_KINDS else None
            if executor.kind in found:
                other = _origin(found[executor.kind])
            if other:
                raise PluginError(f"two executors for the kind {executor.kind!r}: {_origin(executor)} and {other}")
            found[executor.kind] = executor
    return found


def load_kinds(settings: Settings) -> Mapping[str, type[BaseModel]]:
    """The configurations of the installed node kinds, without opening any storage: what `validate` needs."""
    manager = load(settings)
    compute = open_compute(manager, settings)
    return {kind: executor.config for kind, executor in node_executors(manager, settings, compute).items()}


@dataclass(frozen=True)
class InstalledPlugin:
    """One entry point, imported to see which hooks it implements; `error` where that failed."""

    name: str
    group: str
    module: str
    distribution: str
    version: str
    hooks: list[str] = field(default_factory=list)
    error: str | None = None


def installed() -> list[InstalledPlugin]:
    points = [point for group in (DRIVERS, PLUGINS) for point in entry_points(group=group)]
    return [_describe(point) for point in sorted(points, key=lambda point: (point.group, point.name))]


def _describe(point: EntryPoint) -> InstalledPlugin:
    hooks: list[str] = []
    error = None
    try:
        hooks = sorted(_hooks_of(point.load()))
    except Exception as broken:  # whatever a stranger's import raises is what we want to show
        error = f"{type(broken).__name__}: {broken}"
    name, version = (point.dist.name, point.dist.version) if point.dist else ("?", "?")
    return InstalledPlugin(point.name, point.group, point.value, name, version, hooks, error)


def _hooks_of(plugin: object) -> list[str]:
    manager = pluggy.PluginManager("jamjet")
    return [name for name in dir(plugin) if manager.parse_hookimpl_opts(plugin, name) is not None]


def _register(manager: pluggy.PluginManager, group: str, wanted: Iterable[str]) -> None:
    for name in wanted:
        manager.register(_import(group, name), name=f"{group.removeprefix('jamjet.')}:{name}")


def _import(group: str, name: str) -> object:
    known = names(group)
    if name not in known:
        word = "storage" if group == DRIVERS else "plugin"
        raise PluginError(f"no {word} named {name!r}; installed: {', '.join(known) or 'none'}")

    def refuse(_manager: Any, point: Any, error: BaseException) -> None:
        raise PluginError(f"the plugin {name!r} ({point.value}) cannot be imported: {error!r}") from error

    found = NamedExtensionManager(group, [name], on_load_failure_callback=refuse).extensions
    if len(found) != 1:
        raise PluginError(f"{len(found)} installed plugins are named {name!r} in {group}; there must be one")
    return found[0].plugin


def _check_executor(executor: object) -> None:
    if not isinstance(executor, NodeExecutor) or not isinstance(getattr(executor, "config", None), type):
        raise PluginError(f"{executor!r} is no node executor: it needs kind, config and execute(call)")


def _origin(executor: NodeExecutor) -> str:
    return f"{type(executor).__module__}.{type(executor).__qualname__}"
