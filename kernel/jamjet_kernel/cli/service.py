"""What a command that runs for long has beside its work: signals, a log, functions of the current folder."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator

from .exit_codes import ExitCode

log = logging.getLogger("jamjet")


@contextlib.contextmanager
def signals(stop: asyncio.Event) -> Iterator[None]:
    """The first signal asks to stop, the second one does not ask."""
    loop = asyncio.get_running_loop()

    def told() -> None:
        if stop.is_set():
            os._exit(ExitCode.INTERRUPTED)
        stop.set()

    handled = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.getsignal(number) for number in handled}
    for number in handled:
        signal.signal(number, lambda *_: loop.call_soon_threadsafe(told))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def leave_late_functions(then: str) -> None:
    """`then` tells what becomes of their nodes.

    A thread cannot be stopped, and Python waits for all of them at its end; their time to finish is over.
    """
    from ..nodes.compute import FUNCTION_THREADS

    late = [thread for thread in threading.enumerate() if thread.name.startswith(FUNCTION_THREADS)]
    for thread in late:
        thread.join(0.5 / len(late))
    if any(thread.is_alive() for thread in late):
        log.warning("leaving functions that still run; %s", then)
        logging.shutdown()
        os._exit(0)


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:  # not on Windows, nor on PyPy
        return None
    return uvloop.new_event_loop


def import_from_here() -> None:
    """Functions that workflows name are found in the current folder too, as other servers' are."""
    here = os.getcwd()
    if here not in sys.path:
        sys.path.insert(0, here)


def log_to_stderr(level: str) -> None:
    logging.basicConfig(
        level=level.upper(), stream=sys.stderr, format="%(asctime)s %(levelname)-7s %(name)s  %(message)s"
    )
    for noisy in ("uvicorn", "httpx", "httpcore", "stevedore", "alembic"):
        logging.getLogger(noisy).setLevel(max(logging.WARNING, logging.getLogger().level))
