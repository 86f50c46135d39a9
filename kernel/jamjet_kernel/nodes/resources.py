"""What a function needs of the machine that it runs on, in the words of Ray."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ByteSize,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
)

from ..ports import Compute

FINEST = 0.0001
"""Ray counts resources in ten thousandths."""


def _quantity(value: Any) -> Any:
    if isinstance(value, bool | str):
        raise ValueError(f"is a number, not {value!r}")
    return value


def _fine_enough(value: float) -> float:
    if 0 < value < FINEST:
        raise ValueError(f"is 0, or at least {FINEST}")
    return value


def _whole_gpus(value: float) -> float:
    if value > 1 and not value.is_integer():
        raise ValueError("of several GPUs, each is taken whole")
    return value


def _bytes(value: Any) -> Any:
    try:
        return int(_BYTES.validate_python(value))
    except ValidationError as error:
        raise ValueError(f"is a number of bytes, or a text like '2GiB', not {value!r}") from error


def _name(name: str) -> str:
    meant = _MEANT.get(name.lower())
    if meant is None and name.startswith("num_"):
        meant = "num_cpus or num_gpus, or name a resource of your own without num_"
    if meant is not None:
        raise ValueError(f"write {meant}")
    if not name.strip() or not name.isascii():
        raise ValueError("a resource has a name of ASCII characters")
    return name


_BYTES = TypeAdapter(ByteSize)
_MEANT = {
    "cpu": "num_cpus",
    "cpus": "num_cpus",
    "gpu": "num_gpus",
    "gpus": "num_gpus",
    "mem": "memory",
    "ram": "memory",
    "object_store_memory": "memory",
}

Quantity = Annotated[float, BeforeValidator(_quantity), Field(ge=0, allow_inf_nan=False), AfterValidator(_fine_enough)]


class Resources(BaseModel):
    """Any other name is a resource that machines of the cluster are said to have."""

    model_config = ConfigDict(extra="allow", frozen=True)
    __pydantic_extra__: dict[Annotated[str, AfterValidator(_name)], Quantity]

    num_cpus: Quantity | None = None
    num_gpus: Annotated[Quantity, AfterValidator(_whole_gpus)] | None = None
    memory: Annotated[int, BeforeValidator(_bytes)] | None = None

    @property
    def asked(self) -> dict[str, float]:
        return self.model_dump(exclude_none=True)


def unheeded(compute: Compute, said: Mapping[str, Any]) -> Iterator[str]:
    """The warning that a configuration asks for resources, and nobody looks at them."""
    if said.get("resources") and not compute.places:
        yield "resources: functions run where this process runs; another JAMJET_COMPUTE can choose machines by them"
