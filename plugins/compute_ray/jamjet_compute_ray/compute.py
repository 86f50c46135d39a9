"""Calls on the cluster, whatever becomes of it meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import time
from collections.abc import Mapping
from typing import Any

import msgspec
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_exponential, wait_random

from jamjet_kernel import NodeCall, NodeFailed, Settings
from jamjet_kernel.nodes.remote import value_of

from .frames import Call, Connect, Submit
from .session import CallDied, ClusterLost, Listener, Session, open_session
from .settings import LOCAL, RaySettings

log = logging.getLogger("jamjet.ray")

PATIENCE = 15.0
"""Seconds without a cluster after which a node says that it waits for it."""

LEAVING = 15.0
"""Seconds beside the cancel grace that the driver gets to end."""

_encode = msgspec.json.Encoder().encode
_pack = msgspec.msgpack.Encoder().encode


class RayCompute:
    """Connects when it starts, and again whenever the cluster was lost. A call is handed in until it is answered:

    - again, without a limit, after the cluster was lost: that is no fault of the function's;
    - again, `resubmits` times, after its process or machine died: it may be the function that kills them.

    Always under the same idempotency key. A Ray task has a process to itself, so `isolation` makes no difference.
    """

    places = True

    def __init__(self, address: str, chosen: RaySettings, settings: Settings) -> None:
        self._address = address
        self._chosen = chosen
        self._allowed = settings.python_modules
        self._connect_frame = Connect(address, _init(address, chosen, settings), chosen.cancel_grace)
        self._numbers = itertools.count(1)
        self._session: Session | None = None
        self._connecting: asyncio.Task[Session] | None = None
        self._closed = False
        self._trouble = "it does not answer yet"
        self._retrying = AsyncRetrying(
            wait=wait_exponential(multiplier=0.5, max=30) + wait_random(0, 0.5),
            retry=retry_if_exception_type((ClusterLost, OSError)),
            before_sleep=self._complain,
        )

    async def start(self) -> None:
        """Begins to connect, so that the first call need not wait for it and trouble is told at once."""
        self._connect_once()

    async def call(
        self, function: str, input: Any, *, isolation: str, resources: Mapping[str, float] | None = None, node: NodeCall
    ) -> Any:
        """Raises `NodeFailed` or `RateLimited`, whatever the function raised."""
        told = _Told(function, node)
        encoded = _encode(input)
        for deaths in itertools.count(1):
            try:
                return value_of(await self._answer(function, encoded, dict(resources or {}), node, told))
            except CallDied as died:
                if deaths > self._chosen.resubmits:
                    raise _given_up(function, deaths, died) from died
                await told.say("resubmitted", f"its process or machine died, {_times(deaths)}: {died}")
                await asyncio.sleep(_pause(deaths))
        raise AssertionError("unreachable")

    async def close(self) -> None:
        self._closed = True
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.gather(self._connecting, return_exceptions=True)
        if self._session is not None:
            await self._session.close(self._chosen.cancel_grace + LEAVING)

    async def _answer(
        self, function: str, input: bytes, resources: dict[str, float], node: NodeCall, told: _Told
    ) -> bytes:
        """Raises `CallDied`."""
        while True:
            session = await self._connected(told)
            number = next(self._numbers)
            call = _call(number, function, self._allowed, input, node)
            try:
                return await session.call(Submit(number, function, resources, _pack(call)), told.listener)
            except ClusterLost as lost:
                await told.say("resubmitted", f"the Ray cluster was lost: {lost}")

    # The connection

    async def _connected(self, told: _Told) -> Session:
        if self._session is not None and self._session.is_open:
            return self._session
        connecting = self._connect_once()
        done, _ = await asyncio.wait([connecting], timeout=PATIENCE)
        if not done:
            await told.say("waiting", f"for the Ray cluster at {self._address}: {self._trouble}")
        return await asyncio.shield(connecting)

    def _connect_once(self) -> asyncio.Task[Session]:
        if self._closed:
            raise NodeFailed("the runtime is closing", error_class="io_error")
        if self._connecting is None or self._connecting.done():
            self._connecting = asyncio.create_task(self._connect())
        return self._connecting

    async def _connect(self) -> Session:
        if self._session is not None:
            log.warning("the Ray cluster at %s is lost", self._address)
            await self._session.close()
            self._session = None
        session: Session = await self._retrying(self._try_to_connect)
        self._session = session
        return session

    async def _try_to_connect(self) -> Session:
        session = await open_session()
        try:
            connected = await session.connect(self._connect_frame)
        except BaseException:
            await session.close()
            raise
        offered = ", ".join(f"{quantity:g} {name}" for name, quantity in sorted(connected.resources.items()))
        log.info("connected to Ray at %s: %d machines with %s", self._address, connected.machines, offered)
        return session

    def _complain(self, state: RetryCallState) -> None:
        self._trouble = str(state.outcome.exception() if state.outcome else None)
        pause = state.upcoming_sleep
        log.warning("cannot connect to Ray at %s, trying again in %.1f s: %s", self._address, pause, self._trouble)


class _Told:
    """What people learn of a call that does not simply run: in the server's log, and in the execution's."""

    def __init__(self, function: str, node: NodeCall) -> None:
        self._function = function
        self._node = node
        self._last: tuple[str, str] | None = None
        self.listener = Listener(lambda reason: self.say("waiting", reason), node.emit)

    async def say(self, what: str, reason: str) -> None:
        if self._last == (what, reason):
            return
        self._last = (what, reason)
        node = self._node
        log.warning("%s of %s in %s is %s: %s", self._function, node.node_id, node.execution_id, what, reason)
        if node.emit is not None:
            # Telling is no part of the work: the attempt may be over.
            with contextlib.suppress(Exception):
                await node.emit({"compute": "ray", what: reason})


def _init(address: str, chosen: RaySettings, settings: Settings) -> dict[str, Any]:
    init: dict[str, Any] = {"logging_level": "warning"}
    if address == LOCAL:
        init["include_dashboard"] = False
    if runtime_env := chosen.runtime_env_without(settings.home_folder):
        init["runtime_env"] = runtime_env
    return {**init, **chosen.init}


def _call(number: int, function: str, allowed: tuple[str, ...], input: bytes, node: NodeCall) -> Call:
    left = None if node.deadline is None else node.deadline - asyncio.get_running_loop().time()
    return Call(
        number=number,
        function=function,
        allowed=allowed,
        input=input,
        execution_id=node.execution_id,
        node_id=node.node_id,
        attempt=node.attempt,
        idempotency_key=node.idempotency_key,
        logger=node.logger.name,
        expires_at=None if left is None else time.time() + left,
    )


def _given_up(function: str, deaths: int, died: CallDied) -> NodeFailed:
    message = f"the process or machine that ran {function} died, {_times(deaths)} in a row: {died}"
    return NodeFailed(message, error_class="io_error", details={"function": function, "deaths": deaths})


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _pause(deaths: int) -> float:
    return float(min(5.0, 0.25 * 2**deaths))
