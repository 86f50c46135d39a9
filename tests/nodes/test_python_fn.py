"""The node kind `python_fn`."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from jamjet_kernel.errors import NodeFailed
from jamjet_kernel.nodes.compute import LocalCompute
from jamjet_kernel.nodes.python_fn import PythonFn, PythonFnExecutor
from jamjet_kernel.ports import NodeCall, NodeResult
from jamjet_kernel.testing.executors import ExecutorContract


def call(input: Any = None, /, **config: Any) -> NodeCall:
    return NodeCall("exec_1", "work", 1, PythonFn.model_validate(config), input, "key")


class TestPythonFnExecutor(ExecutorContract):
    @pytest.fixture
    def executor(self, compute: LocalCompute) -> PythonFnExecutor:
        return PythonFnExecutor(compute)

    @pytest.fixture
    def good_call(self) -> NodeCall:
        return call({"a": 1}, module="sample", function="add_sync")

    @pytest.fixture
    def failing_call(self) -> NodeCall:
        return call({"name": "value"}, module="sample", function="raises")


@pytest.mark.parametrize(
    "config", [{"module": "sample", "function": "add"}, {"function": "sample:add"}], ids=["apart", "together"]
)
@pytest.mark.parametrize("isolation", ["thread", "process"])
async def test_it_calls_the_function_with_the_input(
    compute: LocalCompute, config: dict[str, Any], isolation: str
) -> None:
    executor = PythonFnExecutor(compute)

    result = await executor.execute(call({"a": 1}, **config, isolation=isolation, resources={"num_cpus": 1}))

    assert result == NodeResult(output=11)


async def test_a_function_may_answer_a_node_result(compute: LocalCompute) -> None:
    result = await PythonFnExecutor(compute).execute(call({}, function="sample:result"))

    assert result == NodeResult(1, {"x": 2})


async def test_the_working_name_of_a_missing_function_is_in_the_failure(compute: LocalCompute) -> None:
    with pytest.raises(NodeFailed, match="there is no 'addd' in sample; similar: add"):
        await PythonFnExecutor(compute).execute(call({}, function="sample:addd"))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"function": "add"}, "give 'module' too, or write the function as 'module:add'"),
        ({"module": "sample", "function": "sample:add"}, "names its module already; leave out 'module'"),
        ({"module": "sample", "function": "add()"}, r"'sample:add\(\)' does not name a function"),
        ({"module": "sam-ple", "function": "add"}, "'sam-ple:add' does not name a function"),
        ({"module": "sample"}, "Field required"),
        ({"function": "sample:add", "isolation": "container"}, "'thread' or 'process'"),
        ({"function": "sample:add", "fn": "x"}, "Extra inputs are not permitted"),
        ({"function": "sample:add", "resources": ["num_cpus"]}, "valid dictionary"),
    ],
)
def test_a_config_that_cannot_work_is_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        PythonFn.model_validate(config)
