"""From settings to a runtime that runs, and back."""

from __future__ import annotations

import asyncio
import gc
import importlib.metadata
import logging
from collections.abc import AsyncIterator, Coroutine, Iterable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from typing import Any

from .. import plugins
from ..errors import StorageError
from ..settings import Settings
from .identity import load_identity
from .runtime import Runtime
from .world import World

log = logging.getLogger("jamjet.runtime")

DISTRIBUTION = "jamjet-runtime"


@asynccontextmanager
async def open_runtime(
    settings: Settings | None = None, *, world: World | None = None, extra_plugins: Iterable[object] = ()
) -> AsyncIterator[Runtime]:
    """A runtime that has taken up whatever it was doing before it stopped. Raises `PluginError`.

    In the end it takes up nothing more, lets running nodes finish, and leaves what is not done to others: so the
    stack holds first what must last until the process has left.

    `extra_plugins` need no entry point: what a program that embeds the runtime brings of its own.
    """
    settings = settings or Settings()
    manager = plugins.load(settings)
    for plugin in extra_plugins:
        plugins.add(manager, plugin)
    async with AsyncExitStack() as stack:
        stack.enter_context(_patient_garbage_collection())
        compute = plugins.open_compute(manager, settings)
        stack.push_async_callback(compute.close)
        if start := getattr(compute, "start", None):
            await start()
        executors = plugins.node_executors(manager, settings, compute)
        for executor in executors.values():
            if close := getattr(executor, "close", None):
                stack.push_async_callback(close)
        storage = plugins.open_storage(manager, settings)
        stack.push_async_callback(storage.close)
        version = importlib.metadata.version(DISTRIBUTION)
        identity = load_identity(settings)
        storage.audit.sign_with(identity.sign)
        runtime = Runtime(settings, storage, manager, executors, identity=identity, version=version, world=world)
        await _run(stack, runtime.gossip.listen())
        await _run(stack, runtime.gossip.speak())
        await runtime.membership.join()
        stack.push_async_callback(runtime.gossip.say_goodbye)
        stack.push_async_callback(runtime.membership.leave)
        stack.push_async_callback(runtime.finish)
        await _run(stack, runtime.readiness.run())
        await runtime.tenants.prepare()
        stack.push_async_callback(runtime.refusals.write)
        await _run(stack, runtime.refusals.run())
        await _run(stack, runtime.journal.run())
        stack.push_async_callback(runtime.journal.drain)
        stack.push_async_callback(runtime.deliveries.stop)
        await _run(stack, runtime.alarms.run(lambda until: _refill(runtime, until)))
        stack.push_async_callback(runtime.worker.stop, settings.shutdown_grace)
        await runtime.recovery.look()
        await _run(stack, runtime.recovery.run())
        await _run(stack, runtime.remote.claims.run())
        await _run(stack, runtime.inventory.run())
        await _run(stack, _refresh(runtime))
        stack.callback(runtime.patience.end)
        stack.callback(runtime.drain)
        for lifespan in plugins.contributed(manager.hook.lifespans, runtime=runtime):
            await stack.enter_async_context(lifespan)
        runtime.ready = True
        yield runtime


@contextmanager
def _patient_garbage_collection() -> Iterator[None]:
    """Progress is plain data without cycles, made and dropped by the thousand: looking through all of it at
    the default pace costs a quarter of the throughput (measured with 1,000 executions at once)."""
    before = gc.get_threshold()
    gc.set_threshold(50_000, 20, 50)
    try:
        yield
    finally:
        gc.set_threshold(*before)


async def _run(stack: AsyncExitStack, work: Coroutine[Any, Any, None]) -> None:
    task = asyncio.create_task(work)

    async def end() -> None:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    stack.push_async_callback(end)


async def _refresh(runtime: Runtime) -> None:
    """What hints did not tell of who is watched."""
    while not runtime.storage.exclusive:
        await asyncio.sleep(runtime.settings.poll_seconds)
        try:
            await runtime.lives.refresh()
        except StorageError as error:
            log.warning("cannot look what became of the executions that are watched: %s", error)


async def _refill(runtime: Runtime, until: int) -> None:
    try:
        await runtime.recovery.timers(until)
    except StorageError as error:
        log.warning("cannot look for timers that are due soon: %s", error)
        runtime.recovery.wake_for_all()
        runtime.inventory.doubt()
        return
    day = runtime.settings.receipt_hours * 3_600_000
    await runtime.storage.receipts.forget(runtime.world.now() - day)
    await runtime.retention.look()
