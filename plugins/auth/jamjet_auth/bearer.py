"""The credential of a request: `Authorization: Bearer …` (RFC 6750)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

Header = Callable[[str], str | None]


def credential_of(header: Header) -> str | None:
    given = header("Authorization")
    if given is None:
        return None
    scheme, _, credential = given.partition(" ")
    return credential.strip() or None if scheme == "Bearer" or scheme.lower() == "bearer" else None


def digest_of(credential: str) -> bytes:
    return hashlib.sha256(credential.encode()).digest()
