"""Where plugins come from: stevedore finds and imports them, pluggy checks and calls them.

stevedore forgives by default; we do not: what is broken, missing or contradictory stops the start and is named.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import pluggy
from pydantic import BaseModel
from stevedore import NamedExtensionManager

from . import hookspecs
from .errors import JamJetError, PluginError
from .ports import Compute, Database, NodeExecutor, Storage
from .settings import Settings

PLUGINS, DRIVERS = "jamjet.plugins", "jamjet.storage"


def load(settings: Settings) -> pluggy.PluginManager:
    """The storage driver and the plugins that the settings choose, imported and registered, no others.

    Hooks are called in the order of the settings, without one in that of the names; the driver comes last.
    """
    manager = _manager()
    _register(manager, DRIVERS, scheme_of(settings.database_url))
    # pluggy calls the last registered first.
    for name in reversed(settings.plugins or names(PLUGINS)):
        _register(manager, PLUGINS, name)
    return manager


def _manager() -> pluggy.PluginManager:
    manager = pluggy.PluginManager("jamjet")
    manager.add_hookspecs(hookspecs)
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
    with _naming_the_failed(manager.hook.open_storage):
        storage = manager.hook.open_storage(url=settings.database_url, settings=settings)
    if storage is None:
        raise PluginError(f"no storage plugin answers for {scheme_of(settings.database_url)!r}")
    return storage  # type: ignore[no-any-return]  # the hook's specification says what it is


def open_database(settings: Settings) -> Database:
    """Without a runtime. Raises `PluginError` where the driver does not offer it."""
    manager = _manager()
    _register(manager, DRIVERS, scheme_of(settings.database_url))
    with _naming_the_failed(manager.hook.open_database):
        database = manager.hook.open_database(url=settings.database_url, settings=settings)
    if database is None:
        raise PluginError(
            f"the storage {scheme_of(settings.database_url)!r} cannot be upgraded or copied from here: "
            "its driver does not offer it (the hook open_database)"
        )
    return database  # type: ignore[no-any-return]  # as above


def open_compute(manager: pluggy.PluginManager, settings: Settings) -> Compute:
    with _naming_the_failed(manager.hook.open_compute):
        compute = manager.hook.open_compute(url=settings.compute, settings=settings)
    if compute is None:
        raise PluginError(f"no plugin knows the compute {settings.compute!r}; 'local' is always there")
    return compute  # type: ignore[no-any-return]  # as above


def node_executors(manager: pluggy.PluginManager, settings: Settings, compute: Compute) -> dict[str, NodeExecutor]:
    """By kind. Raises `PluginError` where two plugins bring the same kind, or one that the core decides itself."""
    from .core.definition import CONTROL_KINDS

    found: dict[str, NodeExecutor] = {}
    for executor in contributed(manager.hook.node_executors, settings=settings, compute=compute):
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


def observers(manager: pluggy.PluginManager) -> list[Observer]:
    """Who is told of committed events, each by itself: pluggy stops at the first that raises."""

    def observer(implementation: pluggy.HookImpl) -> Observer:
        names = implementation.argnames
        return lambda told: implementation.function(*(told[name] for name in names))

    return [observer(each) for each in reversed(manager.hook.events_recorded.get_hookimpls())]


Observer = Callable[[Mapping[str, Any]], object]


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
    except (Exception, SystemExit) as broken:  # whatever a stranger's import raises is what we want to show
        error = f"{type(broken).__name__}: {broken}"
    name, version = (point.dist.name, point.dist.version) if point.dist else ("?", "?")
    return InstalledPlugin(point.name, point.group, point.value, name, version, hooks, error)


def _hooks_of(plugin: object) -> list[str]:
    manager = pluggy.PluginManager("jamjet")
    return [name for name in dir(plugin) if manager.parse_hookimpl_opts(plugin, name) is not None]


def _register(manager: pluggy.PluginManager, group: str, name: str) -> None:
    add(manager, _import(group, name), f"{group.removeprefix('jamjet.')}:{name}")


def add(manager: pluggy.PluginManager, plugin: object, name: str | None = None) -> None:
    """Registers it as `group:name`, or without a name. Raises `PluginError` where it does not fit the hooks."""
    known_as = name.partition(":")[2] if name else plugin
    try:
        manager.register(plugin, name=name)
        manager.check_pending()
    except pluggy.PluginValidationError as error:
        raise PluginError(f"the plugin {known_as!r} does not fit the hooks: {error}") from error
    except ValueError as error:
        raise PluginError(f"the plugin {known_as!r} is chosen twice, or by two names") from error


def _import(group: str, name: str) -> object:
    found = [point for point in entry_points(group=group) if point.name == name]
    word = "storage" if group == DRIVERS else "plugin"
    if not found:
        raise PluginError(f"no {word} named {name!r}; installed: {', '.join(names(group)) or 'none'}")
    if len(found) > 1:
        origins = ", ".join(f"{_distribution(point)} ({point.value})" for point in found)
        raise PluginError(f"{len(found)} of the installed {word}s are named {name!r}: {origins}")

    def refuse(_manager: Any, point: EntryPoint, error: BaseException) -> None:
        origin = f"{point.value} of {_distribution(found[0])}"
        raise PluginError(f"the {word} {name!r} ({origin}) cannot be imported: {error!r}") from error

    try:
        return _Installed(group, [name], on_load_failure_callback=refuse).extensions[0].plugin
    except (AssertionError, SystemExit) as error:  # stevedore lets these pass
        refuse(None, found[0], error)
        raise


class _Installed(NamedExtensionManager[Any]):
    """stevedore, asking what is installed now.

    Its own list is kept for the life of the process, and on the disk under times that are rounded to two minutes:
    what was just installed again may be missing from it.
    """

    def list_entry_points(self) -> list[EntryPoint]:
        return list(entry_points(group=self.namespace))


def _distribution(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist else "an unknown distribution"


def contributed(hook: pluggy.HookCaller, **arguments: Any) -> list[Any]:
    """What all plugins answer, in the order of the settings. Raises `PluginError` with the name of who failed."""
    with _naming_the_failed(hook):
        return [contribution for batch in hook(**arguments) for contribution in _listed(hook, batch)]


def _listed(hook: pluggy.HookCaller, batch: object) -> Iterable[Any]:
    if not isinstance(batch, Iterable):
        plugins = ", ".join(repr(each.plugin_name) for each in hook.get_hookimpls())
        raise PluginError(f"{hook.name} takes a list, and got {batch!r} from one of {plugins}")
    return batch


@contextmanager
def _naming_the_failed(hook: pluggy.HookCaller) -> Iterator[None]:
    """Whatever a plugin raises becomes a `PluginError` that says whose it is."""
    try:
        yield
    except JamJetError:
        raise
    except Exception as error:
        plugin = _failed(hook, error) or "a plugin"
        raise PluginError(f"{plugin} failed in {hook.name}: {type(error).__name__}: {error}") from error


def _failed(hook: pluggy.HookCaller, error: Exception) -> str | None:
    """The plugin whose implementation the error passed through."""
    plugins = {getattr(each.function, "__code__", None): each.plugin_name for each in hook.get_hookimpls()}
    frames = (frame.f_code for frame, _ in traceback.walk_tb(error.__traceback__))
    return next((f"the plugin {plugins[code]!r}" for code in frames if code in plugins), None)


def _check_executor(executor: object) -> None:
    if not isinstance(executor, NodeExecutor):
        raise PluginError(f"{executor!r} is no node executor: it needs kind, config and execute(call)")
    if not isinstance(executor.kind, str) or not executor.kind:
        raise PluginError(f"{_origin(executor)} is for no kind of node: its kind is {executor.kind!r}, not a name")
    if not isinstance(executor.config, type) or not issubclass(executor.config, BaseModel):
        raise PluginError(f"the config of {_origin(executor)} is {executor.config!r}, not a class of pydantic models")


def _origin(executor: NodeExecutor) -> str:
    return f"{type(executor).__module__}.{type(executor).__qualname__}"
