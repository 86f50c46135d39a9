"""The first operator: without one, nobody could make a token for anybody."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from jamjet_kernel import DEFAULT_TENANT, Conflict, PluginError, Principal, Role, Token
from jamjet_kernel.runtime import Runtime, audited, keep_secret

from .api_tokens import new_token
from .bearer import digest_of
from .settings import AuthSettings

SHORT = 32
"""Characters below which a chosen token can be guessed, unless it is random to the last bit."""

_RUNTIME = Principal("runtime")

log = logging.getLogger("jamjet.auth")


FIRST = "tok_first"
"""The id of the first token, so that of several processes that make one at once, one is made."""


@contextlib.asynccontextmanager
async def with_an_operator(runtime: Runtime, settings: AuthSettings) -> AsyncIterator[None]:
    if settings.bootstrap_token is not None:
        await _have(runtime, settings.bootstrap_token.get_secret_value())
    elif not await runtime.storage.tokens.page(DEFAULT_TENANT, limit=1):
        await _make(runtime, runtime.settings.operator_token_file)
    yield


async def _have(runtime: Runtime, plain_text: str) -> None:
    found = await runtime.storage.tokens.by_digest(digest_of(plain_text))
    if found is None:
        others = await runtime.storage.tokens.page(DEFAULT_TENANT, limit=1)
        # Processes that start at once, with the same token, find none: one of them adds it.
        if await _add(runtime, plain_text, runtime.world.new_id("tok")) and others and runtime.membership.others:
            log.warning(
                "JAMJET_BOOTSTRAP_TOKEN is new to a database that other processes use already, and is one more token of"
                " an operator by now; was it meant to be the same for all of them?"
            )
    elif found.revoked_at is not None:
        log.warning("JAMJET_BOOTSTRAP_TOKEN is a token that was revoked, and stays so: choose another value")
    if len(plain_text) < SHORT:
        log.warning("JAMJET_BOOTSTRAP_TOKEN has less than %d characters: it may be guessed", SHORT)


async def _make(runtime: Runtime, file: Path) -> None:
    plain_text, is_new = _kept(file)
    if await _add(runtime, plain_text, FIRST):
        if is_new:
            # Not by way of the log: logs are kept and sent around.
            told = f"The operator's token, shown this once and kept in {file}: {plain_text}"
            print(told, file=sys.stderr, flush=True)
    elif await runtime.storage.tokens.by_digest(digest_of(plain_text)) is None:
        log.warning("another process made the first operator's token, and keeps it in its JAMJET_HOME")
        file.unlink(missing_ok=True)


def _kept(file: Path) -> tuple[str, bool]:
    """From the file; where there is none, it is made first: so a crash in between locks nobody out. Whether it was."""
    plain_text = new_token()
    try:
        if not file.exists():
            keep_secret(file, f"{plain_text}\n".encode())
        kept = file.read_text().strip()
    except (OSError, ValueError) as error:
        raise PluginError(
            f"cannot keep the first operator's token in {file}: {error}; set JAMJET_HOME or JAMJET_BOOTSTRAP_TOKEN"
        ) from error
    if not kept:
        raise PluginError(f"{file} should hold the operator's token and is empty: delete it, a new one is made")
    return kept, kept == plain_text


async def _add(runtime: Runtime, plain_text: str, token_id: str) -> bool:
    """False: another process was faster."""
    world = runtime.world
    token = Token(
        tenant_id=DEFAULT_TENANT,
        token_id=token_id,
        name="bootstrap",
        role=Role.OPERATOR,
        digest=digest_of(plain_text),
        created_at=world.now(),
        created_by=_RUNTIME.id,
    )
    told = audited(
        world, _RUNTIME, "token_created", resource=f"token/{token.token_id}", name=token.name, role=token.role
    )
    try:
        await runtime.storage.tokens.add(DEFAULT_TENANT, token, audit=[told])
    except Conflict:
        return False
    return True
