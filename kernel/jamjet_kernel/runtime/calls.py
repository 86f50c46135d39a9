"""One attempt of a node: what whoever runs it is given, and what is taken back of it.

The same for the worker of this process and for remote ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
from pydantic import BaseModel, ValidationError

from ..core import events as ev
from ..core.decide import ENV_MARK
from ..core.graph import Node, problems_of
from ..core.progress import Progress, Run, RunStatus
from ..errors import NodeFailed, Problem
from ..ports import WorkItem
from ..results import copied
from .live import Live

MOST_LOSSES = 20
"""Workers that one piece of work may cost: more than any row of accidents, and fewer than for ever."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """`idempotency_key` is the same for all attempts of one run in one iteration; `input` is a copy."""

    node: Node
    config: BaseModel
    input: Any
    idempotency_key: str


def wanted(progress: Progress, item: WorkItem) -> Run | None:
    """The run that waits for just this piece of work. None: nobody does any more."""
    run = progress.run(item.run_id)
    return run if run.status is RunStatus.SCHEDULED and run.attempt == item.attempt else None


def obstacle(progress: Progress, item: WorkItem, run: Run) -> ev.NodeHeld | ev.NodeFailed | None:
    """What becomes of the work instead of being done."""
    if progress.held:
        return ev.NodeHeld(at=0, node_id=item.run_id, attempt=run.attempt, iteration=run.iteration)
    if item.losses >= MOST_LOSSES:
        reason = f"{item.losses} workers died with it: it seems to be the node that kills them"
        return failed(item.run_id, run, NodeFailed(reason, retryable=False))
    return None


def prepared(live: Live, item: WorkItem, run: Run, env: Mapping[str, str]) -> Prepared:
    """Raises `NodeFailed`, not retryable, where the rendered configuration is not valid."""
    node = live.graph.worker_node(item.run_id)
    given = copied(live.committed.input_of(item.run_id))
    key = f"{item.execution_id}:{item.run_id}:{run.iteration}"
    if any("env" in template.names for template in node.templates.values()):
        given = _with_env(given, env)
        run = msgspec.structs.replace(run, config=_with_env(run.config, env))
    config = _rendered(node, run) if node.config is None else node.config
    return Prepared(node, config, given, key)


def failed(
    run_id: str, run: Run, failure: NodeFailed, *, jitter: float = 0.0, duration_ms: float | None = None
) -> ev.NodeFailed:
    return ev.NodeFailed(
        at=0,
        node_id=run_id,
        attempt=run.attempt,
        iteration=run.iteration,
        error=ev.Failure(str(failure), failure.error_class, run_id, failure.details),
        retryable=failure.retryable,
        jitter=jitter,
        duration_ms=duration_ms,
    )


def unfit(error: Exception) -> NodeFailed:
    """Why a result cannot be taken in. It is the attempt's failure: the same would be brought again for ever."""
    if isinstance(error, NodeFailed):
        return error
    return NodeFailed(f"its result cannot be taken in: {type(error).__name__}: {error}", retryable=False)


def refused(event: ev.NodeCompleted, error: Exception) -> ev.NodeFailed:
    """The failure that an attempt ends with instead of this result."""
    return ev.NodeFailed(
        at=0,
        node_id=event.node_id,
        attempt=event.attempt,
        iteration=event.iteration,
        error=ev.Failure(str(unfit(error)), node_id=event.node_id),
        duration_ms=event.duration_ms,
    )


def _with_env(value: Any, env: Mapping[str, str]) -> Any:
    """Puts the environment's values where the templates left marks."""
    match value:
        case str() if ENV_MARK in value:
            for name, secret in env.items():
                value = value.replace(f"{ENV_MARK}{name}\ue001", secret)
            return value
        case dict():
            return {key: _with_env(inner, env) for key, inner in value.items()}
        case list():
            return [_with_env(inner, env) for inner in value]
    return value


def _rendered(node: Node, run: Run) -> BaseModel:
    try:
        return node.rendered(run.config)
    except ValidationError as error:
        problems = list(problems_of(error, f"{node.id}.{node.kind}"))
        raise NodeFailed(_sentence(problems), retryable=False) from error


def _sentence(problems: list[Problem]) -> str:
    return "after rendering its templates the configuration is not valid: " + "; ".join(map(str, problems))
