"""The node kind `tool`."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from jamjet_kernel.core.graph import Graph, parse
from jamjet_kernel.errors import Invalid, NodeFailed
from jamjet_kernel.nodes.compute import LocalCompute
from jamjet_kernel.nodes.tool import Tool, ToolExecutor
from jamjet_kernel.ports import NodeCall
from jamjet_kernel.testing.executors import ExecutorContract

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}


def call(input: Any = None, /, **config: Any) -> NodeCall:
    return NodeCall("exec_1", "work", 1, Tool.model_validate(config), input, "key")


def graph(tools: dict[str, Any] | None = None, **kind: Any) -> Graph:
    nodes = {"work": {"kind": {"type": "tool", **kind}}}
    ir = {"workflow_id": "w", "version": "1.0.0", "nodes": nodes, "tools": tools or {}}
    return parse(ir, {"tool": Tool})


class TestToolExecutor(ExecutorContract):
    @pytest.fixture
    def executor(self, compute: LocalCompute) -> ToolExecutor:
        return ToolExecutor(compute)

    @pytest.fixture
    def good_call(self) -> NodeCall:
        return call({"a": 1}, fn="sample:add")

    @pytest.fixture
    def failing_call(self) -> NodeCall:
        return call({"a": "x"}, fn="sample:add", input_schema=SCHEMA)


@pytest.mark.parametrize(
    "config", [{"fn": "sample:add"}, {"fn": "sample.add"}, {"tool_ref": "sample:add"}], ids=lambda c: str(c)
)
@pytest.mark.parametrize("word", ["arguments", "input", None])
async def test_a_function_is_called_with_the_arguments_or_else_the_input(
    compute: LocalCompute, config: dict[str, str], word: str | None
) -> None:
    given = {word: {"a": 5}} if word else {}

    result = await ToolExecutor(compute).execute(call({"a": 1}, **config, **given))

    assert result.output == (15 if word else 11)


async def test_empty_arguments_are_arguments(compute: LocalCompute) -> None:
    result = await ToolExecutor(compute).execute(call({"limit": 9}, fn="sample:limited", arguments={}))

    assert result.output == 5


async def test_arguments_that_do_not_fit_the_schema_never_reach_the_function(compute: LocalCompute) -> None:
    with pytest.raises(NodeFailed) as raised:
        await ToolExecutor(compute).execute(call({"a": "x"}, fn="sample:add", input_schema=SCHEMA))

    wanted = 'the arguments of sample:add do not fit its input_schema: a: "x" is not of type "integer"'
    assert str(raised.value) == wanted
    assert not raised.value.retryable


async def test_what_else_a_schema_forbids_is_refused(compute: LocalCompute) -> None:
    strict = {"type": "object", "additionalProperties": False}

    with pytest.raises(NodeFailed, match="do not fit its input_schema"):
        await ToolExecutor(compute).execute(call({"a": 1}, fn="sample:add", input_schema=strict))


async def test_a_short_schema_is_a_schema(compute: LocalCompute) -> None:
    with pytest.raises(NodeFailed, match='a: "x" is not of type "integer"'):
        await ToolExecutor(compute).execute(call({"a": "x"}, fn="sample:add", input_schema={"a": "int"}))


@pytest.mark.parametrize(
    ("config", "name"),
    [
        ({"fn": "sample:add"}, "sample:add"),
        ({"tool_ref": "search", "fn": "sample:add"}, "search"),
        ({"tool_ref": "sample:add"}, "sample:add"),
    ],
)
def test_a_tool_has_the_name_that_policies_match(config: dict[str, str], name: str) -> None:
    assert Tool.model_validate(config).tool_name == name


def test_a_tool_ref_takes_its_fields_from_the_workflows_tools() -> None:
    node = graph({"search": {"fn": "sample:add", "input_schema": SCHEMA}}, tool_ref="search").nodes["work"]

    assert isinstance(node.config, Tool)
    assert (node.config.tool_name, node.config.target) == ("search", "sample:add")
    assert node.config.input_schema == SCHEMA


@pytest.mark.parametrize("arguments", [{"a": 1}, {"a": "{{ state.a }}"}], ids=["plain", "templated"])
@pytest.mark.parametrize(
    ("kind", "problem"),
    [
        ({}, "nodes.work.kind.fn: give 'fn' (module:function) or 'tool_ref' (a name in the workflow's tools)"),
        ({"tool_ref": "serach"}, "nodes.work.kind.fn: the workflow's tools have no 'serach' with a 'fn'"),
        ({"fn": "add"}, "nodes.work.kind.fn: ':add' does not name a function"),
        ({"server": "files", "tool": "read"}, "nodes.work.kind.server: tools of MCP servers need a plugin"),
        ({"fn": "a:b", "input": {"a": 1}}, "nodes.work.kind.fn: 'arguments' and 'input' mean the same"),
        ({"fn": "a:b", "input_schema": {"allOf": [3]}}, "nodes.work.kind.input_schema: is not a JSON Schema"),
    ],
)
def test_a_tool_that_cannot_work_is_refused_at_registration(
    arguments: dict[str, Any], kind: dict[str, Any], problem: str
) -> None:
    with pytest.raises(Invalid) as raised:
        graph(arguments=arguments, **kind)

    assert any(str(found).startswith(problem) for found in raised.value.problems)


def test_a_schema_elsewhere_is_not_fetched() -> None:
    with pytest.raises(ValidationError, match="a schema must stand by itself"):
        Tool(fn="a:b", input_schema={"$ref": "http://127.0.0.1:1/schema.json"})
