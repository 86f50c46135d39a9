"""The last step of every compilation: the graph's findings, said of the file."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pydantic import BaseModel

from ..core.definition import CONTROL_KINDS, TERMINAL, RetryPolicy
from ..core.graph import parse
from ..errors import Invalid, Problem
from ..wording import in_plain_words
from .compiler import Compiler
from .nodes import RETRY_WORDS, WORDS
from .problems import AuthoringError, FileProblem, did_you_mean
from .source import Written, settle


def checked(compiler: Compiler, tree: Written) -> dict[str, Any]:
    """The plain IR. Raises `AuthoringError` with what the compiler and the graph found together."""
    origins: dict[str, Written] = {}
    ir = settle(tree, origins)
    words = _Words(ir, origins, compiler.kinds)
    found = [words.of(problem, compiler.file) for problem in _problems(ir, compiler.kinds)]
    if compiler.problems or found:
        known = {(problem.line, problem.column) for problem in compiler.problems}
        fresh = [problem for problem in found if (problem.line, problem.column) not in known]
        raise AuthoringError([*compiler.problems, *fresh])
    return dict(ir)


def _problems(ir: Any, kinds: Mapping[str, type[BaseModel]]) -> Iterator[Problem]:
    """The graph stops at a header that is not sound, and looks at the edges only when all nodes are. So it is asked
    again with a stand-in for whatever is not sound, and the author need not come back for the rest."""
    first = _found(ir, kinds)
    yield from first
    header = {_normal(problem.place).split(".")[0] for problem in first} & _HARMLESS
    if header:
        yield from _problems({**{key: value for key, value in ir.items() if key not in header}, **_NAMED}, kinds)
        return
    broken = {node_id for node_id in _section(ir, "nodes") if any(_is_of(node_id, problem) for problem in first)}
    if broken:
        nodes = {node_id: _STAND_IN if node_id in broken else node for node_id, node in ir["nodes"].items()}
        second = _found({**ir, "nodes": nodes}, {**kinds, "stand-in": _StandIn})
        yield from (p for p in second if p.place.startswith("edges[") or re.search(_NOWHERE, p.message))


_NAMED = {"workflow_id": "stand-in", "version": "0.0.0"}
_HARMLESS = frozenset(
    {*_NAMED, "name", "description", "labels", "state_schema", "timeouts", "policy", "data_policy", "token_budget"}
    | {"cost_budget_usd", "continue_as_new", "max_iterations"}
)
"""What the rest of a definition does not lean on."""


def _found(ir: Any, kinds: Mapping[str, type[BaseModel]]) -> list[Problem]:
    try:
        parse(ir, kinds)
    except Invalid as invalid:
        return [problem for problem in invalid.problems if not _is_of_a_union(problem, invalid.problems)]
    return []


def _is_of_a_union(problem: Problem, others: Iterable[Problem]) -> bool:
    """That a policy is not a name either says nothing, where it is said what is wrong inside the policy."""
    inside = f"{problem.place}."
    return problem.message.endswith("valid string") and any(other.place.startswith(inside) for other in others)


class _StandIn(BaseModel):
    """A node of any sort."""


_STAND_IN = {"kind": {"type": "stand-in"}}
_NOWHERE = "no such node|there is no node"


def _is_of(node_id: str, problem: Problem) -> bool:
    place = _normal(problem.place)
    return place == f"nodes.{node_id}" or place.startswith(f"nodes.{node_id}.")


class _Words:
    """Turns `edges[3].to` into the place and the line where the author wrote that."""

    def __init__(self, ir: Any, origins: Mapping[str, Written], kinds: Mapping[str, type[BaseModel]]) -> None:
        self._origins = origins
        self._nodes = _section(ir, "nodes")
        self._policies = _section(ir, "retry_policies")
        self._kinds: dict[str, type[BaseModel]] = {**kinds, **CONTROL_KINDS}

    def of(self, problem: Problem, file: str) -> FileProblem:
        path = _normal(problem.place)
        origin, rest = self._origin(path)
        place = ".".join(filter(None, (origin.place, rest)))
        message = in_plain_words(problem.message) + self._hint(problem.message, path)
        return FileProblem(place, message, file, origin.line, origin.column)

    def _origin(self, path: str) -> tuple[Written, str]:
        steps = path.split(".") if path else []
        for length in range(len(steps), -1, -1):
            if (origin := self._origins.get(".".join(steps[:length]))) is not None:
                rest = steps[length:]
                return origin, ".".join(rest[1:] if rest[:1] == ["kind"] else rest)
        return Written(None), path

    def _hint(self, message: str, path: str) -> str:
        match re.search(r"'([^']*)'", message):
            case re.Match() as quoted if re.search(_NOWHERE, message):
                return did_you_mean(quoted[1], [*self._nodes, TERMINAL])
            case re.Match() as quoted if message.startswith("no node kind"):
                return did_you_mean(quoted[1], self._kinds)
            case re.Match() as quoted if message.startswith("no retry policy"):
                return did_you_mean(quoted[1], self._policies)
        return did_you_mean(path.rsplit(".", 1)[-1], self._known(path)) if message == "unknown field" else ""

    def _known(self, path: str) -> Iterable[str]:
        """The fields of the kind that a place belongs to, or of a retry policy."""
        if path.startswith("retry_policies.") or "retry_policy" in path.split("."):
            return {*RetryPolicy.model_fields, *RETRY_WORDS}
        node_id, found, _ = path.removeprefix("nodes.").rpartition(".kind.")
        kind = _section(self._nodes.get(node_id), "kind").get("type") if found else None
        model = self._kinds.get(kind) if isinstance(kind, str) else None
        return () if model is None else {*model.model_fields, *WORDS}


def _section(tree: Any, name: str) -> Mapping[str, Any]:
    value = tree.get(name) if isinstance(tree, dict) else None
    return value if isinstance(value, dict) else {}


def _normal(place: str) -> str:
    """The graph writes `edges[3].to`, pydantic `ir.edges.3.to`."""
    return re.sub(r"\[(\d+)\]", r".\1", place.removeprefix("ir.") if place != "ir" else "")
