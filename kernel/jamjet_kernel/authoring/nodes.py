"""One node as people write it, made a node of the IR and the edges that leave it.

What a kind declares itself belongs to the kind and is passed on untouched; so does everything that nobody
here understands, and the graph says of it that it is unknown.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from ..core.definition import CONTROL_KINDS
from .compiler import Compiler, Fields
from .source import Written

Tree = dict[str, Any]
"""A part of the IR whose values may be `Written`."""

COMMON = ("description", "labels", "policy", "output_key", "input_mapping", "on_error", "queue", "concurrency")
WORDS = frozenset(
    {*COMMON, "id", "type", "next", "retry", "retry_policy", "timeout", "node_timeout_secs", "input", "fallback"}
)
"""What any node may say in a file, for suggestions."""


def compile_node(compiler: Compiler, node_id: str, written: Written, edges: list[Tree]) -> Tree:
    """Appends to `edges` those that leave the node."""
    fields = _flat(compiler, written)
    kind_name = _type_of(fields)
    node: Tree = {}
    kind: Tree = {"type": fields.pop("type")} if "type" in fields else {}
    if "id" in fields and (own_id := fields.pop("id")).value != node_id:
        node["id"] = own_id
    _take_state_mappings(compiler, kind_name, fields)
    _take_prompts(compiler, kind_name, fields)
    _take_common(compiler, kind_name, fields, node, kind)
    if kind_name in _CONTROL:
        _CONTROL[kind_name](compiler, written, fields, kind)
    edges += _edges(compiler, node_id, fields, kind_name, kind)
    if kind_name == "human_approval":
        _name_fallback(compiler, kind)
    kind.update({name: value for name, value in fields.items() if not name.startswith("x-")})
    return {**node, "kind": kind}


def compile_retry(compiler: Compiler, written: Written) -> Written:
    """A retry policy, or the name of one."""
    if not isinstance(written.value, dict):
        return written
    fields = compiler.fields(written)
    policy: Tree = {}
    for name, value in fields.items():
        to, make = _RETRY.get(name, (name, None))
        if to in policy:
            compiler.problem(value, f"says again what another field of this policy says: {to}")
        policy[to] = make(compiler, value) if make else value
    return written.saying(policy)


def compile_edge(compiler: Compiler, written: Written) -> Tree:
    """An edge of a list of edges."""
    fields = compiler.fields(written)
    for word in ("when", "if"):
        if word in fields:
            fields.setdefault("condition", fields.pop(word))
    edge: Tree = dict(fields)
    if "condition" in edge:
        edge["condition"] = _expression(edge["condition"])
    return edge


# What every node may say


def _flat(compiler: Compiler, written: Written) -> Fields:
    """All ways to write a node as one: `type` and everything else side by side."""
    fields = compiler.fields(written)
    kind = fields.get("kind")
    if kind is not None:
        del fields["kind"]
        nested = compiler.fields(kind) if isinstance(kind.value, dict) else {"type": kind}
        fields = {**nested, **fields}
    config = fields.get("config")
    if config is not None and not compiler.declares(_type_of(fields), "config"):
        del fields["config"]
        fields = {**compiler.fields(config), **fields}
    return fields


def _type_of(fields: Fields) -> str | None:
    written = fields.get("type")
    return written.value if written is not None and isinstance(written.value, str) else None


def _take_state_mappings(compiler: Compiler, kind: str | None, fields: Fields) -> None:
    source = fields.pop("input_from_state", None)
    if source is not None:
        fields.setdefault("input_mapping", _input_mapping(compiler, source))
    target = fields.pop("output_to_state", None)
    key = None if target is None else _output_key(compiler, target)
    if key is not None:
        fields.setdefault("output_key", key)
    if "input" in fields and kind in compiler.kinds and not compiler.declares(kind, "input"):
        fields.setdefault("input_mapping", fields.pop("input"))


def _input_mapping(compiler: Compiler, written: Written) -> Written:
    match written.value:
        case str():
            return _state_template(written)
        case list():
            names = [(compiler.text(member), member) for member in written.value]
            return written.saying({name: _state_template(member) for name, member in names if name})
    return written.saying({name: _state_template(value) for name, value in compiler.fields(written).items()})


def _state_template(written: Written) -> Written:
    name = written.value
    if not isinstance(name, str) or "{{" in name:
        return written
    name = name.removeprefix("state.")
    path = f"state.{name}" if re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", name) else f"state[{name!r}]"
    return written.saying("{{ " + path + " }}")


def _output_key(compiler: Compiler, written: Written) -> Written | None:
    """One entry names the state's key for the result; several that keep their names are what an object does anyway."""
    if isinstance(written.value, str):
        return written
    if isinstance(written.value, list):
        return written.value[0] if len(written.value) == 1 else None
    targets = compiler.fields(written)
    if len(targets) == 1:
        return next(iter(targets.values()))
    renamed = [name for name, value in targets.items() if value.value != name]
    if renamed:
        message = "can rename one result, not several; return an object whose keys are the state's, or name one key"
        compiler.problem(targets[renamed[0]], message)
    return None


_TEXTS = ("prompt", "system", "system_prompt", "message", "rubric")


def _take_prompts(compiler: Compiler, kind: str | None, fields: Fields) -> None:
    if "prompt_template" in fields and not compiler.declares(kind, "prompt_template"):
        fields.setdefault("prompt", fields.pop("prompt_template"))
    for name in _TEXTS:
        path = fields.get(f"{name}_file")
        if path is not None and not compiler.declares(kind, f"{name}_file"):
            fields[name] = compiler.prompt(path, fields.pop(f"{name}_file"))
        elif name in fields and (named := _named_file(fields[name])) is not None:
            fields[name] = compiler.prompt(fields[name], named)


def _named_file(prompt: Written) -> Written | None:
    match prompt.value:
        case {"file": Written() as path, **others} if not others:
            return path
        case str() if re.fullmatch(r"[\w./-]+/[\w.-]+\.(md|txt|j2|jinja2?)", prompt.value):
            return prompt
    return None


def _take_common(compiler: Compiler, kind_name: str | None, fields: Fields, node: Tree, kind: Tree) -> None:
    _take_description(compiler, kind_name, fields, node, kind)
    node.update({name: fields.pop(name) for name in COMMON if name in fields})
    if kind_name == "subgraph" and "input_mapping" in node:
        kind["input_mapping"] = node.pop("input_mapping")
    retry = [fields.pop(name) for name in ("retry", "retry_policy") if name in fields]
    if len(retry) == 2:
        compiler.problem(retry[1], "give retry or retry_policy, not both")
    if retry:
        node["retry_policy"] = compile_retry(compiler, retry[0])
    if kind_name in ("human_approval", "wait"):
        return
    if (timeout := take_timeout(compiler, fields, kind_name)) is not None:
        node["node_timeout_secs"] = timeout
    if "fallback" in fields and not compiler.declares(kind_name, "fallback") and "on_error" not in node:
        node["on_error"] = fields.pop("fallback")


def _take_description(compiler: Compiler, kind_name: str | None, fields: Fields, node: Tree, kind: Tree) -> None:
    """A label describes the node; what an approval asks is the approval's own description."""
    if kind_name == "human_approval":
        asked = _first(fields, ("message", "prompt", "description"))
        kind.update({} if asked is None else {"description": asked})
    if "label" in fields and not compiler.declares(kind_name, "label"):
        label = fields.pop("label")
        node.update({} if "description" in fields else {"description": label})


_UNITS = {
    "timeout_ms": 0.001,
    "timeout_secs": 1,
    "timeout_seconds": 1,
    "node_timeout_secs": 1,
    "timeout_minutes": 60,
    "timeout_hours": 3600,
    "timeout_days": 86400,
}


def take_timeout(compiler: Compiler, fields: Fields, kind: str | None = None) -> Written | None:
    """A timeout in any of its spellings, in seconds or as a duration's text."""
    found: list[Written] = []
    for name in ("timeout", *_UNITS):
        if name not in fields or compiler.declares(kind, name):
            continue
        written = fields.pop(name)
        if isinstance(written.value, dict):
            written = _only_member(compiler, written, ("node_seconds", "seconds", "node_timeout"))
        found.append(_times(compiler, written, _UNITS.get(name, 1)))
    if len(found) > 1:
        compiler.problem(found[1], "is a second timeout of the same node; give one")
    return found[0] if found else None


def _only_member(compiler: Compiler, written: Written, names: tuple[str, ...]) -> Written:
    members = compiler.fields(written)
    for name, value in members.items():
        if name not in names:
            compiler.problem(value, f"unknown field; known here: {', '.join(names)}")
    return next((members[name] for name in names if name in members), written.saying(None))


def _times(compiler: Compiler, written: Written, factor: float) -> Written:
    value = written.value
    if factor == 1 or isinstance(value, bool) or not isinstance(value, int | float):
        if factor != 1:
            compiler.problem(written, "must be a number")
            return written.saying(0)
        return written
    product = value * factor
    return written.saying(int(product) if product == int(product) else product)


_BACKOFFS = {"constant": "fixed"}
_ERROR_CLASSES = {"rate_limited": "rate_limit", "model_overloaded": "server_error", "connection_error": "io_error"}


def _milliseconds(compiler: Compiler, written: Written) -> Written:
    return _times(compiler, written, 0.001)


def _backoff(_: Compiler, written: Written) -> Written:
    return written.saying(_BACKOFFS.get(written.value, written.value)) if isinstance(written.value, str) else written


def _retry_on(compiler: Compiler, written: Written) -> Written:
    members = compiler.members(written)
    named = [_ERROR_CLASSES.get(m.value, m.value) if isinstance(m.value, str) else m.value for m in members]
    return written.saying([member.saying(name) for member, name in zip(members, named, strict=True)])


_RETRY: dict[str, tuple[str, Callable[[Compiler, Written], Written] | None]] = {
    "attempts": ("max_attempts", None),
    "backoff": ("backoff", _backoff),
    "delay": ("initial_delay", None),
    "base_delay": ("initial_delay", None),
    "delay_ms": ("initial_delay", _milliseconds),
    "initial_delay_ms": ("initial_delay", _milliseconds),
    "max_delay_ms": ("max_delay", _milliseconds),
    "retry_on": ("retryable_on", _retry_on),
    "retryable_errors": ("retryable_on", _retry_on),
    "retryable_on": ("retryable_on", _retry_on),
}
RETRY_WORDS = frozenset(_RETRY)


# Where a node leads


def _edges(compiler: Compiler, node_id: str, fields: Fields, kind_name: str | None, kind: Tree) -> list[Tree]:
    written = [fields.pop(name) for name in ("next", "edges") if name in fields]
    if len(written) == 2:
        compiler.problem(written[1], "give next or edges, not both")
    found = []
    for member in compiler.members(written[0]) if written else []:
        edge = _edge(compiler, member)
        if edge is not None and not (kind_name == "human_approval" and _is_decision(edge, kind)):
            found.append({"from": member.saying(node_id), **edge})
    return found


def _edge(compiler: Compiler, member: Written) -> Tree | None:
    if isinstance(member.value, str):
        return {"to": member}
    fields = compiler.fields(member)
    target = _first(fields, ("to", "target", "next", "else"))
    condition = _first(fields, ("when", "condition", "if"))
    for name, value in fields.items():
        compiler.problem(value, f"unknown field of an edge: {name!r}; known are to, when")
    if target is None or compiler.text(target) is None:
        if target is None and isinstance(member.value, dict):
            compiler.problem(member, "is required: the node it leads to", "to")
        return None
    return {"to": target} if condition is None else {"to": target, "condition": _expression(condition)}


def _first(fields: Fields, names: tuple[str, ...]) -> Written | None:
    return next((fields.pop(name) for name in names if name in fields), None)


_WRAPPED = re.compile(r"\s*\{\{(?P<inside>(?:(?!\}\}).)*)\}\}\s*", re.DOTALL)


def _expression(written: Written) -> Written:
    """An expression; the braces of a template around it are forgiven, and `true` is one."""
    if isinstance(written.value, bool):
        return written.saying(str(written.value).lower())
    wrapped = _WRAPPED.fullmatch(written.value) if isinstance(written.value, str) else None
    return written.saying(wrapped["inside"].strip()) if wrapped else written


_DECISION = re.compile(r"\s*(?:\w+\.)*decision\s*==\s*['\"](approved|rejected)['\"]\s*")


def _is_decision(edge: Tree, kind: Tree) -> bool:
    """An edge that asks how the approval was decided is a route of the approval."""
    condition = edge.get("condition")
    text = condition.value if condition is not None else None
    asked = _DECISION.fullmatch(text) if isinstance(text, str) else None
    if asked is None or f"on_{asked[1]}" in kind:
        return False
    kind[f"on_{asked[1]}"] = edge["to"]
    return True


# What the control kinds say


def _condition(compiler: Compiler, written: Written, fields: Fields, kind: Tree) -> None:
    branches = []
    for name in ("conditions", "branches"):
        branches += [_branch(compiler, member) for member in compiler.members(fields.pop(name, None))]
    branches += _if_true_if_false(fields)
    if not branches:  # the second shape writes them as edges
        edges = [(member, _edge(compiler, member)) for member in compiler.members(fields.pop("edges", None))]
        branches = [_branch_of(member, edge) for member, edge in edges if edge is not None]
    default = _first(fields, ("default", "else"))
    if default is not None:
        branches.append({"target": default})
    if not branches:
        compiler.problem(written, "needs conditions: a list of {if, next}, and perhaps a default", "conditions")
    kind["branches"] = branches


def _branch(compiler: Compiler, member: Written) -> Any:
    if not isinstance(member.value, dict):
        compiler.problem(member, "must be like {if: 'state.score > 1', next: some_node}")
        return member.saying({"target": "end"})
    fields = compiler.fields(member)
    branch: Tree = {}
    if (condition := _first(fields, ("condition", "if", "when", "expression"))) is not None:
        branch["condition"] = _expression(condition)
    if (target := _first(fields, ("target", "next", "to", "then", "else"))) is not None:
        branch["target"] = target
    return member.saying({**branch, **fields})


def _branch_of(member: Written, edge: Tree) -> Any:
    return member.saying({"target" if name == "to" else name: value for name, value in edge.items()})


def _if_true_if_false(fields: Fields) -> list[Tree]:
    if "if_true" not in fields and "if_false" not in fields:
        return []
    condition = _first(fields, ("expression", "condition", "if"))
    branches: list[Tree] = []
    if "if_true" in fields:
        target = fields.pop("if_true")
        branches.append({"target": target} if condition is None else _when(condition, target))
    if "if_false" in fields:
        branches.append({"target": fields.pop("if_false")})
    return branches


def _when(condition: Written, target: Written) -> Tree:
    return {"condition": _expression(condition), "target": target}


def _parallel(compiler: Compiler, written: Written, fields: Fields, kind: Tree) -> None:
    """After a parallel node comes its join; people call it `next` as well."""
    after = fields.get("next")
    if after is not None and isinstance(after.value, str) and "join" not in fields:
        fields["join"] = fields.pop("next")


def _human_approval(compiler: Compiler, written: Written, fields: Fields, kind: Tree) -> None:
    if (timeout := take_timeout(compiler, fields)) is not None:
        kind["timeout_secs"] = timeout
    fallback = _first(fields, ("fallback_node", "fallback", "on_timeout"))
    kind.update({name: fields.pop(name) for name in ("on_approved", "on_rejected") if name in fields})
    kind.update({} if fallback is None else {"fallback_node": fallback})


_ANSWERS = {"reject": "on_rejected", "rejected": "on_rejected", "approve": "on_approved", "approved": "on_approved"}


def _name_fallback(compiler: Compiler, kind: Tree) -> None:
    """`on_timeout: reject` means: go where a rejection goes. Without a route both fail the execution."""
    fallback = kind.get("fallback_node")
    if fallback is None:
        return
    answer = fallback.value
    if not isinstance(answer, str) or answer in compiler.node_ids or answer not in _ANSWERS:
        return
    route = kind.get(_ANSWERS[answer])
    if route is not None:
        kind["fallback_node"] = fallback.saying(route.value)
    elif _ANSWERS[answer] == "on_rejected":
        del kind["fallback_node"]


def _wait(compiler: Compiler, written: Written, fields: Fields, kind: Tree) -> None:
    event = _first(fields, ("correlation_key", "event"))
    if event is not None:
        kind["correlation_key"] = event
    if (timeout := take_timeout(compiler, fields)) is not None:
        kind["timeout_secs"] = timeout
    if (fallback := _first(fields, ("on_timeout", "fallback", "fallback_node"))) is not None:
        kind["on_timeout"] = fallback
    if "condition" in fields:
        return
    timed = fields.get("duration") or fields.get("until")
    if timed is None and event is None:
        compiler.problem(written, "must say what to wait for: event, duration or until", "event")
        kind.update(condition="timer", duration=0)
    elif timed is None or event is None:
        kind["condition"] = (event or timed or written).saying("external_event" if event else "timer")
    else:
        kind["condition"] = timed.saying("either")


def _with_body(compiler: Compiler, written: Written, fields: Fields, kind: Tree) -> None:
    if "items" in fields:
        fields["items"] = _expression(fields["items"])
    body = fields.pop("body", None)
    if body is not None:
        inner: list[Tree] = []
        kind["body"] = body.saying(compile_node(compiler, "", body, inner))
        for edge in inner:
            compiler.problem(edge["to"], "a body leads nowhere; the node it belongs to does")


_CONTROL: dict[str | None, Callable[[Compiler, Written, Fields, Tree], None]] = {
    "condition": _condition,
    "branch": _condition,
    "parallel": _parallel,
    "human_approval": _human_approval,
    "wait": _wait,
    "map": _with_body,
    "finalizer": _with_body,
}
assert _CONTROL.keys() <= CONTROL_KINDS.keys()
