"""Proves who calls: by API tokens, and where it is set so, by the JSON Web Tokens of an identity provider."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING

from jamjet_kernel import Authenticator, Route, Settings, Storage, hookimpl

if TYPE_CHECKING:
    from jamjet_kernel.runtime import Runtime, World

    from .api_tokens import ApiTokens

# What verifies and serves is imported where a runtime is opened: other commands load plugins too, and need none of it.


@hookimpl
def authenticators(settings: Settings, storage: Storage, world: World) -> Iterable[Authenticator]:
    from .api_tokens import ApiTokens
    from .json_web_tokens import JsonWebTokens
    from .settings import AuthSettings

    chosen = AuthSettings.read()
    if chosen.jwt_issuer is not None:
        yield JsonWebTokens(chosen, world.now)
    yield ApiTokens(storage.tokens, world.now)


@hookimpl
def lifespans(runtime: Runtime) -> Iterable[AbstractAsyncContextManager[object]]:
    from .bootstrap import with_an_operator
    from .settings import AuthSettings

    if runtime.settings.auth == "on":
        yield with_an_operator(runtime, AuthSettings.read())
        yield _api_tokens(runtime).noting_their_use()


@hookimpl
def http_routes(runtime: Runtime) -> Iterable[Route]:
    from .tokens import routes

    return routes(runtime, _api_tokens(runtime))


def _api_tokens(runtime: Runtime) -> ApiTokens:
    from .api_tokens import ApiTokens

    return next(each for each in runtime.authenticators if isinstance(each, ApiTokens))
