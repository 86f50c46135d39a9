"""API tokens: random, kept by their digest, looked up seldom."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import string
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import TypeVar

from jamjet_kernel import Principal, StorageError, Token, Tokens, Unauthenticated

from .bearer import Header, credential_of, digest_of

PREFIX = "jam_"
"""By it people, and scanners for leaked secrets, recognise a token."""

FRESH = 5_000
"""Milliseconds for which a look-up is believed: so long another process may take to notice a revocation."""

NOTED_EVERY = 60.0
REMEMBERED = 10_000

_ALPHABET = string.ascii_letters + string.digits
_LENGTH = 43  # of 62 characters: 256 bits

log = logging.getLogger("jamjet.auth")


def new_token() -> str:
    return PREFIX + "".join(secrets.choice(_ALPHABET) for _ in range(_LENGTH))


@dataclass(slots=True)
class _Known:
    token: Token
    principal: Principal
    until: int


class ApiTokens:
    """An authenticator. What it looked up, and what it did not find, it remembers for a few seconds."""

    def __init__(self, tokens: Tokens, now: Callable[[], int]) -> None:
        self._tokens = tokens
        self._now = now
        self._known: dict[bytes, _Known] = {}
        self._refused: dict[bytes, int] = {}
        self._uses: dict[tuple[str, str], int] = {}
        self._changes = 0

    async def authenticate(self, header: Header) -> Principal | None:
        credential = credential_of(header)
        if credential is None:
            return None
        now = self._now()
        digest = digest_of(credential)
        known = self._known.get(digest)
        if known is None or known.until <= now:
            known = await self._found(digest, now)
        if known is not None:
            self._uses[known.token.tenant_id, known.token.token_id] = now
            return known.principal
        if credential.startswith(PREFIX):
            raise Unauthenticated
        return None  # another authenticator may know it

    def forget(self, digest: bytes) -> None:
        """The token is not as it was."""
        self._changes += 1
        self._known.pop(digest, None)
        self._refused.pop(digest, None)

    @contextlib.asynccontextmanager
    async def noting_their_use(self) -> AsyncIterator[None]:
        noting = asyncio.create_task(self._note_now_and_then())
        try:
            yield
        finally:
            noting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await noting
            await self.note_use()

    async def note_use(self) -> None:
        """Writes when which token was used last: all of them in one transaction."""
        uses, self._uses = self._uses, {}
        try:
            await self._tokens.used([(*key, at) for key, at in uses.items()])
        except StorageError as error:
            log.warning("the last use of %d tokens was not noted: %s", len(uses), error)

    async def _note_now_and_then(self) -> None:
        while True:
            await asyncio.sleep(NOTED_EVERY)
            await self.note_use()

    async def _found(self, digest: bytes, now: int) -> _Known | None:
        if self._refused.get(digest, 0) > now:
            return None
        changes = self._changes
        if (stale := self._known.get(digest)) and not _has_ended(stale.token, now):
            stale.until = _fresh_until(stale.token, now)  # the other requests of this moment need not ask as well
        try:
            token = await self._tokens.by_digest(digest)
        finally:
            self._known.pop(digest, None)
        is_current = changes == self._changes  # else what was read may be older than a change
        if token is None or _has_ended(token, now):
            if is_current:
                _remember(self._refused, digest, now + FRESH)
            return None
        known = _Known(token, _principal(token), _fresh_until(token, now))
        if is_current:
            _remember(self._known, digest, known)
        return known


def _has_ended(token: Token, now: int) -> bool:
    return token.revoked_at is not None or (token.expires_at is not None and token.expires_at <= now)


def _fresh_until(token: Token, now: int) -> int:
    return now + FRESH if token.expires_at is None else min(now + FRESH, token.expires_at)


def _principal(token: Token) -> Principal:
    return Principal(f"token:{token.token_id}", token.tenant_id, token.role)


V = TypeVar("V")


def _remember(among: dict[bytes, V], digest: bytes, value: V) -> None:
    """The oldest makes room. What is good and what is refused have a room each: a guesser pushes nobody out."""
    among.pop(digest, None)
    if len(among) >= REMEMBERED:
        del among[next(iter(among))]
    among[digest] = value
