"""The node kind `tool`: calls a tool by name with arguments."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, ClassVar, Literal

import jsonschema_rs
from pydantic import BaseModel, Field, ValidationInfo, field_validator

from ..core.definition import Strict, json_schema
from ..errors import NodeFailed
from ..ports import Compute, NodeCall, NodeResult
from .functions import function_name
from .resources import Resources, unheeded


class Tool(Strict):
    """A Python function by `fn`, or by `tool_ref`: a name in the workflow's `tools`, or `module:function`.

    The checks that need several fields stand on `fn`, the last one, and not on the model: registration
    forgives whatever is said of a value that holds a template, and the model as a whole is such a value.
    """

    references: ClassVar[dict[str, str]] = {"tool_ref": "tools"}

    tool_ref: str | None = Field(None, min_length=1)
    server: str | None = None
    tool: str | None = None
    arguments: Any = None
    input: Any = None
    isolation: Literal["thread", "process"] = "thread"
    resources: Resources = Resources()
    description: str | None = None
    input_schema: dict[str, Any] | None = None
    fn: str | None = Field(None, validate_default=True)

    @field_validator("server", "tool")
    @classmethod
    def _is_not_ours(cls, value: str | None) -> str | None:
        if value is not None:
            raise ValueError("tools of MCP servers need a plugin, and none is installed; 'fn' calls a function")
        return value

    @field_validator("input_schema")
    @classmethod
    def _is_a_schema(cls, value: dict[str, Any] | None) -> dict[str, Any] | None:
        schema = value if value and value.get("type") in _JSON_TYPES else json_schema(value)
        if schema is not None:
            try:
                _validator(json.dumps(schema))
            except jsonschema_rs.ValidationError as error:
                raise ValueError(f"is not a JSON Schema: {error.message}") from error
        return schema

    @field_validator("fn")
    @classmethod
    def _names_one_function(cls, fn: str | None, info: ValidationInfo) -> str | None:
        if {"tool_ref", "server", "tool"} <= info.data.keys():
            _one_function(fn, info.data["tool_ref"])
        return fn

    @field_validator("fn")
    @classmethod
    def _takes_one_input(cls, fn: str | None, info: ValidationInfo) -> str | None:
        if info.data.get("arguments") is not None and info.data.get("input") is not None:
            raise ValueError("'arguments' and 'input' mean the same; give one of them")
        return fn

    @property
    def tool_name(self) -> str:
        """What policies match their globs against."""
        return self.tool_ref or self.fn or f"{self.server}/{self.tool}"

    @property
    def target(self) -> str:
        return _one_function(self.fn, self.tool_ref)


_JSON_TYPES = ("object", "array", "string", "number", "integer", "boolean", "null")


class ToolExecutor:
    kind = "tool"
    config: type[BaseModel] = Tool

    def __init__(self, compute: Compute) -> None:
        self._compute = compute

    async def execute(self, call: NodeCall) -> NodeResult:
        config: Tool = call.config
        arguments = _arguments(config, call.input)
        if config.input_schema is not None:
            _check(config, arguments)
        made = await self._compute.call(
            config.target, arguments, isolation=config.isolation, resources=config.resources.asked, node=call
        )
        return made if isinstance(made, NodeResult) else NodeResult(output=made)

    def warnings(self, config: Mapping[str, Any]) -> Iterator[str]:
        return unheeded(self._compute, config)


def _one_function(fn: str | None, tool_ref: str | None) -> str:
    if fn is not None:
        module, _, function = fn.rpartition(":" if ":" in fn else ".")
        return function_name(module, function)
    if tool_ref is None:
        raise ValueError("give 'fn' (module:function) or 'tool_ref' (a name in the workflow's tools)")
    module, colon, function = tool_ref.rpartition(":")
    if not colon:
        message = f"the workflow's tools have no {tool_ref!r} with a 'fn'; add it, or write 'module:function'"
        raise ValueError(message)
    return function_name(module, function)


def _arguments(config: Tool, input: Any) -> Any:
    for given in (config.arguments, config.input):
        if given is not None:
            return given
    return input


def _check(config: Tool, arguments: Any) -> None:
    validator = _validator(json.dumps(config.input_schema))
    problems = [_place(error) + error.message for error in validator.iter_errors(arguments)]
    if problems:
        said = "; ".join(problems[:5])
        message = f"the arguments of {config.tool_name} do not fit its input_schema: {said}"
        raise NodeFailed(message, retryable=False, details={"problems": problems})


@lru_cache(maxsize=512)
def _validator(schema: str) -> jsonschema_rs.Validator:
    return jsonschema_rs.validator_for(schema, retriever=_refuse)


def _refuse(uri: str) -> Any:
    raise ValueError(f"{uri} is elsewhere; a schema must stand by itself")


def _place(error: jsonschema_rs.ValidationError) -> str:
    place = ".".join(map(str, error.instance_path))
    return f"{place}: " if place else ""
