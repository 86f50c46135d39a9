"""The built-in node kinds that touch the world, and the compute of this process.

They enter by the same hooks as anyone's.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from ..hookspecs import hookimpl
from .compute import LocalCompute
from .http import HttpExecutor
from .python_fn import PythonFnExecutor
from .tool import ToolExecutor

if TYPE_CHECKING:
    from ..ports import Compute, NodeExecutor
    from ..settings import Settings


@hookimpl
def node_executors(settings: Settings, compute: Compute) -> Iterable[NodeExecutor]:
    return [
        PythonFnExecutor(compute),
        ToolExecutor(compute),
        HttpExecutor(settings.http_max_bytes, settings.allow_networks),
    ]


@hookimpl
def open_compute(url: str, settings: Settings) -> Compute | None:
    if url not in ("", "local"):
        return None
    return LocalCompute(threads=settings.threads, processes=settings.processes, python_modules=settings.python_modules)
