"""What the runtime and the driver's process tell each other, over a pipe each way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec


class Frame(msgspec.Struct, frozen=True, tag=True):
    pass


# From the runtime


class Connect(Frame, frozen=True, tag=True):
    """The first one."""

    address: str
    init: dict[str, Any]
    cancel_grace: float


class Submit(Frame, frozen=True, tag=True):
    """`call` is a `Call` for the cluster, and opaque to the driver."""

    number: int
    function: str
    resources: dict[str, float]
    call: bytes


class Cancel(Frame, frozen=True, tag=True):
    number: int


class Recorded(Frame, frozen=True, tag=True):
    """What became of a progress event: nothing, or a failure, as an answer of `jamjet_kernel.nodes.remote`."""

    post: int
    answer: bytes


# From the driver


class Connected(Frame, frozen=True, tag=True):
    machines: int
    resources: dict[str, float]


class Lost(Frame, frozen=True, tag=True):
    """The last one: there is no cluster, or none any more."""

    reason: str


class Answered(Frame, frozen=True, tag=True):
    number: int
    answer: bytes


class Died(Frame, frozen=True, tag=True):
    """The function's process or machine is gone, or its result with it. The cluster is there."""

    number: int
    reason: str


class Waiting(Frame, frozen=True, tag=True):
    """No machine of the cluster can ever run it, as it is."""

    number: int
    reason: str


class Posted(Frame, frozen=True, tag=True):
    """A function's progress."""

    post: int
    number: int
    data: bytes


# To the cluster


class Call(msgspec.Struct, frozen=True):
    """`expires_at` is the deadline by the clock on the wall, which machines share."""

    number: int
    function: str
    allowed: tuple[str, ...]
    input: bytes
    execution_id: str
    node_id: str
    attempt: int
    idempotency_key: str
    logger: str
    expires_at: float | None = None


ToDriver = Connect | Submit | Cancel | Recorded
FromDriver = Connected | Lost | Answered | Died | Waiting | Posted
HEADER = 4

_encode = msgspec.msgpack.Encoder().encode
to_driver: Callable[[bytes], ToDriver] = msgspec.msgpack.Decoder(ToDriver).decode
from_driver: Callable[[bytes], FromDriver] = msgspec.msgpack.Decoder(FromDriver).decode


def packed(frame: Frame) -> bytes:
    body = _encode(frame)
    return len(body).to_bytes(HEADER, "big") + body
