"""Registered workflows, as graphs that are ready to run."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Container, Iterable, Iterator, Mapping

import msgspec
from pydantic import BaseModel
from semver import Version

from ..core.definition import CONTROL_KINDS
from ..core.graph import Graph, Node, parse
from ..errors import NotFound
from ..ports import NodeExecutor, Storage, WorkflowVersion
from .gathering import Gathering, each

MAX_GRAPHS = 1000


class WorkflowCache:
    """A version never changes, so a parsed one is good for as long as there is room."""

    def __init__(self, storage: Storage, kinds: Mapping[str, type[BaseModel]]) -> None:
        self._storage = storage
        self._kinds = kinds
        self._graphs: OrderedDict[tuple[str, str, str], Graph] = OrderedDict()
        self._stored = Gathering(each(self._read))
        self._newest = Gathering(each(self._look))
        self._latest: dict[tuple[str, str], str] = {}
        self._additions = 0

    async def get(self, tenant_id: str, workflow_id: str, version: str) -> Graph:
        """Raises `NotFound`."""
        key = (tenant_id, workflow_id, version)
        if (graph := self._graphs.get(key)) is not None:
            self._graphs.move_to_end(key)
            return graph
        stored = await self._stored.get(key)
        if stored is None:
            raise NotFound(f"workflow {workflow_id} version {version}")
        if (graph := self._graphs.get(key)) is not None:  # who asked at the same time was faster
            return graph
        graph = self._graphs[key] = parse(msgspec.json.decode(stored.ir), self._kinds)
        if len(self._graphs) > MAX_GRAPHS:
            self._graphs.popitem(last=False)
        return graph

    async def latest(self, tenant_id: str, workflow_id: str) -> str:
        """The newest version by semantic versioning. Raises `NotFound`."""
        if self._storage.exclusive and (known := self._latest.get((tenant_id, workflow_id))):
            return known
        additions = self._additions
        newest = await self._newest.get((tenant_id, workflow_id))
        if newest is None:
            raise NotFound(f"workflow {workflow_id}")
        if additions == self._additions:  # else what was read may be older than what was added meanwhile
            self._latest[tenant_id, workflow_id] = newest
        return newest

    async def _read(self, key: tuple[str, str, str]) -> WorkflowVersion | None:
        return await self._storage.workflows.get(*key)

    async def _look(self, workflow: tuple[str, str]) -> str | None:
        versions = await self._storage.workflows.versions(*workflow)
        return in_order(versions)[0][0] if versions else None

    def added(self, tenant_id: str, workflow_id: str) -> None:
        """There is another version by now."""
        self._additions += 1
        self._latest.pop((tenant_id, workflow_id), None)


def in_order(versions: Iterable[tuple[str, int]]) -> list[tuple[str, int]]:
    """Newest first, each with the time of its registration, which orders what semantic versioning leaves unordered:
    the builds of one version."""

    def key(registered: tuple[str, int]) -> tuple[Version, int, str]:
        version, at = registered
        return Version.parse(version), at, version

    return sorted(versions, key=key, reverse=True)


def warnings_of(graph: Graph, served: Container[str], executors: Mapping[str, NodeExecutor]) -> list[str]:
    """What a definition says and this runtime does not do. `served` are the queues that somebody takes work from."""
    return [*_warnings(graph, served), *_warnings_of_executors(graph, executors)]


def queues_of(graph: Graph) -> set[str]:
    return {queue for node in graph.nodes.values() if (queue := (node.body or node).queue) is not None}


def _warnings(graph: Graph, served: Container[str]) -> Iterator[str]:
    definition = graph.definition
    if definition.data_policy is not None and not definition.data_policy.retain_prompts:
        yield "data_policy.retain_prompts: what a node is called with is kept, to call it again after a crash"
    for node in graph.nodes.values():
        said = definition.nodes[node.id]
        queue = (node.body or node).queue
        if queue is not None and queue not in served:
            yield f"nodes.{node.id}.queue: nobody serves {queue!r} just now; the node waits for a worker that does"
        if said.get("retry_policy") is not None and node.kind in CONTROL_KINDS:
            yield f"nodes.{node.id}.retry_policy: a {node.kind} node makes one attempt; its body can have a policy"


def _warnings_of_executors(graph: Graph, executors: Mapping[str, NodeExecutor]) -> Iterator[str]:
    for node in graph.nodes.values():
        yield from _warnings_of_executor(node, f"nodes.{node.id}", executors)
        if node.body is not None and node.body.id == node.id:  # it is written there, and is no node of its own
            yield from _warnings_of_executor(node.body, f"nodes.{node.id}.body", executors)


def _warnings_of_executor(node: Node, place: str, executors: Mapping[str, NodeExecutor]) -> Iterator[str]:
    if warnings := getattr(executors.get(node.kind), "warnings", None):
        yield from (f"{place}.{warning}" for warning in warnings(node.raw))
