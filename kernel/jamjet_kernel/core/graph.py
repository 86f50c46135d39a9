"""A definition made ready to run: nodes, edges, loops; and everything that can be wrong with one.

`parse` reads an IR and either answers a `Graph` or raises `Invalid` with every problem it found, each
with its place (`nodes.review.kind.timeout`). Which kinds of node exist is told by the caller, so this
module knows no executor.

Edges come from the `edges` list and from what kinds say of themselves (`branches`, `on_rejected`,
`wait_for`, `on_error` …). An edge back to a node on the way to it closes a loop: a taken one starts an
iteration of everything that follows its target. `end`, as a target or as a node, is no place to go to:
a path that arrives there is simply over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from difflib import get_close_matches
from functools import cached_property
from typing import Any

import jsonschema_rs
from pydantic import BaseModel, ValidationError

from ..errors import Invalid, Problem
from .definition import (
    BUILT_IN_RETRY_POLICIES,
    CONTROL_KINDS,
    NODE_ID,
    TERMINAL,
    Condition,
    Definition,
    End,
    Finalizer,
    HumanApproval,
    Join,
    Map,
    NodeSpec,
    Parallel,
    Policy,
    RetryPolicy,
    Subgraph,
    Wait,
    json_schema,
)
from .expressions import Expression, ExpressionError, Template, expression, template
from .redaction import Rules

NEXT, BRANCH, APPROVED, REJECTED, TIMEOUT, ERROR = "next", "branch", "approved", "rejected", "timeout", "error"


@dataclass(frozen=True, slots=True)
class Edge:
    """`route` says which outcome of the source it belongs to."""

    source: str
    target: str
    condition: Expression | None = None
    route: str = NEXT


@dataclass(frozen=True)
class Node:
    """One node. `config` is None where an executor's configuration holds templates: see `rendered`."""

    id: str
    kind: str
    model: type[BaseModel]
    raw: Mapping[str, Any]
    config: BaseModel | None
    templates: Mapping[str, Template] = field(default_factory=dict)
    retry: RetryPolicy = BUILT_IN_RETRY_POLICIES["no_retry"]
    timeout: float | None = None
    policies: tuple[Policy, ...] = ()
    output_key: str | None = None
    items: Expression | None = None
    body: Node | None = None
    queue: str | None = None
    at_once: int | None = None
    """Of the work with the key that its template `concurrency` renders."""

    @cached_property
    def names_tool(self) -> bool:
        return isinstance(getattr(self.model, "tool_name", None), property)

    @cached_property
    def agent(self) -> str | None:
        """Who does the work, where the node hands it to an agent."""
        named = (self.raw.get(name) for name in ("agent", "agent_ref", "remote_agent"))
        return next((agent for agent in named if isinstance(agent, str)), None)

    def rendered(self, fields: Mapping[str, Any] | None) -> BaseModel:
        """The configuration with its rendered fields. Raises pydantic's ValidationError."""
        if self.config is not None:
            return self.config
        return self.model.model_validate({**self.raw, **(fields or {})})


@dataclass(frozen=True)
class Graph:
    definition: Definition
    nodes: Mapping[str, Node]
    start: str
    outgoing: Mapping[str, tuple[Edge, ...]]
    back: frozenset[tuple[str, str]]
    ends: frozenset[str]
    validator: jsonschema_rs.Validator | None = None

    @cached_property
    def sources(self) -> Mapping[str, tuple[str, ...]]:
        """From where a node is reached, loops left out."""
        found: dict[str, dict[str, None]] = {}
        for edge in self.forward_edges():
            found.setdefault(edge.target, {})[edge.source] = None
        return {target: tuple(sources) for target, sources in found.items()}

    @cached_property
    def targets(self) -> Mapping[str, tuple[str, ...]]:
        """Where a node leads to, loops left out."""
        found: dict[str, dict[str, None]] = {}
        for edge in self.forward_edges():
            found.setdefault(edge.source, {})[edge.target] = None
        return {source: tuple(targets) for source, targets in found.items()}

    @cached_property
    def finalizers(self) -> tuple[Node, ...]:
        return tuple(node for node in self.nodes.values() if isinstance(node.config, Finalizer))

    @cached_property
    def redaction(self) -> Rules | None:
        """None: everything may be stored as it is."""
        policy = self.definition.data_policy
        if policy is None or not (policy.pii_fields or policy.pii_detectors):
            return None
        return Rules(policy.pii_fields, policy.pii_detectors, policy.redaction_mode)

    @cached_property
    def maps(self) -> tuple[Node, ...]:
        return tuple(node for node in self.nodes.values() if isinstance(node.config, Map))

    @cached_property
    def deciding(self) -> frozenset[str]:
        """The nodes after which a condition is read."""
        return frozenset(edge.source for edges in self.outgoing.values() for edge in edges if edge.condition)

    @cached_property
    def reserve(self) -> str | None:
        """The target of `on_budget_exceeded` where no edge leads to it: skipped, until the budget is exceeded."""
        target = self.definition.on_budget_exceeded
        is_aside = target in self.nodes and target not in self.sources and target not in (self.start, *self.ends)
        return target if is_aside else None

    def forward_edges(self) -> Iterator[Edge]:
        for edge in (edge for edges in self.outgoing.values() for edge in edges):
            if edge.target not in self.ends and (edge.source, edge.target) not in self.back:
                yield edge

    def downstream(self, node_id: str) -> frozenset[str]:
        """The node and all that follows it: what one iteration of a loop from here runs anew."""
        if node_id not in self._downstream:
            self._downstream[node_id] = frozenset(_reach([node_id], self.targets))
        return self._downstream[node_id]

    def upstream(self, node_id: str) -> frozenset[str]:
        return frozenset(_reach([node_id], self.sources)) - {node_id}

    @cached_property
    def _downstream(self) -> dict[str, frozenset[str]]:
        return {}

    def node(self, run_id: str) -> Node:
        """The node behind a run; `fan[3]` is item 3 of the map `fan`."""
        return self.nodes[map_of(run_id) or run_id]

    def worker_node(self, run_id: str) -> Node:
        """The node whose executor does the work of this run: a map's or finalizer's body, else itself."""
        node = self.node(run_id)
        return node.body or node


def map_of(run_id: str) -> str | None:
    """The map that a run is an item of."""
    return run_id.partition("[")[0] if run_id.endswith("]") else None


def item_of(run_id: str) -> int:
    return int(run_id[run_id.rindex("[") + 1 : -1])


def parse(ir: Any, kinds: Mapping[str, type[BaseModel]]) -> Graph:
    """Reads an IR. `kinds` are the configurations of the executors that are installed.

    Raises `Invalid` with all problems at once.
    """
    if not isinstance(ir, Mapping):
        raise Invalid([Problem("ir", f"must be an object, not {type(ir).__name__}")])
    try:
        definition = Definition.model_validate(ir)
    except ValidationError as error:
        raise Invalid([*problems_of(error, "ir"), *_problems_beside(error, ir, kinds)]) from error
    return _Builder(definition, kinds).graph()


def _problems_beside(
    error: ValidationError, ir: Mapping[str, Any], kinds: Mapping[str, type[BaseModel]]
) -> list[Problem]:
    """What is wrong with nodes and edges, where fields of the definition are wrong already."""
    wrong = {found["loc"][0] for found in error.errors()}
    if wrong & {"models", "tools", "mcp_servers", "remote_agents"}:  # nodes may owe these what they seem to lack
        return []
    kept = {key: value for key, value in ir.items() if key not in wrong}
    if "retry_policies" in wrong and isinstance(ir["retry_policies"], Mapping):
        kept["retry_policies"] = dict.fromkeys(ir["retry_policies"], RetryPolicy())
    try:
        definition = Definition.model_validate({"workflow_id": "unnamed", "version": "0.0.0", **kept})
    except ValidationError:
        return []
    builder = _Builder(definition, kinds)
    builder.read()
    return builder.problems


def problems_of(
    error: ValidationError, prefix: str = "", unless: Callable[[Mapping[str, Any]], bool] | None = None
) -> Iterator[Problem]:
    """pydantic's findings in our words, but for those of which `unless` is true."""
    for found in error.errors(include_url=False):
        if (unless is not None and unless(found)) or _is_other_member(found):
            continue
        steps = [prefix, *(_step(step) for step in found["loc"] if not _is_union_step(str(step)))]
        message = found["msg"].removeprefix("Value error, ")
        match found["type"]:
            case "missing":
                message = "is required"
            case "extra_forbidden":
                message = "unknown field"
        yield Problem(".".join(filter(None, steps)).replace(".[", "["), message)


def _step(step: str | int) -> str:
    return f"[{step}]" if isinstance(step, int) else step


def _is_other_member(found: Mapping[str, Any]) -> bool:
    """An object offered to a union of a text and a model is meant for the model."""
    return found["type"] == "string_type" and found["loc"][-1:] == ("str",) and isinstance(found["input"], Mapping)


def _is_union_step(step: str) -> bool:
    """pydantic names the member of a union that it tried, as if it were a key."""
    return "[" in step or step in {"str", "float", "int", "RetryPolicy"}


class _Builder:
    """Collects problems while it builds; the order of the methods is the order of the work."""

    def __init__(self, definition: Definition, kinds: Mapping[str, type[BaseModel]]) -> None:
        self.definition = definition
        self.kinds: Mapping[str, type[BaseModel]] = {**kinds, **CONTROL_KINDS}
        self.problems: list[Problem] = []
        self.nodes: dict[str, Node] = {}
        self.edges: dict[str, list[Edge]] = {}
        self.ends: set[str] = set()
        self.bodies: set[str] = set()
        #: An edge or a node is missing, so the shape of the whole says nothing.
        self.is_torn = False

    def graph(self) -> Graph:
        validator = self.read()
        start = None if self.is_torn else self._start()
        back = frozenset() if start is None else self._check_shape(start)
        if self.problems:
            raise Invalid(self.problems)
        return Graph(
            definition=self.definition,
            nodes=self.nodes,
            start=start or "",
            outgoing={source: tuple(edges) for source, edges in self.edges.items()},
            back=back,
            ends=frozenset(self.ends | {TERMINAL}),
            validator=validator,
        )

    def read(self) -> jsonschema_rs.Validator | None:
        validator = self._validator()
        for node_id, spec in self.definition.nodes.items():
            self._add_node(node_id, spec)
        self._adopt_bodies()
        self._add_edges()
        return validator

    def _problem(self, place: str, message: str) -> None:
        self.problems.append(Problem(place, message))

    def _tear(self, place: str, message: str) -> None:
        self._problem(place, message)
        self.is_torn = True

    def _validator(self) -> jsonschema_rs.Validator | None:
        try:
            schema = json_schema(self.definition.state_schema)
            return None if schema is None else jsonschema_rs.validator_for(schema, retriever=_refuse)
        except (ValueError, jsonschema_rs.ValidationError) as error:
            self._problem("state_schema", str(error).split("\n", 1)[0])
            return None

    # Nodes

    def _add_node(self, node_id: str, raw: dict[str, Any]) -> None:
        place = f"nodes.{node_id}"
        if not NODE_ID.fullmatch(node_id):
            self._problem(place, "a node id starts with a letter and holds letters, digits, '_', '-' and '.'")
        node = self._node(node_id, raw, place)
        if node is not None:
            self.nodes[node_id] = node
            if node_id == TERMINAL and node.model is not End:
                self._problem(place, f"{TERMINAL!r} ends a path, so this {node.kind} node would never run: rename it")
        if node is None or (node.config is None and node.kind in CONTROL_KINDS):
            self.is_torn = True

    def _node(self, node_id: str, raw: dict[str, Any], place: str) -> Node | None:
        nested = isinstance(raw.get("kind"), Mapping)
        kind_place = f"{place}.kind" if nested else place
        common, kind = _split(raw) if not nested else (dict(raw), dict(raw["kind"]))
        common["kind"] = kind
        try:
            spec = NodeSpec.model_validate(common)
        except ValidationError as error:
            self.problems += problems_of(error, place)
            return None
        if spec.id not in (None, node_id):
            self._problem(f"{place}.id", f"is {spec.id!r}, but the node stands under {node_id!r}")
        model = self._model(kind, kind_place)
        if model is None:
            return None
        if model is HumanApproval and spec.description and "description" not in kind:
            kind["description"] = spec.description
        return self._typed_node(node_id, spec, model, kind, place, kind_place)

    def _model(self, kind: Mapping[str, Any], place: str) -> type[BaseModel] | None:
        name = kind.get("type")
        if not isinstance(name, str):
            self._problem(f"{place}.type", "is required: the kind of the node")
            return None
        if name not in self.kinds:
            known = ", ".join(sorted(self.kinds))
            self._problem(f"{place}.type", f"no node kind {name!r} is installed; there are: {known}")
            return None
        return self.kinds[name]

    def _typed_node(
        self, node_id: str, spec: NodeSpec, model: type[BaseModel], kind: dict[str, Any], place: str, kind_place: str
    ) -> Node | None:
        kind = self._with_references(model, kind)
        control = kind["type"] in CONTROL_KINDS
        raw = kind if control else {key: value for key, value in kind.items() if key != "type"}
        config = self._config(model, raw, kind_place, control)
        templates = self._templates(spec, config, raw, place, kind_place, control)
        if spec.on_error and control and isinstance(config, End | Parallel | Finalizer):
            self._problem(f"{place}.on_error", f"a {kind['type']} node cannot fail")
        if spec.concurrency and control:
            message = f"a {kind['type']} node does no work of its own; say it of nodes that do, such as a map's body"
            self._problem(f"{place}.concurrency", message)
        return Node(
            id=node_id,
            kind=kind["type"],
            model=model,
            raw=raw,
            config=None if "config" in templates else config,
            templates=templates,
            retry=self._retry_policy(spec, place),
            timeout=spec.node_timeout_secs or self.definition.timeouts.node_timeout,
            policies=tuple(policy for policy in (self.definition.policy, spec.policy) if policy and policy != Policy()),
            output_key=spec.output_key or getattr(config, "output_key", None),
            items=self._expression(config.items, f"{kind_place}.items") if isinstance(config, Map) else None,
            body=self._body(node_id, config, kind_place),
            queue=spec.queue or None,
            at_once=spec.concurrency.limit if spec.concurrency else None,
        )

    def _with_references(self, model: type[BaseModel], kind: dict[str, Any]) -> dict[str, Any]:
        """A kind that refers to a named configuration of the workflow gets its fields from there."""
        filled = dict(kind)
        for name, section in getattr(model, "references", {}).items():
            referred = kind.get(name)
            entry = getattr(self.definition, section).get(referred) if isinstance(referred, str) else None
            filled = {**(entry or {}), **filled}
        return filled

    def _config(self, model: type[BaseModel], raw: dict[str, Any], place: str, control: bool) -> BaseModel | None:
        try:
            return model.model_validate(raw)
        except ValidationError as error:
            self.problems += problems_of(error, place, unless=None if control else _is_open)
            return None

    def _templates(
        self,
        spec: NodeSpec,
        config: BaseModel | None,
        raw: dict[str, Any],
        place: str,
        kind_place: str,
        control: bool,
    ) -> dict[str, Template]:
        found: dict[str, Template | None] = {}
        if spec.input_mapping is not None:
            found["input"] = self._template(spec.input_mapping, f"{place}.input_mapping")
        if spec.concurrency is not None:
            found["concurrency"] = self._key(spec.concurrency.key, f"{place}.concurrency.key")
        match config:
            case Wait():
                for name in ("correlation_key", "duration", "until"):
                    if (value := getattr(config, name)) is not None:
                        found[name] = self._template(value, f"{kind_place}.{name}")
                self._check_wait(config, kind_place)
            case Subgraph():
                for name in ("input_mapping", "output_mapping"):
                    if (value := getattr(config, name)) is not None:
                        key = "input" if name == "input_mapping" else "output"
                        found[key] = self._template(value, f"{kind_place}.{name}")
            case HumanApproval() if config.description:
                found["description"] = self._template(config.description, f"{kind_place}.description")
            case _ if not control:
                templated = {key: value for key, value in raw.items() if _is_templated(value)}
                if templated:
                    found["config"] = self._template(templated, kind_place)
        return {key: value for key, value in found.items() if value is not None}

    def _check_wait(self, config: Wait, place: str) -> None:
        if isinstance(config.duration, str) and not _is_templated(config.duration):
            self._problem(f"{place}.duration", f"{config.duration!r} is not a duration; try '30s', '5m' or '48h'")
        if config.until and not _is_templated(config.until):
            try:
                datetime.fromisoformat(config.until)
            except ValueError:
                self._problem(f"{place}.until", f"{config.until!r} is not a time; try '2026-03-12T10:00:00Z'")

    def _key(self, source: str, place: str) -> Template | None:
        parsed = self._template(source, place)
        if parsed is not None and "env" in parsed.names:
            self._problem(place, "is stored as it is rendered, so it may not hold env, which are secrets often")
        return parsed

    def _template(self, value: Any, place: str) -> Template | None:
        try:
            parsed = template(value)
            for where, node_id in sorted(parsed.node_ids):
                self._check_reference(node_id, ".".join(filter(None, (place, where))))
            return parsed
        except ExpressionError as error:
            self._problem(".".join(filter(None, (place, error.place))), str(error))
            return None

    def _expression(self, source: str | None, place: str) -> Expression | None:
        if source is None:
            return None
        try:
            parsed = expression(source)
            for node_id in sorted(parsed.node_ids):
                self._check_reference(node_id, place)
            return parsed
        except ExpressionError as error:
            self._problem(place, str(error))
            return None

    def _check_reference(self, node_id: str, place: str) -> None:
        """Of an expression to a node, or to an item of a map."""
        if (map_of(node_id) or node_id) not in self.definition.nodes:
            close = get_close_matches(node_id, self.definition.nodes)
            similar = f"; similar: {', '.join(close)}" if close else ""
            self._problem(place, f"refers to nodes.{node_id}, and there is no such node{similar}")

    def _retry_policy(self, spec: NodeSpec, place: str) -> RetryPolicy:
        if isinstance(spec.retry_policy, RetryPolicy):
            return spec.retry_policy
        policies = {**BUILT_IN_RETRY_POLICIES, **self.definition.retry_policies}
        name = spec.retry_policy or "no_retry"
        if name not in policies:
            self._problem(f"{place}.retry_policy", f"no retry policy {name!r}; there are: {', '.join(policies)}")
        return policies.get(name, policies["no_retry"])

    def _body(self, node_id: str, config: BaseModel | None, place: str) -> Node | None:
        if not isinstance(config, Map | Finalizer):
            return None
        if (config.node is None) == (config.body is None):
            self._problem(place, "give either node (the id of a node) or body (a node written here)")
        if config.body is None:
            return None
        if config.body.get("on_error"):
            self._problem(f"{place}.body.on_error", "a body has no routes; say it of what the body belongs to")
        body = self._node(node_id, config.body, f"{place}.body")
        return self._checked_body(body, f"{place}.body")

    def _checked_body(self, body: Node | None, place: str) -> Node | None:
        if body is not None and body.kind in CONTROL_KINDS and body.kind != "subgraph":
            self._problem(place, f"a body does work; a {body.kind} node decides")
        return body

    def _adopt_bodies(self) -> None:
        """A body that stands under `nodes` belongs to its map or finalizer and to no edge."""
        for node in list(self.nodes.values()):
            if not isinstance(node.config, Map | Finalizer) or node.config.node is None:
                continue
            place = f"{self._kind_place(node.id)}.node"
            body = self.nodes.get(node.config.node)
            if body is None:
                if node.config.node not in self.definition.nodes:
                    self._tear(place, f"there is no node {node.config.node!r}")
                continue
            self.bodies.add(body.id)
            self.nodes[node.id] = Node(**{**vars(node), "body": self._checked_body(body, place)})

    # Edges

    def _add_edges(self) -> None:
        for node in self.nodes.values():
            self._add_routes(node)
        told = {(edge.source, edge.target) for edges in self.edges.values() for edge in edges if edge.route != ERROR}
        for index, spec in enumerate(self.definition.edges):
            place = f"edges[{index}]"
            if not self._is_source(spec.source, f"{place}.from"):
                continue
            condition = self._expression(spec.condition, f"{place}.condition")
            # What a kind says of its own edges may be said again in the list.
            if self._is_place(spec.target, f"{place}.to") and (spec.source, spec.target) not in told:
                self._connect(Edge(spec.source, spec.target, condition))
        self.ends |= {node.id for node in self.nodes.values() if isinstance(node.config, End)}
        for node in self.nodes.values():
            if isinstance(node.config, Join):
                self._add_wait_for(node, node.config)
        for node in self.nodes.values():
            if isinstance(node.config, Parallel) and node.config.join is not None:
                self._add_join(node.config, node.config.join, f"{self._kind_place(node.id)}.join")
        if (target := self.definition.on_budget_exceeded) is not None:
            self._is_place(target, "on_budget_exceeded")
        for node in self.nodes.values():
            if node.id in self.ends and self.edges.get(node.id):
                self._tear(f"nodes.{node.id}", "nothing can follow an end")

    def _add_routes(self, node: Node) -> None:
        for place, target, route, condition in self._routes(node):
            if target is not None and self._is_place(target, place) and self._is_source(node.id, place):
                compiled = self._expression(condition, f"{place}.condition")
                self._connect(Edge(node.id, target, compiled, route))

    def _routes(self, node: Node) -> Iterator[tuple[str, str | None, str, str | None]]:
        """What a kind says of its own edges: (place, target, route, condition)."""
        place = self._kind_place(node.id)
        yield f"nodes.{node.id}.on_error", self.definition.nodes[node.id].get("on_error"), ERROR, None
        match node.config:
            case Condition(branches=branches):
                for index, branch in enumerate(branches):
                    yield f"{place}.branches[{index}]", branch.target, BRANCH, branch.condition
            case Parallel(branches=targets):
                for index, target in enumerate(targets):
                    yield f"{place}.branches[{index}]", target, NEXT, None
            case HumanApproval() as approval:
                yield f"{place}.on_approved", approval.on_approved, APPROVED, None
                yield f"{place}.on_rejected", approval.on_rejected, REJECTED, None
                yield f"{place}.fallback_node", approval.fallback_node, TIMEOUT, None
            case Wait(on_timeout=target):
                yield f"{place}.on_timeout", target, TIMEOUT, None

    def _kind_place(self, node_id: str) -> str:
        nested = isinstance(self.definition.nodes[node_id].get("kind"), Mapping)
        return f"nodes.{node_id}.kind" if nested else f"nodes.{node_id}"

    def _add_wait_for(self, node: Node, join: Join) -> None:
        place = f"{self._kind_place(node.id)}.wait_for"
        for index, source in enumerate(join.wait_for):
            if source not in self.definition.nodes:
                self._tear(f"{place}[{index}]", f"can never be satisfied: there is no node {source!r}")
            elif source == node.id:
                self._tear(f"{place}[{index}]", "can never be satisfied: a join cannot wait for itself")
            elif self._is_source(source, f"{place}[{index}]") and node.id not in {
                edge.target for edge in self.edges.get(source, ())
            }:
                self._connect(Edge(source, node.id))

    def _add_join(self, parallel: Parallel, join_id: str, place: str) -> None:
        join = self._config_of(join_id)
        if self._is_place(join_id, place) and not (isinstance(join, Join) and join.wait_for):
            for branch in parallel.branches:
                self._lead_to_join(branch, join_id)

    def _lead_to_join(self, branch: str, join_id: str) -> None:
        """The ends of a branch that has no way to the join of its parallel get one."""
        reached = _reach([branch], self._all_targets())
        if join_id not in reached:
            for end in sorted(reached & self.nodes.keys() - self.ends):
                if not self.edges.get(end):
                    self._connect(Edge(end, join_id))

    def _all_targets(self) -> dict[str, list[str]]:
        return {source: [edge.target for edge in edges] for source, edges in self.edges.items()}

    def _is_source(self, source: str, place: str) -> bool:
        if source not in self.definition.nodes:
            self._tear(place, f"there is no node {source!r}")
        elif self._is_aside(source):
            self._tear(place, f"{source!r} is run by what it belongs to; no edge leads on from there")
        else:
            return True
        return False

    def _is_aside(self, node_id: str) -> bool:
        """A body or a finalizer: no edge has to do with it."""
        return node_id in self.bodies or isinstance(self._config_of(node_id), Finalizer)

    def _is_place(self, target: str, place: str) -> bool:
        if target == TERMINAL or target in self.definition.nodes:
            if self._is_aside(target):
                self._tear(place, f"{target!r} is run by what it belongs to; no edge leads there")
            return True
        self._tear(place, f"leads to {target!r}, but there is no such node")
        return False

    def _config_of(self, node_id: str) -> BaseModel | None:
        return self.nodes[node_id].config if node_id in self.nodes else None

    def _connect(self, edge: Edge) -> None:
        self.edges.setdefault(edge.source, []).append(edge)

    # The shape of the whole

    def _start(self) -> str | None:
        wanted = self.definition.start_node
        if wanted is not None:
            if wanted not in self.nodes:
                self._problem("start_node", f"there is no node {wanted!r}")
            elif self._is_aside(wanted):
                self._problem("start_node", f"{wanted!r} is run by what it belongs to; no workflow starts there")
            else:
                return wanted
            return None
        reached = {edge.target for edges in self.edges.values() for edge in edges if edge.target != edge.source}
        possible = [node for node in self._main_nodes() if node not in self.ends] or self._main_nodes()
        candidates = [node for node in possible if node not in reached]
        if len(candidates) > 1 and self.definition.on_budget_exceeded in candidates:
            candidates.remove(self.definition.on_budget_exceeded)
        if len(candidates) != 1:
            among = ", ".join(candidates or possible)
            self._problem("start_node", f"is needed: the workflow could start at any of {among}")
            return None
        return candidates[0]

    def _main_nodes(self) -> list[str]:
        return [node_id for node_id in self.nodes if not self._is_aside(node_id)]

    def _check_shape(self, start: str) -> frozenset[tuple[str, str]]:
        roots = [root for root in (start, self.definition.on_budget_exceeded) if root in self.nodes]
        targets = self._all_targets()
        reachable = _reach(roots, targets)
        for node_id in self._main_nodes():
            if node_id not in reachable:
                self._problem(f"nodes.{node_id}", f"is never reached from {start!r}")
        self._check_conditions()
        self._check_way_out(reachable, targets)
        back = _back_edges(roots, targets)
        self._check_joins(back)
        return back

    def _check_conditions(self) -> None:
        for node in self.nodes.values():
            if isinstance(node.config, Condition) and all(edge.route == ERROR for edge in self.edges.get(node.id, ())):
                self._problem(f"{self._kind_place(node.id)}.branches", "a condition without a branch can only fail")

    def _check_way_out(self, reachable: set[str], targets: Mapping[str, Iterable[str]]) -> None:
        sources: dict[str, list[str]] = {}
        for source, ends in targets.items():
            for target in ends:
                sources.setdefault(target, []).append(source)
        exits = [node_id for node_id in self.nodes if self._may_be_last(node_id)]
        finds_out = _reach([*exits, TERMINAL], sources)
        for node_id in self._main_nodes():
            if node_id in reachable and node_id not in finds_out:
                self._problem(f"nodes.{node_id}", "leads round and round: no way from here to an end")

    def _may_be_last(self, node_id: str) -> bool:
        """Whether the node can be done without an edge being taken: the path ends there then."""
        edges = self.edges.get(node_id, ())
        if isinstance(self._config_of(node_id), Condition):
            return not edges
        return all(edge.route not in (NEXT, APPROVED) or edge.condition for edge in edges)

    def _check_joins(self, back: frozenset[tuple[str, str]]) -> None:
        for source, target in sorted(back):
            join = self._config_of(target)
            if isinstance(join, Join) and source in join.wait_for:
                message = f"can never be satisfied: {source!r} comes only after this join"
                self._problem(f"{self._kind_place(target)}.wait_for", message)


def _refuse(uri: str) -> Any:
    raise ValueError(f"{uri} is elsewhere; a schema must stand by itself")


_COMMON = frozenset(NodeSpec.model_fields) - {"kind"}


def _split(raw: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The flat form of a node, as what all kinds share and what is the kind's own."""
    common = {key: value for key, value in raw.items() if key in _COMMON}
    kind = {key: value for key, value in raw.items() if key not in _COMMON}
    return common, kind


def _is_open(found: Mapping[str, Any]) -> bool:
    """A field that holds a template has its type only when it is rendered."""
    return bool(found["loc"]) and found["type"] not in ("missing", "extra_forbidden") and _is_templated(found["input"])


def _is_templated(value: Any) -> bool:
    match value:
        case str():
            return "{{" in value or "{%" in value
        case Mapping():
            return any(map(_is_templated, value.values()))
        case list() | tuple():
            return any(map(_is_templated, value))
    return False


def _reach(roots: Iterable[str], targets: Mapping[str, Iterable[str]]) -> set[str]:
    found = set(roots)
    waiting = list(found)
    while waiting:
        for target in targets.get(waiting.pop(), ()):
            if target not in found:
                found.add(target)
                waiting.append(target)
    return found


def _back_edges(roots: Iterable[str], targets: Mapping[str, list[str]]) -> frozenset[tuple[str, str]]:
    """The edges that lead to a node on the way to their source (depth first, without recursion)."""
    back: set[tuple[str, str]] = set()
    finished: set[str] = set()
    for root in roots:
        path = {root: iter(targets.get(root, ()))} if root not in finished else {}
        while path:
            node, rest = next(reversed(path.items()))
            target = next(rest, None)
            if target is None:
                path.popitem()
                finished.add(node)
            elif target in path:
                back.add((node, target))
            elif target not in finished:
                path[target] = iter(targets.get(target, ()))
    return frozenset(back)
