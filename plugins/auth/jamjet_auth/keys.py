"""The public keys of an identity provider, fetched when they are needed and again when they are changed."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jwt
import msgspec

from jamjet_kernel import Unauthenticated

LASTS = 3600.0
PAUSE = 10.0
"""Seconds between two attempts: whoever invents key ids does not make us ask the provider more often."""

MAX_BYTES = 2**20

# Symmetric keys and algorithms are missing on purpose: with them, whoever can read a key can sign.
_ALGORITHMS = {
    "RSA": ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    "EC": ("ES256", "ES384", "ES512"),
    "OKP": ("EdDSA",),
}

log = logging.getLogger("jamjet.auth")


@dataclass(frozen=True)
class Key:
    public_key: Any
    algorithms: Sequence[str]


class ProvidersKeys:
    def __init__(self, issuer: str, jwks_url: str | None) -> None:
        self._issuer = issuer
        self._url = jwks_url
        self._keys: Mapping[str | None, Key] = {}
        self._fetching = asyncio.Lock()
        self._tried_at = self._fetched_at = -LASTS
        _warn_of_plain_http(jwks_url or issuer)

    async def find(self, kid: object) -> Key:
        """Raises `Unauthenticated` for a key that the provider does not have, or that could not be fetched."""
        if time.monotonic() - self._fetched_at >= LASTS or kid not in self._keys:
            await self._refresh()
        key = self._keys.get(kid) if isinstance(kid, str | None) else None
        if key is None:
            raise Unauthenticated
        return key

    async def _refresh(self) -> None:
        """What was fetched before stays when the provider cannot be reached."""
        async with self._fetching:
            if time.monotonic() - self._tried_at < PAUSE:
                return
            self._tried_at = time.monotonic()
            try:
                self._keys = _usable(await self._fetched())
                self._fetched_at = time.monotonic()
            except (OSError, ValueError, jwt.PyJWTError) as error:
                log.warning("the keys of %s cannot be fetched: %s", self._issuer, error or type(error).__name__)

    async def _fetched(self) -> Any:
        if self._url is None:
            found = await _json(f"{self._issuer.rstrip('/')}/.well-known/openid-configuration")
            # OpenID Connect Discovery, 4.3: the document must be this issuer's.
            if not isinstance(found, dict) or found.get("issuer") != self._issuer:
                raise ValueError("its configuration is that of another issuer")
            self._url = str(found.get("jwks_uri"))
        return await _json(self._url)


async def _json(url: str) -> Any:
    import httpx

    try:
        async with (
            httpx.AsyncClient(timeout=5, follow_redirects=False) as client,
            client.stream("GET", url, headers={"Accept": "application/json"}) as answer,
        ):
            answer.raise_for_status()
            content = b""
            async for chunk in answer.aiter_bytes():
                content += chunk
                if len(content) > MAX_BYTES:
                    raise ValueError(f"{url} answers more than {MAX_BYTES} bytes")
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise OSError(f"{url}: {error or type(error).__name__}") from error
    return msgspec.json.decode(content)


def _usable(found: Any) -> Mapping[str | None, Key]:
    """The keys that verify signatures. Where there is one only, a token need not name it."""
    listed = found.get("keys") if isinstance(found, dict) else None
    if not isinstance(listed, list):
        raise ValueError("what was found is no JSON Web Key Set")
    keys: dict[str | None, Key] = {}
    for each in listed:
        if isinstance(each, dict) and (key := _key(each)) is not None:
            kid = each.get("kid")
            keys[kid if isinstance(kid, str) else None] = key
    return {**keys, None: next(iter(keys.values()))} if len(keys) == 1 else keys


def _key(described: dict[str, Any]) -> Key | None:
    algorithms = _ALGORITHMS.get(str(described.get("kty")), ())
    if (only := described.get("alg")) is not None:
        algorithms = tuple(each for each in algorithms if each == only)
    if not algorithms or described.get("use", "sig") != "sig":
        return None
    try:
        return Key(jwt.PyJWK(described, algorithm=algorithms[0]).key, algorithms)
    except (jwt.PyJWTError, ValueError, TypeError) as error:
        log.warning("the provider's key %s cannot be used: %s", described.get("kid"), error)
        return None


def _warn_of_plain_http(url: str) -> None:
    if not url.startswith("https:"):
        log.warning("the provider's keys come from %s, unencrypted: who controls the network can replace them", url)
