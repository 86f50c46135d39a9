"""The workflow IR as it travels: one pydantic model a concept, nothing unknown accepted.

Section 1 of the workflow contract rules the names. What a definition adds up to is `graph.py`'s business.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Any, Literal

import durationpy
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, field_validator, model_validator
from semver import Version

from .redaction import DETECTORS, unknown_detectors

NODE_ID = re.compile(r"[A-Za-z_][\w.-]*")
WORKFLOW_ID = re.compile(r"[A-Za-z0-9_][\w.:-]{0,254}")
TERMINAL = "end"
"""The target that means: this path ends here."""


def seconds(value: Any) -> Any:
    """A duration as people write it (`2`, `"2s"`, `"1h30m"`, `"48h"`), in seconds."""
    if isinstance(value, bool):
        raise ValueError("a duration is a number of seconds or a text like '30s', '5m', '48h'")
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, str):
        try:
            return float(value) if re.fullmatch(r"\d+(\.\d+)?", value) else durationpy.from_str(value).total_seconds()
        except (durationpy.DurationError, ValueError) as error:
            raise ValueError(f"{value!r} is not a duration; try '30s', '5m' or '48h'") from error
    return value


Seconds = Annotated[float, BeforeValidator(seconds), Field(ge=0, le=10 * 366 * 86_400)]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, arbitrary_types_allowed=True)


class RetryPolicy(Strict):
    max_attempts: int = Field(1, ge=1, le=10_000)
    backoff: Literal["fixed", "linear", "exponential"] = "exponential"
    initial_delay: Seconds = 1.0
    max_delay: Seconds = 300.0
    jitter: bool = False
    retryable_on: (
        tuple[Literal["timeout", "rate_limit", "io_error", "server_error", "connection_reset", "custom"], ...] | None
    ) = None


BUILT_IN_RETRY_POLICIES = {
    "no_retry": RetryPolicy(max_attempts=1),
    "fast": RetryPolicy(max_attempts=2, backoff="fixed", initial_delay=1),
    "llm_default": RetryPolicy(max_attempts=3, backoff="exponential", initial_delay=1, jitter=True),
    "io_default": RetryPolicy(max_attempts=5, backoff="exponential", initial_delay=1, jitter=True),
}


class Timeouts(Strict):
    node_timeout: Seconds | None = None
    workflow_timeout: Seconds | None = None
    heartbeat_interval: Seconds | None = None
    approval_timeout: Seconds | None = None


class Policy(Strict):
    """Globs over tool names, and the models that may be asked. The strictest layer wins."""

    blocked_tools: tuple[str, ...] = ()
    require_approval_for: tuple[str, ...] = ()
    model_allowlist: tuple[str, ...] | None = None


class TokenBudget(Strict):
    input_tokens: int | None = Field(None, ge=0)
    output_tokens: int | None = Field(None, ge=0)
    total_tokens: int | None = Field(None, ge=0)


class DataPolicy(Strict):
    pii_fields: tuple[str, ...] = ()
    pii_detectors: tuple[str, ...] = ()
    redaction_mode: Literal["mask", "hash", "remove"] = "mask"
    retain_prompts: bool = True
    retain_outputs: bool = True
    retention_days: int | None = Field(None, ge=1)

    @field_validator("pii_detectors")
    @classmethod
    def _are_known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if unknown := unknown_detectors(value):
            raise ValueError(f"no detectors named {', '.join(map(repr, unknown))}; there are {', '.join(DETECTORS)}")
        return value

    @field_validator("pii_fields")
    @classmethod
    def _name_something(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not all(all(field.split(".")) for field in value):
            raise ValueError("a field is a name or a path such as customer.email")
        return value


class Concurrency(Strict):
    """How many pieces of work with the same key are done at a time. The key is a template."""

    key: str
    limit: int = Field(1, ge=1, le=1_000_000)


class EdgeSpec(Strict):
    source: str = Field(alias="from")
    target: str = Field(alias="to")
    condition: str | None = None


class NodeSpec(Strict):
    """What a node of any kind may say; `kind` is left to the kind's own model."""

    id: str | None = None
    kind: dict[str, Any]
    retry_policy: str | RetryPolicy | None = None
    node_timeout_secs: Seconds | None = None
    description: str | None = None
    labels: dict[str, str] = {}
    policy: Policy | None = None
    output_key: str | None = None
    input_mapping: dict[str, JsonValue] | str | None = None
    on_error: str | None = None
    queue: str | None = Field(None, max_length=255, pattern=r"^[^\x00-\x1f\x7f]*$")
    concurrency: Concurrency | None = None


class Definition(Strict):
    """A registered workflow, before it is a graph."""

    workflow_id: str
    version: str
    name: str | None = None
    description: str | None = None
    labels: dict[str, str] = {}
    state_schema: dict[str, Any] | str | None = None
    start_node: str | None = None
    nodes: dict[str, dict[str, Any]] = Field(min_length=1)
    edges: tuple[EdgeSpec, ...] = ()
    retry_policies: dict[str, RetryPolicy] = {}
    timeouts: Timeouts = Timeouts()
    models: dict[str, dict[str, Any]] = {}
    tools: dict[str, dict[str, Any]] = {}
    mcp_servers: dict[str, dict[str, Any]] = {}
    remote_agents: dict[str, dict[str, Any]] = {}
    policy: Policy = Policy()
    token_budget: TokenBudget | None = None
    cost_budget_usd: float | None = Field(None, ge=0)
    on_budget_exceeded: str | None = None
    continue_as_new: int | None = Field(None, ge=10)
    data_policy: DataPolicy | None = None
    max_iterations: int = Field(100, ge=1, le=1_000_000)

    @field_validator("workflow_id")
    @classmethod
    def _names_a_workflow(cls, value: str) -> str:
        if not WORKFLOW_ID.fullmatch(value):
            raise ValueError("use letters, digits, '.', '_', ':' and '-', at most 255 of them")
        return value

    @field_validator("version")
    @classmethod
    def _is_semantic(cls, value: str) -> str:
        if not Version.is_valid(value):
            raise ValueError(f"{value!r} is not a semantic version; try '0.1.0'")
        return value


# What each control kind says. Executors bring models of their own.


class Branch(Strict):
    condition: str | None = Field(None, alias="if")
    target: str = Field(alias="next")

    @model_validator(mode="before")
    @classmethod
    def _take_either_word(cls, value: Any) -> Any:
        if isinstance(value, Mapping) and "condition" in value and "if" in value:
            raise ValueError("give 'condition' or 'if', not both")
        return value


class Condition(Strict):
    """Goes the way of the first branch that is true, else of the one without a condition."""

    type: Literal["condition", "branch"]
    branches: tuple[Branch, ...] = ()


class Parallel(Strict):
    """Starts all its branches."""

    type: Literal["parallel"]
    branches: tuple[str, ...] = ()
    join: str | None = None


class Join(Strict):
    """Goes on when all it waits for is done; `first`: when one is, and cancels the others."""

    type: Literal["join"]
    wait_for: tuple[str, ...] = ()
    merge_strategy: Literal["collect", "merge", "first"] = "collect"


class Map(Strict):
    """Runs a body for each item. The body sees `item` and `index`."""

    type: Literal["map"]
    items: str
    node: str | None = None
    body: dict[str, Any] | None = None
    max_concurrency: int | None = Field(None, ge=1)
    output_key: str | None = None


class HumanApproval(Strict):
    """Waits for a person's decision."""

    type: Literal["human_approval"]
    description: str | None = None
    timeout_secs: Seconds | None = None
    fallback_node: str | None = None
    on_approved: str | None = None
    on_rejected: str | None = None


class Wait(Strict):
    """Waits for a time, an external event, or whichever comes first."""

    type: Literal["wait"]
    condition: Literal["timer", "external_event", "either"]
    correlation_key: str | None = None
    duration: Seconds | str | None = Field(None, union_mode="left_to_right")
    until: str | None = None
    timeout_secs: Seconds | None = None
    on_timeout: str | None = None

    @model_validator(mode="after")
    def _knows_what_it_waits_for(self) -> Wait:
        if self.condition != "timer" and not self.correlation_key:
            raise ValueError(f"condition {self.condition!r} needs a correlation_key")
        if self.condition != "external_event" and (self.duration is None) == (self.until is None):
            raise ValueError(f"condition {self.condition!r} needs either duration or until")
        return self


class Subgraph(Strict):
    """Runs another workflow as a child execution."""

    type: Literal["subgraph"]
    workflow_ref: str
    workflow_version: str | None = None
    input_mapping: dict[str, JsonValue] | str | None = None
    output_mapping: dict[str, JsonValue] | str | None = None


class Finalizer(Strict):
    """Runs its body after everything else, whatever the edges say."""

    type: Literal["finalizer"]
    run_on: Literal["success", "failure", "always"] = "always"
    node: str | None = None
    body: dict[str, Any] | None = None


class End(Strict):
    """The end of a path."""

    type: Literal["end"]


CONTROL_KINDS: dict[str, type[Strict]] = {
    "condition": Condition,
    "branch": Condition,
    "parallel": Parallel,
    "join": Join,
    "map": Map,
    "human_approval": HumanApproval,
    "wait": Wait,
    "subgraph": Subgraph,
    "finalizer": Finalizer,
    "end": End,
}

SHORT_TYPES: dict[str, dict[str, Any]] = {
    "str": {"type": "string"},
    "string": {"type": "string"},
    "int": {"type": "integer"},
    "integer": {"type": "integer"},
    "float": {"type": "number"},
    "number": {"type": "number"},
    "bool": {"type": "boolean"},
    "boolean": {"type": "boolean"},
    "list": {"type": "array"},
    "array": {"type": "array"},
    "dict": {"type": "object"},
    "object": {"type": "object"},
    "any": {},
    "Any": {},
    "None": {"type": "null"},
    "null": {"type": "null"},
}


def json_schema(state_schema: dict[str, Any] | str | None) -> dict[str, Any] | None:
    """The JSON Schema that a `state_schema` stands for; None where it is only a label."""
    if isinstance(state_schema, str):
        if not state_schema.lstrip().startswith("{"):
            return None
        try:
            state_schema = json.loads(state_schema)
        except ValueError as error:
            raise ValueError(f"not JSON: {error}") from error
    if not state_schema or not isinstance(state_schema, dict):
        return None
    return state_schema if _is_json_schema(state_schema) else _expand(state_schema)


def _is_json_schema(value: Mapping[str, Any]) -> bool:
    return (
        any(key.startswith("$") for key in value)
        or isinstance(value.get("properties"), Mapping)
        or isinstance(value.get("additionalProperties"), bool)
        or any(isinstance(value.get(key), list) for key in ("allOf", "anyOf", "oneOf", "required"))
        or (len(value) == 1 and value.get("type") in _JSON_TYPES)
    )


_JSON_TYPES = frozenset({"object", "array", "string", "number", "integer", "boolean", "null"})


def _expand(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": {name: _expand_type(name, kind) for name, kind in fields.items()}}


def _expand_type(name: str, kind: Any) -> dict[str, Any]:
    if isinstance(kind, Mapping):
        is_schema = "type" in kind or _is_json_schema(kind)
        return dict(kind) if is_schema else _expand(kind)
    if not isinstance(kind, str):
        raise ValueError(f"{name}: {kind!r} is not a type; try one of {', '.join(SHORT_TYPES)}")
    alternatives = [_expand_name(name, part.strip()) for part in kind.split("|")]
    return alternatives[0] if len(alternatives) == 1 else {"anyOf": alternatives}


def _expand_name(name: str, kind: str) -> dict[str, Any]:
    if kind.endswith("?"):
        return {"anyOf": [_expand_name(name, kind[:-1]), {"type": "null"}]}
    if generic := re.fullmatch(r"(list|dict|array|Optional)\[(.+)\]", kind):
        outer, inner = generic.groups()
        if outer == "Optional":
            return {"anyOf": [_expand_name(name, inner), {"type": "null"}]}
        if outer == "dict":
            return {"type": "object", "additionalProperties": _expand_name(name, inner.split(",", 1)[-1].strip())}
        return {"type": "array", "items": _expand_name(name, inner)}
    if kind not in SHORT_TYPES:
        raise ValueError(f"{name}: no type {kind!r}; try one of {', '.join(SHORT_TYPES)}")
    return SHORT_TYPES[kind]
