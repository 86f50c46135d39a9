"""Who calls, and whether they may: asked once per request, before any resource is."""

from __future__ import annotations

from collections.abc import Iterable

from falcon.asgi import Request, Response
from falcon.constants import COMBINED_METHODS

from ..access import check
from ..errors import Forbidden, PluginError, Unauthenticated
from ..ports import Access, Operation, Principal, Route
from ..runtime import Runtime

ACTING_FOR = "X-JamJet-Tenant"
"""The header by which an operator of the default tenant acts for another."""

_ANYBODY = Principal()


class AccessControl:
    """Falcon middleware. A route that does not say who may use it is an error at start-up."""

    def __init__(self, runtime: Runtime) -> None:
        self._authenticators = runtime.authenticators
        self._tenants = runtime.tenants
        self._refusals = runtime.refusals
        self._readiness = runtime.readiness
        self._is_off = runtime.settings.auth == "off"
        if not self._is_off and not self._authenticators:
            raise PluginError("no plugin can tell who calls: load `auth`, or set JAMJET_AUTH=off on a loopback address")
        self._needed: dict[tuple[str, str], Access] = {}

    def protect(self, table: Iterable[Route]) -> None:
        for route in table:
            for method, operation in route.operations.items():
                self._needed[route.path, method] = _access(route, method, operation)
            if "GET" in route.operations:
                self._needed[route.path, "HEAD"] = self._needed[route.path, "GET"]
            for method in _responders(route):
                if (route.path, method) not in self._needed:
                    raise PluginError(f"the route {route.path} answers {method} without saying who may: no operation")

    async def process_resource(self, req: Request, resp: Response, resource: object, params: object) -> None:
        access = self._needed.get((req.uri_template or "", req.method))
        if access is None or access is Access.OPEN:  # None: the answer is a 405, or the options
            return
        self._readiness.check_storage()
        caller = _ANYBODY
        try:
            if not self._is_off:
                caller = await self._authenticated(req)
            req.context.principal = await self._admitted(req, _by(req, caller), access)
        except (Unauthenticated, Forbidden) as refusal:
            event_type = "access_denied" if isinstance(refusal, Forbidden) else "authentication_failed"
            self._refusals.note(
                event_type, _by(req, caller), tried=f"{req.method} {req.uri_template}", reason=str(refusal)
            )
            raise

    async def _admitted(self, req: Request, caller: Principal, access: Access) -> Principal:
        principal = await self._tenants.admit(
            caller,
            access,
            acting_for=req.get_header(ACTING_FOR),
            changes=req.method not in ("GET", "HEAD"),
        )
        check(principal, access)
        return principal

    async def _authenticated(self, req: Request) -> Principal:
        for authenticator in self._authenticators:
            principal = await authenticator.authenticate(req.get_header)
            if principal is not None:
                return principal
        raise Unauthenticated


def _by(req: Request, caller: Principal) -> Principal:
    # Not by `replace`, which takes longer than to look a token up.
    return Principal(caller.id, caller.tenant_id, caller.role, req.context.request_id, req.remote_addr)


def _access(route: Route, method: str, operation: Operation) -> Access:
    try:
        return Access(operation.access)
    except ValueError as error:
        raise PluginError(f"the route {route.path} wants for {method} what no role is granted: {error}") from None


def _responders(route: Route) -> Iterable[str]:
    suffix = f"_{route.suffix}" if route.suffix else ""
    for method in (*COMBINED_METHODS, "WEBSOCKET"):
        if callable(getattr(route.resource, f"on_{method.lower()}{suffix}", None)):
            yield method
