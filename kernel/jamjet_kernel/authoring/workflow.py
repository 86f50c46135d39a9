"""A workflow file as an IR tree: the header, the sections, the nodes of either shape.

Whatever stands under `workflow` may as well stand at the top of the file, and the other way round.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from ..core.definition import TERMINAL, Definition
from .compiler import Compiler, Fields
from .nodes import Tree, compile_edge, compile_node, compile_retry, take_timeout
from .problems import did_you_mean
from .source import Written


def compile_workflow(compiler: Compiler, written: Written) -> Written:
    fields = _gathered(compiler, written, "workflow")
    ir = compile_header(compiler, written, fields)
    nodes = _nodes_by_id(compiler, fields.pop("nodes", None))
    compiler.node_ids = frozenset(nodes)
    edges = [compile_edge(compiler, edge) for edge in compiler.members(fields.pop("edges", None))]
    compiled = {}
    for node_id, node in nodes.items():
        compiled[node_id] = node.saying(compile_node(compiler, node_id, node, edges))
    edges += _edges_to_joins(compiled, edges)
    report_unknown(compiler, fields, HEADER)
    return written.saying({**ir, "nodes": compiled, "edges": edges})


def compile_header(compiler: Compiler, written: Written, fields: Fields) -> Tree:
    """Takes all but nodes and edges out of the fields."""
    ir: Tree = {}
    for name in [name for name in fields if name in _PLAIN]:
        _put(compiler, ir, _PLAIN[name], fields.pop(name))
    for name in [name for name in fields if name in _SECTIONS]:
        _SECTIONS[name](compiler, ir, fields.pop(name))
    if (timeout := take_timeout(compiler, fields)) is not None:
        ir["timeouts"] = {**_members(ir.get("timeouts")), "workflow_timeout": timeout}
    _check_version(compiler, ir)
    _check_required(compiler, written, ir)
    return ir


def _gathered(compiler: Compiler, written: Written, header: str) -> Fields:
    fields = compiler.fields(written)
    inner = compiler.fields(fields.pop(header, None))
    for name in inner.keys() & fields.keys():
        compiler.problem(inner[name], f"stands at the top of the file as well, on line {fields[name].line}")
    return {**fields, **inner}


def report_unknown(compiler: Compiler, fields: Fields, known: frozenset[str]) -> None:
    """Names that begin with `x-` are the author's own, for anchors and notes."""
    for name, written in fields.items():
        if not name.startswith("x-"):
            known_ones = did_you_mean(name, known) or f"; known are: {', '.join(sorted(known))}"
            compiler.problem(written, f"unknown field{known_ones}")


def _put(compiler: Compiler, ir: Tree, name: str, written: Written) -> None:
    if name in ir:
        compiler.problem(written, f"says again what another field says: {name}")
    ir[name] = written


_PLAIN = {
    "id": "workflow_id",
    "start": "start_node",
    "state": "state_schema",
    **{name: name for name in Definition.model_fields if name not in ("nodes", "edges")},
}


# Sections that are written otherwise than the IR has them


def _retry_policies(compiler: Compiler, ir: Tree, written: Written) -> None:
    policies = compiler.fields(written)
    ir["retry_policies"] = written.saying({name: compile_retry(compiler, value) for name, value in policies.items()})


_TIMEOUTS = {"node": "node_timeout", "workflow": "workflow_timeout"}
_TIMEOUTS |= {"heartbeat": "heartbeat_interval", "approval": "approval_timeout"}


def _timeouts(compiler: Compiler, ir: Tree, written: Written) -> None:
    named = {_TIMEOUTS.get(name, name): value for name, value in compiler.fields(written).items()}
    ir["timeouts"] = written.saying(named)


def _named(section: str) -> Callable[[Compiler, Tree, Written], None]:
    def put(compiler: Compiler, ir: Tree, written: Written) -> None:
        _put(compiler, ir, section, compiler.by_name(written))

    return put


def _inside(member: str, section: str) -> Callable[[Compiler, Tree, Written], None]:
    """`mcp: {servers: …}` is `mcp_servers`."""

    def put(compiler: Compiler, ir: Tree, written: Written) -> None:
        fields = compiler.fields(written)
        if member in fields:
            _put(compiler, ir, section, compiler.by_name(fields.pop(member)))
        report_unknown(compiler, fields, frozenset({member}))

    return put


_BUDGETS = {"max_cost_usd": "cost_budget_usd", "cost_usd": "cost_budget_usd", "cost_budget_usd": "cost_budget_usd"}
_BUDGETS |= {"on_exceeded": "on_budget_exceeded", "max_iterations": "max_iterations"}
_TOKENS = {"input_tokens": "input_tokens", "output_tokens": "output_tokens", "total_tokens": "total_tokens"}
_TOKENS |= {"token_budget": "total_tokens", "max_tokens": "total_tokens"}


def take_budgets(compiler: Compiler, ir: Tree, written: Written) -> None:
    """Also the `limits` of an agent."""
    fields = compiler.fields(written)
    if (timeout := take_timeout(compiler, fields)) is not None:
        ir["timeouts"] = {**_members(ir.get("timeouts")), "workflow_timeout": timeout}
    for name in [name for name in fields if name in _BUDGETS]:
        _put(compiler, ir, _BUDGETS[name], fields.pop(name))
    tokens = {_TOKENS[name]: fields.pop(name) for name in list(fields) if name in _TOKENS}
    if tokens:
        _put(compiler, ir, "token_budget", written.saying(tokens))
    report_unknown(compiler, fields, frozenset({*_BUDGETS, *_TOKENS, "timeout"}))


def _members(tree: Any) -> dict[str, Any]:
    value = _bare(tree)
    return value if isinstance(value, dict) else {}


_SECTIONS: dict[str, Callable[[Compiler, Tree, Written], None]] = {
    "timeouts": _timeouts,
    "retry_policies": _retry_policies,
    "models": _named("models"),
    "tools": _named("tools"),
    "mcp_servers": _named("mcp_servers"),
    "remote_agents": _named("remote_agents"),
    "mcp": _inside("servers", "mcp_servers"),
    "a2a": _inside("remote_agents", "remote_agents"),
    "budgets": take_budgets,
    "limits": take_budgets,
}
for _name in _SECTIONS.keys() & _PLAIN.keys():
    del _PLAIN[_name]
HEADER = frozenset({*_PLAIN, *_SECTIONS, "workflow", "nodes", "edges", "timeout"})


# What the IR cannot do without. A stand-in lets the rest be checked as well.


def _check_version(compiler: Compiler, ir: Tree) -> None:
    version = ir.get("version")
    if version is None or isinstance(version.value, str) or version.value is None:
        return
    wanted = ".".join([*str(version.raw).split("."), "0", "0"][:3])
    compiler.problem(version, f"{version.raw} is read as a number; write '{wanted}', three numbers make a version")
    ir["version"] = version.saying("0.0.0")


def _check_required(compiler: Compiler, written: Written, ir: Tree) -> None:
    header = written.value.get("workflow", written) if isinstance(written.value, dict) else written
    for name, word, example in (("workflow_id", "id", "stand-in"), ("version", "version", "0.0.0")):
        value = ir.get(name)
        if value is None or value.value is None:
            compiler.problem(value or header, "is required", "" if value else word)
            ir[name] = header.saying(example)


# Nodes


def _nodes_by_id(compiler: Compiler, written: Written | None) -> dict[str, Written]:
    if written is None or not isinstance(written.value, list):
        return compiler.fields(written)
    nodes: dict[str, Written] = {}
    for member in written.value:
        fields = compiler.fields(member)
        node_id = compiler.text(fields.get("id"))
        if node_id is None:
            compiler.problem(member, "is required", "id")
        elif node_id in nodes:
            compiler.problem(fields["id"], f"there is another node {node_id!r}, on line {nodes[node_id].line}")
        else:
            nodes[node_id] = replace(member, line=fields["id"].line, column=fields["id"].column)
    return nodes


def _edges_to_joins(nodes: dict[str, Written], edges: list[Tree]) -> Iterator[Tree]:
    """The ends of a parallel node's branches lead to its join, unless they lead elsewhere."""
    following: dict[str, list[str]] = {node_id: list(_routes(node.value["kind"])) for node_id, node in nodes.items()}
    for edge in edges:
        source, target = _text(edge.get("from")), _text(edge.get("to"))
        if source in following:
            following[source].append(target)
    for node_id, node in nodes.items():
        kind = node.value["kind"]
        join = _text(kind.get("join"))
        if _text(kind.get("type")) == "parallel" and join in nodes:
            for tail in _tails(nodes, following, following[node_id], join):
                yield {"from": kind["join"].saying(tail), "to": kind["join"]}


def _tails(nodes: dict[str, Written], following: dict[str, list[str]], heads: list[str], join: str) -> Iterator[str]:
    seen = {join, TERMINAL}
    waiting = list(reversed(heads))
    while waiting:
        node_id = waiting.pop()
        if node_id in seen or node_id not in nodes:
            continue
        seen.add(node_id)
        if following[node_id]:
            waiting += following[node_id]
        elif _text(nodes[node_id].value["kind"].get("type")) != "end":
            yield node_id


def _routes(kind: Tree) -> Iterator[str]:
    """Where a control node says that it goes on. A way out of a failure is not meant."""
    if _text(kind.get("type")) not in ("branch", "condition", "parallel", "human_approval"):
        return
    branches = _bare(kind.get("branches"))
    for branch in branches if isinstance(branches, list) else ():
        inner = _bare(branch)
        yield _text(inner.get("target") if isinstance(inner, dict) else inner)
    if "on_approved" in kind:
        yield _text(kind["on_approved"])


def _text(tree: Any) -> str:
    value = _bare(tree)
    return value if isinstance(value, str) else ""


def _bare(tree: Any) -> Any:
    return tree.value if isinstance(tree, Written) else tree
