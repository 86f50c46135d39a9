"""Functions that the tests' workflows call."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from jamjet_kernel.context import NodeContext
from jamjet_kernel.errors import NodeFailed, RateLimited
from jamjet_kernel.ports import NodeResult

if TYPE_CHECKING:
    from nowhere import OnlyForTypeCheckers

request_id: contextvars.ContextVar[str] = contextvars.ContextVar("request_id", default="unset")


class Item(BaseModel):
    name: str
    count: int = 1


async def add(a: int, b: int = 10) -> int:
    return a + b


def add_sync(a: int, b: int = 10) -> int:
    return a + b


def positional(a: int, b: int = 10, /, c: int = 100) -> int:
    return a + b + c


def whole(state: dict[str, Any]) -> dict[str, Any]:
    return state


def whole_by_any_name(order: dict[str, Any]) -> dict[str, Any]:
    return order


def limited(limit: int = 5) -> int:
    return limit


def keywords(a: int, **rest: Any) -> dict[str, Any]:
    return {"a": a, "rest": rest}


def nothing() -> str:
    return "called"


def item(item: Item) -> str:
    assert isinstance(item, Item)
    return f"{item.count} {item.name}"


def items(items: list[Item]) -> list[str]:
    return [each.name for each in items]


def odd_annotation(a: OnlyForTypeCheckers, item: Item) -> str:
    return f"{a} {item.name}"


def annotated_context(where: NodeContext | None, a: int) -> list[Any]:
    assert where is not None
    return [where.execution_id, where.node_id, where.attempt, where.idempotency_key, where.deadline, a]


def named_context(state: dict[str, Any], ctx: Any) -> str:
    return f"{type(ctx).__name__}"


def context_as_data(context: str) -> str:
    return context


async def emits(n: int, context: NodeContext) -> str:
    for step in range(n):
        await context.emit({"step": step})
    return "done"


def emits_sync(n: int, context: NodeContext) -> str:
    for step in range(n):
        context.emit({"step": step})
    return "done"


def logs(context: NodeContext) -> str:
    context.logger.warning("hello")
    return context.logger.name


def reads_contextvar() -> str:
    return request_id.get()


def thread_name() -> str:
    return threading.current_thread().name


def pid() -> int:
    return os.getpid()


async def pid_async() -> int:
    await asyncio.sleep(0)
    return os.getpid()


def result() -> NodeResult:
    return NodeResult(output=1, state_patch={"x": 2})


def raises(name: str) -> None:
    errors: dict[str, BaseException] = {
        "value": ValueError("no such city"),
        "empty": ValueError(),
        "timeout": TimeoutError("slow"),
        "reset": ConnectionResetError("peer"),
        "refused": ConnectionRefusedError("closed"),
        "missing": FileNotFoundError(2, "No such file", "x.txt"),
        "exit": SystemExit(3),
        "interrupt": KeyboardInterrupt(),
        "stop": StopIteration(),
        "cancelled": asyncio.CancelledError(),
        "failed": NodeFailed("on purpose", retryable=False, error_class="server_error", details={"a": 1}),
        "limited": RateLimited(7, "slow down"),
        "group": ExceptionGroup("several", [OSError("disk")]),
    }
    raise errors[name]


async def raises_async(name: str) -> None:
    raises(name)


def decorated(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def inner(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return inner


@decorated
async def looks_sync(a: int) -> int:
    await asyncio.sleep(0)
    return a


def model(name: str) -> Item:
    return Item(name=name)


def yields() -> Any:
    yield 1


def no_json() -> Any:
    return lambda: 1


class Tools:
    @staticmethod
    def double(n: int) -> int:
        return 2 * n


class Adder:
    async def __call__(self, a: int) -> int:
        return a + 1


adder = Adder()
number = 5
run_anything = os.system
started = threading.Event()
go_on = threading.Event()


def waits_for_go() -> str:
    started.set()
    go_on.wait(10)
    return "gone on"


async def waits_forever() -> None:
    await asyncio.Event().wait()


def dies() -> None:
    os._exit(1)


def dies_by_signal() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def tells_and_hangs(path: str) -> None:
    Path(path).write_text(str(os.getpid()))
    while True:
        time.sleep(60)


def exits() -> None:
    sys.exit(0)
