"""JSON Web Tokens (RFC 7519) of an identity provider: OpenID Connect, or whatever signs with public keys."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jwt

from jamjet_kernel import DEFAULT_TENANT, Forbidden, Principal, Role, Unauthenticated

from .bearer import Header, credential_of, digest_of
from .keys import ProvidersKeys
from .settings import AuthSettings

LEEWAY = 30
"""Seconds that clocks may differ by."""

FRESH = 60_000
"""Milliseconds for which a verified signature is believed: to verify one takes as long as the rest of a request."""

REMEMBERED = 10_000
MAX_LENGTH = 16_384

_REQUIRED = ["exp", "iss", "aud", "sub"]
_NAME = re.compile(r"[^\x00-\x1f\x7f]{1,255}")


class JsonWebTokens:
    """An authenticator. None of its business is what does not look like a JSON Web Token."""

    def __init__(self, settings: AuthSettings, now: Callable[[], int]) -> None:
        assert settings.jwt_issuer is not None
        self._settings = settings
        self._now = now
        self._keys = ProvidersKeys(settings.jwt_issuer, settings.jwt_jwks_url)
        self._verified: dict[bytes, tuple[Principal, int]] = {}

    async def authenticate(self, header: Header) -> Principal | None:
        credential = credential_of(header)
        if credential is None or not _looks_like_one(credential):
            return None
        digest = digest_of(credential)
        principal, until = self._verified.get(digest, (None, 0))
        if principal is not None and until > self._now():
            return principal
        claims = await self._claims(credential)
        return self._remember(digest, self._principal(claims), claims)

    async def _claims(self, credential: str) -> Mapping[str, Any]:
        """Raises `Unauthenticated` for whatever is wrong with it."""
        if len(credential) > MAX_LENGTH:
            raise Unauthenticated
        try:
            head = jwt.get_unverified_header(credential)
            if "crit" in head:  # RFC 7515, 4.1.11: what is critical and not understood must be refused
                raise Unauthenticated
            key = await self._keys.find(head.get("kid"))
            claims: Mapping[str, Any] = jwt.decode(
                credential,
                key.public_key,
                # Never what the token says: its `alg` is only looked up among those of this key.
                algorithms=key.algorithms,
                issuer=self._settings.jwt_issuer,
                audience=self._settings.jwt_audience,
                leeway=LEEWAY,
                options={"require": _REQUIRED},
            )
            return claims
        except (jwt.PyJWTError, ValueError, TypeError, ArithmeticError, RecursionError) as error:
            raise Unauthenticated from error

    def _principal(self, claims: Mapping[str, Any]) -> Principal:
        tenant_id = DEFAULT_TENANT
        if (claim := self._settings.jwt_tenant_claim) is not None:
            tenant_id = _name(_value(claims, claim))
        return Principal(f"user:{_name(claims['sub'])}", tenant_id, self._role(claims))

    def _role(self, claims: Mapping[str, Any]) -> Role:
        """The one that may do most, where there are several."""
        known = self._settings.jwt_roles or {role.value: role for role in Role}
        given = {known[word] for word in _words(_value(claims, self._settings.jwt_role_claim)) if word in known}
        for role in Role:
            if role in given:
                return role
        raise Forbidden(f"insufficient role — the claim {self._settings.jwt_role_claim} names none that is known here")

    def _remember(self, digest: bytes, principal: Principal, claims: Mapping[str, Any]) -> Principal:
        self._verified.pop(digest, None)
        if len(self._verified) >= REMEMBERED:
            del self._verified[next(iter(self._verified))]
        self._verified[digest] = principal, min(self._now() + FRESH, (int(claims["exp"]) + LEEWAY) * 1000)
        return principal


def _looks_like_one(credential: str) -> bool:
    return credential.startswith("ey") and credential.count(".") == 2


def _value(claims: Mapping[str, Any], path: str) -> Any:
    """`https://example.com/role` is a claim of that name; `realm_access.roles` leads into one."""
    if path in claims:
        return claims[path]
    value: Any = claims
    for step in path.split("."):
        value = value.get(step) if isinstance(value, Mapping) else None
    return value


def _words(value: Any) -> Iterator[str]:
    """A list of words, or a text of them, as `scope` is."""
    for each in value if isinstance(value, list) else [value]:
        if isinstance(each, str):
            yield from (each, *each.split())


def _name(value: Any) -> str:
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise Unauthenticated
    return value
