"""How agents are spoken to: A2A's cards, and the runtime's own DID document for federation."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from jamjet_kernel import AgentProtocol, Route, hookimpl

if TYPE_CHECKING:
    from jamjet_kernel.runtime import Runtime

# Imported where a runtime is opened: other commands load plugins too, and need none of it.


@hookimpl
def agent_protocols() -> Iterable[AgentProtocol]:
    from .a2a import A2a

    return [A2a()]


@hookimpl
def http_routes(runtime: Runtime) -> Iterable[Route]:
    from .federation import routes

    return routes(runtime)
