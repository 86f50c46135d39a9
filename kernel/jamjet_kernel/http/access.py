"""Who calls, and whether they may: asked once per request, before any resource is."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from falcon.asgi import Request, Response

from ..access import check
from ..errors import PluginError, Unauthenticated
from ..ports import Access, Principal, Route
from ..runtime import Runtime

ACTING_FOR = "X-JamJet-Tenant"
"""The header by which an operator of the default tenant acts for another."""

_ANYBODY = Principal()


class AccessControl:
    """Falcon middleware. A route that does not say who may use it is an error at start-up."""

    def __init__(self, runtime: Runtime) -> None:
        self._authenticators = runtime.authenticators
        self._tenants = runtime.tenants
        self._is_off = runtime.settings.auth == "off"
        self._needed: dict[tuple[str, str], Access] = {}

    def protect(self, table: Iterable[Route]) -> None:
        for route in table:
            for method, operation in route.operations.items():
                self._needed[route.path, method] = Access(operation.access)
            if "GET" in route.operations:
                self._needed[route.path, "HEAD"] = self._needed[route.path, "GET"]
            for method in _responders(route):
                if (route.path, method) not in self._needed:
                    raise PluginError(f"the route {route.path} answers {method} without saying who may: no operation")

    async def process_resource(self, req: Request, resp: Response, resource: object, params: object) -> None:
        access = self._needed.get((req.uri_template or "", req.method))
        if access is None or access is Access.OPEN:  # None: the answer is a 405, or the options
            return
        principal = _ANYBODY if self._is_off else await self._authenticated(req)
        principal = await self._tenants.admit(
            replace(principal, request_id=req.context.request_id, address=req.remote_addr),
            access,
            acting_for=req.get_header(ACTING_FOR),
            changes=req.method not in ("GET", "HEAD"),
        )
        check(principal, access)
        req.context.principal = principal

    async def _authenticated(self, req: Request) -> Principal:
        for authenticator in self._authenticators:
            principal = await authenticator.authenticate(req.get_header)
            if principal is not None:
                return principal
        raise Unauthenticated


def _responders(route: Route) -> Iterable[str]:
    suffix = f"_{route.suffix}" if route.suffix else ""
    for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"):
        if callable(getattr(route.resource, f"on_{method.lower()}{suffix}", None)):
            yield method
