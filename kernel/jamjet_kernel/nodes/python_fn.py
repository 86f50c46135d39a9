"""The node kind `python_fn`: calls a Python function with the node's input."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from pydantic import BaseModel, Field, ValidationInfo, field_validator

from ..core.definition import Strict
from ..ports import Compute, NodeCall, NodeResult
from .functions import function_name
from .resources import Resources, unheeded


class PythonFn(Strict):
    """`function` alone may be `module:function`."""

    module: str | None = Field(None, min_length=1)
    function: str
    isolation: Literal["thread", "process"] = "thread"
    resources: Resources = Resources()

    @field_validator("function")
    @classmethod
    def _names_a_function(cls, function: str, info: ValidationInfo) -> str:
        module, _, rest = function.rpartition(":")
        given = info.data.get("module")
        if module and given:
            raise ValueError(f"{function!r} names its module already; leave out 'module'")
        if not module and not given and "module" in info.data:
            raise ValueError(f"give 'module' too, or write the function as 'module:{function}'")
        function_name(module or given or "_", rest)
        return function

    @property
    def target(self) -> str:
        return f"{self.module}:{self.function}" if self.module else self.function


class PythonFnExecutor:
    kind = "python_fn"
    config: type[BaseModel] = PythonFn

    def __init__(self, compute: Compute) -> None:
        self._compute = compute

    async def execute(self, call: NodeCall) -> NodeResult:
        config: PythonFn = call.config
        made = await self._compute.call(
            config.target, call.input, isolation=config.isolation, resources=config.resources.asked, node=call
        )
        return made if isinstance(made, NodeResult) else NodeResult(output=made)

    def warnings(self, config: Mapping[str, Any]) -> Iterator[str]:
        return unheeded(self._compute, config)
