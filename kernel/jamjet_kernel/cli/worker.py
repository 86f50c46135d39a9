"""A remote worker: claims work of some queues, calls Python functions of the modules it was given, brings the results.

Rule: whatever is asked of the runtime may find it away, restarted or slow; whatever runs may be another's by now.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from fnmatch import fnmatchcase
from typing import Any

from pydantic import BaseModel, ValidationError

from ..errors import NodeFailed, RateLimited
from ..nodes.compute import LocalCompute
from ..nodes.python_fn import PythonFn, PythonFnExecutor
from ..nodes.tool import Tool, ToolExecutor
from ..ports import NodeCall, NodeExecutor, NodeResult
from ..results import as_json, jsonable
from .client import Json, Refused
from .failures import CommandFailed
from .wire import WAIT, Away, Gone, TooLarge, Wire

log = logging.getLogger("jamjet.worker")

_YEAR = 31_536_000
_LONGEST_MESSAGE = 100_000

_OF_THE_ITEM = (400, 500)
"""Refusals that are about this result; others are about this worker."""

_LAST_WORD = 3
"""Seconds to give back what does not get finished."""


class Work:
    """One item, from the claim until nobody here has to do with it any more."""

    def __init__(self, item: Json) -> None:
        self.item = item
        self.name = f"{item['node_id']} of {item['execution_id']}"
        self.is_lost = False
        self.claimed_at = time.monotonic()

    @property
    def duration_ms(self) -> float:
        return round((time.monotonic() - self.claimed_at) * 1000, 3)


class Worker:
    """Runs at most `concurrency` items at a time. `modules` are globs of those whose functions may be called."""

    def __init__(self, wire: Wire, name: str, modules: Sequence[str], concurrency: int) -> None:
        self._wire = wire
        self._name = name
        self._modules = tuple(modules)
        self._concurrency = concurrency
        self._compute = LocalCompute(threads=2 * concurrency, processes=concurrency, python_modules=self._modules)
        self._executors: Mapping[str, NodeExecutor] = {
            executor.kind: executor for executor in (PythonFnExecutor(self._compute), ToolExecutor(self._compute))
        }
        self._running: set[asyncio.Task[None]] = set()
        self._failure: BaseException | None = None
        self._stop = asyncio.Event()

    async def run(self, stop: asyncio.Event, grace: float, ready: Callable[[], None]) -> None:
        """Until it is told to stop. Raises `CommandFailed` where the runtime refuses it."""
        self._stop = stop
        try:
            for item in await self._wire.first_claim():
                self._begin(item)
            ready()
            try:
                await self._claim_until_told()
            finally:
                await self._finish(grace)
        finally:
            await self._compute.close()
            await self._wire.close()
        if self._failure is not None:
            raise self._failure

    # Claiming

    async def _claim_until_told(self) -> None:
        stopping = asyncio.create_task(self._stop.wait())
        try:
            while not stopping.done():
                if len(self._running) >= self._concurrency:
                    await asyncio.wait([stopping, *self._running], return_when=asyncio.FIRST_COMPLETED)
                else:
                    await self._claim(stopping)
        finally:
            stopping.cancel()

    async def _claim(self, stopping: asyncio.Task[Any]) -> None:
        asked_at = time.monotonic()
        claiming = asyncio.create_task(self._wire.claim(self._concurrency - len(self._running)))
        await asyncio.wait([stopping, claiming], return_when=asyncio.FIRST_COMPLETED)
        if not claiming.done():
            # Hanging up tells the runtime to keep what comes.
            claiming.cancel()
            with suppress(asyncio.CancelledError):
                await claiming
            return
        items = claiming.result()
        for item in items:
            self._begin(item)
        if not items and time.monotonic() - asked_at < WAIT / 2:
            # It is about to stop, and lets nobody wait.
            with suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(stopping), 1)

    def _begin(self, item: Json) -> None:
        task = asyncio.create_task(self._work(Work(item)))
        self._running.add(task)
        task.add_done_callback(self._end)

    def _end(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if task.cancelled() or (error := task.exception()) is None:
            return
        self._failure = self._failure or error
        self._stop.set()

    async def _finish(self, grace: float) -> None:
        if self._running:
            log.info("finishing %d nodes within %g s", len(self._running), grace)
            _, late = await asyncio.wait(self._running, timeout=grace)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    # One item

    async def _work(self, work: Work) -> None:
        doing = asyncio.create_task(self._do(work))
        beating = asyncio.create_task(self._beat(work, doing))
        try:
            await doing
        except asyncio.CancelledError:
            if not work.is_lost:
                await self._give_back(work)
                raise
        except Gone as lost:
            log.info("%s is not ours any more: %s", work.name, lost)
        finally:
            beating.cancel()
            doing.cancel()

    async def _beat(self, work: Work, doing: asyncio.Task[None]) -> None:
        interval = work.item.get("lease_seconds", 15) / 3
        pause = interval
        while not doing.done():
            await asyncio.sleep(pause)
            try:
                await self._wire.heartbeat(work.item)
                pause = interval
            except Gone as lost:
                log.info("stopping %s: %s", work.name, lost)
                work.is_lost = True
                doing.cancel()
                return
            except (Away, CommandFailed) as error:
                log.debug("no heartbeat for %s: %s", work.name, error)
                pause = min(1.0, interval)

    async def _give_back(self, work: Work) -> None:
        with suppress(Gone, Away, CommandFailed, TimeoutError):
            async with asyncio.timeout(_LAST_WORD):
                await self._wire.release(work.item, f"{self._name} stops")
                log.info("gave back %s", work.name)

    async def _do(self, work: Work) -> None:
        what, body = await self._outcome(work)
        try:
            await self._wire.say(work.item, what, body)
        except TooLarge as error:
            large = NodeFailed(f"the result is too large: {error}", retryable=False)
            await self._wire.say(work.item, "fail", _failure(large))
        except Refused as refused:
            if refused.status not in _OF_THE_ITEM:
                raise
            log.error("the result of %s is refused: %s", work.name, refused)

    async def _outcome(self, work: Work) -> tuple[str, Json]:
        """What is to be said of it, and with which words."""
        try:
            result = _result(await self._result(work))
            return "complete", {**result, "duration_ms": work.duration_ms}
        except RateLimited as limit:
            return "release", {"retry_after": min(max(0.0, limit.retry_after), _YEAR), "reason": str(limit)[:1000]}
        except NodeFailed as failure:
            return "fail", {**_failure(failure), "duration_ms": work.duration_ms}

    async def _result(self, work: Work) -> NodeResult:
        payload = work.item["payload"]
        executor = self._executors.get(payload["kind"])
        if executor is None:
            kinds = " and ".join(self._executors)
            raise NodeFailed(f"{self._name} runs {kinds} nodes only, not {payload['kind']}", retryable=False)
        call = self._call(work, _parsed(executor.config, payload["config"]))
        self._check(call.config)
        try:
            return as_json(await _within(payload.get("timeout_secs"), executor.execute(call)))
        except (NodeFailed, RateLimited) as failure:
            raise _in_own_words(failure) from failure.__cause__
        except asyncio.CancelledError:
            raise
        except TimeoutError as error:
            raise NodeFailed(f"TimeoutError: {error}", error_class="timeout") from error
        except Exception as error:
            log.warning("%s broke", work.name, exc_info=error)
            raise NodeFailed(f"{type(error).__name__}: {error}") from error

    def _call(self, work: Work, config: BaseModel) -> NodeCall:
        item, payload = work.item, work.item["payload"]
        timeout = payload.get("timeout_secs")

        async def emit(data: Any) -> None:
            try:
                await self._wire.say(item, "progress", {"data": jsonable(data)})
            except Gone as lost:
                raise RuntimeError(str(lost)) from None

        return NodeCall(
            execution_id=item["execution_id"],
            node_id=item["node_id"],
            attempt=item["attempt"],
            config=config,
            input=payload["input"],
            idempotency_key=payload["idempotency_key"],
            deadline=None if timeout is None else asyncio.get_running_loop().time() + timeout,
            emit=emit,
        )

    def _check(self, config: Any) -> None:
        module = config.target.partition(":")[0]
        if not any(fnmatchcase(module, glob) for glob in self._modules):
            given = ", ".join(self._modules)
            message = (
                f"{self._name} calls functions of the modules it was given (--module {given}), and not of {module}"
            )
            raise NodeFailed(message, retryable=False)


def _parsed(model: type[BaseModel], config: Json) -> PythonFn | Tool:
    try:
        parsed = model.model_validate(config)
    except ValidationError as error:
        raise NodeFailed(f"the configuration is not understood here: {error}", retryable=False) from error
    assert isinstance(parsed, PythonFn | Tool)
    return parsed


async def _within(seconds: float | None, work: Awaitable[NodeResult]) -> NodeResult:
    limit = asyncio.timeout(seconds)
    try:
        async with limit:
            return await work
    except TimeoutError as error:
        if not limit.expired():
            raise
        raise NodeFailed(f"took longer than {seconds:g} s", error_class="timeout") from error


def _in_own_words(failure: NodeFailed | RateLimited) -> NodeFailed | RateLimited:
    """What may be called is said to a worker by an option, not by the setting."""
    if isinstance(failure, RateLimited) or "JAMJET_PYTHON_MODULES" not in str(failure):
        return failure
    message = str(failure).replace("JAMJET_PYTHON_MODULES allows", "the worker's --module allows")
    return NodeFailed(message, retryable=failure.retryable)


def _result(result: NodeResult) -> Json:
    body: Json = {"output": result.output, "state_patch": result.state_patch}
    if (usage := result.usage) is not None:
        body |= {
            "input_tokens": usage.input_tokens,
            "output_tokens": usage.output_tokens,
            "cost_usd": usage.cost_usd,
            "gen_ai_system": usage.system,
            "gen_ai_model": usage.model,
            "finish_reason": usage.finish_reason,
        }
    return body


def _failure(failure: NodeFailed) -> Json:
    try:
        details = jsonable(failure.details)
    except NodeFailed:
        details = {}
    error = {"message": str(failure)[:_LONGEST_MESSAGE], "error_class": failure.error_class, "details": details}
    return {"error": error, "retryable": failure.retryable}
