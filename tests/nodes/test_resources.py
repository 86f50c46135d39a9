"""What nodes say that their functions need."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from pydantic import BaseModel

from jamjet_kernel.core.graph import parse
from jamjet_kernel.errors import Invalid
from jamjet_kernel.nodes.compute import LocalCompute
from jamjet_kernel.nodes.python_fn import PythonFn, PythonFnExecutor
from jamjet_kernel.nodes.resources import Resources
from jamjet_kernel.nodes.tool import Tool, ToolExecutor
from jamjet_kernel.ports import NodeCall

KINDS: Mapping[str, type[BaseModel]] = {"python_fn": PythonFn, "tool": Tool}


class Noting:
    """A compute that keeps what it was asked for."""

    places = True

    def __init__(self) -> None:
        self.asked: list[Mapping[str, float] | None] = []

    async def call(
        self, function: str, input: Any, *, isolation: str, resources: Mapping[str, float] | None = None, node: NodeCall
    ) -> Any:
        self.asked.append(resources)

    async def close(self) -> None: ...


@pytest.mark.parametrize(
    ("written", "asked"),
    [
        ({}, {}),
        ({"num_cpus": 2}, {"num_cpus": 2}),
        ({"num_cpus": 0.5, "num_gpus": 0.25, "memory": 2**30}, {"num_cpus": 0.5, "num_gpus": 0.25, "memory": 2**30}),
        ({"memory": "2GiB"}, {"memory": 2 * 2**30}),
        ({"num_gpus": 2, "licence": 1}, {"num_gpus": 2, "licence": 1}),
        ({"accelerator_type:A100": 0.001}, {"accelerator_type:A100": 0.001}),
    ],
)
async def test_a_compute_gets_what_a_node_asks_for(written: dict[str, Any], asked: dict[str, float]) -> None:
    compute = Noting()
    function = PythonFn.model_validate({"function": "sample:add", "resources": written})
    tool = Tool.model_validate({"fn": "sample:add", "resources": written})

    await PythonFnExecutor(compute).execute(NodeCall("exec_1", "work", 1, function, {}, "key"))
    await ToolExecutor(compute).execute(NodeCall("exec_1", "work", 1, tool, {}, "key"))

    assert compute.asked == [asked, asked]


@pytest.mark.parametrize("kind", ["python_fn", "tool"])
@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("num_cpus", -1, "greater than or equal to 0"),
        ("num_cpus", "two", "is a number, not 'two'"),
        ("num_cpus", True, "is a number, not True"),
        ("num_cpus", 0.00001, "is 0, or at least 0.0001"),
        ("num_gpus", 1.5, "of several GPUs, each is taken whole"),
        ("memory", "lots", "is a number of bytes, or a text like '2GiB', not 'lots'"),
        ("memory", -1, "is a number of bytes"),
        ("licence", -1, "greater than or equal to 0"),
        ("licence", "one", "is a number, not 'one'"),
        ("GPU", 1, "write num_gpus"),
        ("cpus", 1, "write num_cpus"),
        ("num_tpus", 1, "name a resource of your own without num_"),
        ("größe", 1, "a name of ASCII characters"),
    ],
)
def test_a_resource_that_cannot_be_is_a_problem_with_its_place(kind: str, name: str, value: Any, message: str) -> None:
    function = {"fn": "sample:add"} if kind == "tool" else {"function": "sample:add"}

    with pytest.raises(Invalid) as refused:
        parse(workflow({"type": kind, **function, "resources": {name: value}}), KINDS)

    (problem,) = refused.value.problems
    assert problem.place == f"nodes.work.resources.{name}"
    assert message in problem.message


def test_a_resource_may_be_a_template() -> None:
    resources = {"num_gpus": "{{ input.gpus }}"}

    parse(workflow({"type": "python_fn", "function": "sample:add", "resources": resources}), KINDS)


def test_resources_that_nobody_looks_at_are_warned_of(compute: LocalCompute) -> None:
    local, placing = PythonFnExecutor(compute), ToolExecutor(Noting())

    assert [said.partition(":")[0] for said in local.warnings({"resources": {"num_gpus": 1}})] == ["resources"]
    assert not list(local.warnings({"resources": {}}))
    assert not list(local.warnings({}))
    assert not list(placing.warnings({"resources": {"num_gpus": 1}}))


def test_resources_are_the_same_whatever_their_order() -> None:
    assert Resources.model_validate({"a": 1, "num_cpus": 2}) == Resources.model_validate({"num_cpus": 2, "a": 1})


def workflow(node: dict[str, Any]) -> dict[str, Any]:
    return {"workflow_id": "w", "version": "1.0.0", "nodes": {"work": node}, "start_node": "work", "edges": []}
