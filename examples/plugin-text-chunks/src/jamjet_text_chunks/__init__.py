"""Cuts long texts into chunks: the node kind `text_chunks`, and a route to try it out."""

from __future__ import annotations

from collections.abc import Iterable

from jamjet_kernel import NodeExecutor, Route, hookimpl

from .http import ROUTE
from .node import TextChunksExecutor


@hookimpl
def node_executors() -> Iterable[NodeExecutor]:
    return [TextChunksExecutor()]


@hookimpl
def http_routes() -> Iterable[Route]:
    return [ROUTE]
