"""Posts the id of every execution that has ended to the URL in WEBHOOK_URL."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import httpx

from jamjet_kernel import Event, PluginError, events, hookimpl

ENDS = (events.WorkflowCompleted, events.WorkflowFailed, events.WorkflowCancelled)
log = logging.getLogger("webhook")


class Webhook:
    """The observer must not block, so it leaves the id in a queue; the lifespan owns the task that may wait."""

    def __init__(self) -> None:
        self._ended: asyncio.Queue[str] = asyncio.Queue()

    @hookimpl
    def events_recorded(self, execution_id: str, events: Sequence[Event]) -> None:
        if any(isinstance(event, ENDS) for event in events):
            self._ended.put_nowait(execution_id)

    @hookimpl
    def lifespans(self) -> Iterable[AbstractAsyncContextManager[object]]:
        if "WEBHOOK_URL" not in os.environ:
            raise PluginError("the plugin 'webhook' needs the environment variable WEBHOOK_URL")
        return [self._posting(os.environ["WEBHOOK_URL"])]

    @asynccontextmanager
    async def _posting(self, url: str) -> AsyncIterator[None]:
        async with httpx.AsyncClient(timeout=5) as client, asyncio.TaskGroup() as tasks:
            task = tasks.create_task(self._post_all(client, url))
            yield
            await self._ended.join()
            task.cancel()

    async def _post_all(self, client: httpx.AsyncClient, url: str) -> None:
        while True:
            execution_id = await self._ended.get()
            try:
                (await client.post(url, json={"execution_id": execution_id})).raise_for_status()
            except httpx.HTTPError as error:
                log.warning("cannot tell %s about %s: %s", url, execution_id, error)
            self._ended.task_done()


webhook = Webhook()
