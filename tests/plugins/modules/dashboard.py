"""Lets a dashboard look: HTTP Basic with the password in DASHBOARD_PASSWORD, as a viewer of the default tenant."""

from __future__ import annotations

import base64
import hmac
import os
from collections.abc import Callable, Iterable

from jamjet_kernel import Authenticator, PluginError, Principal, Role, Unauthenticated, hookimpl


class Basic:
    def __init__(self, password: str) -> None:
        self._expected = base64.b64encode(f"dashboard:{password}".encode()).decode()

    async def authenticate(self, header: Callable[[str], str | None]) -> Principal | None:
        scheme, _, credential = (header("Authorization") or "").partition(" ")
        if scheme.lower() != "basic":
            return None
        if not hmac.compare_digest(credential.encode(), self._expected.encode()):
            raise Unauthenticated
        return Principal("dashboard", role=Role.VIEWER)


@hookimpl
def authenticators() -> Iterable[Authenticator]:
    password = os.environ.get("DASHBOARD_PASSWORD")
    if not password:
        raise PluginError("the plugin 'dashboard' needs the environment variable DASHBOARD_PASSWORD")
    return [Basic(password)]
