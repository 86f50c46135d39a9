"""Tokens: make one, list them, revoke one. For operators."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
from falcon.asgi import Request, Response
from pydantic import Field

from jamjet_kernel import (
    DEFAULT_TENANT,
    Access,
    Conflict,
    Forbidden,
    Invalid,
    KeyTaken,
    NotFound,
    Operation,
    Principal,
    Problem,
    Receipt,
    Role,
    Route,
    Token,
)
from jamjet_kernel.http import (
    Answer,
    Body,
    Listing,
    Name,
    Page,
    Timestamp,
    answer,
    body,
    created,
    cursors,
    no_query,
    optional_timestamp,
    principal_of,
    query,
    timestamp,
)
from jamjet_kernel.runtime import Once, Runtime, audited

from .api_tokens import ApiTokens, new_token
from .bearer import digest_of


def routes(runtime: Runtime, api_tokens: ApiTokens) -> Iterator[Route]:
    resource = Tokens(runtime, api_tokens)
    make = Operation(
        "Make a token",
        Access.ADMIN,
        {201: NewToken},
        body=TokenCreation,
        tag="tokens",
        description="The plain text is answered this once: the same Idempotency-Key again makes none, and is a 409.",
    )
    show = Operation("List the tokens", Access.ADMIN, {200: TokenList}, query=Page, tag="tokens")
    revoke = Operation(
        "Revoke a token", Access.ADMIN, {200: RevokedToken}, tag="tokens", description="At once, and for good."
    )
    yield Route("/tokens", resource, {"GET": show, "POST": make})
    yield Route("/tokens/{token_id}", resource, {"DELETE": revoke}, "one")


class TokenCreation(Body):
    name: Name = Field(description="What it is for.", examples=["ci"])
    role: Annotated[Role, Field(strict=False)]
    tenant_id: Name | None = Field(
        None, description="Another tenant's only for operators of the default one.", examples=["acme"]
    )
    expires_at: Timestamp | None = Field(None, description="Default: never.")


class TokenFields(Answer):
    token_id: str = Field(examples=["tok_0198c2"])
    name: str
    role: Role
    tenant_id: str
    created_at: Timestamp
    created_by: str = Field(description="Who made it.")
    expires_at: Timestamp | None


class NewToken(TokenFields):
    token: str = Field(description="Its plain text, this once.")


class ListedToken(TokenFields):
    revoked_at: Timestamp | None
    last_used_at: Timestamp | None = Field(description="To the minute.")


class TokenList(Listing):
    tokens: list[ListedToken]


class RevokedToken(Answer):
    token_id: str
    revoked: Literal[True]


class Tokens:
    def __init__(self, runtime: Runtime, api_tokens: ApiTokens) -> None:
        self._runtime = runtime
        self._stored = runtime.storage.tokens
        self._api_tokens = api_tokens
        self._world = runtime.world

    async def on_get(self, req: Request, resp: Response) -> None:
        asked = query(req, Page)
        after = cursors.read(asked.cursor, tuple[cursors.Text])
        found = await self._stored.page(
            principal_of(req).tenant_id, limit=asked.limit + 1, after=after[0] if after else None
        )
        shown, cursor = cursors.page(found, asked.limit, lambda token: (token.token_id,))
        answer(resp, {"tokens": [_listed(token) for token in shown], "next_cursor": cursor})

    async def on_post(self, req: Request, resp: Response) -> None:
        given, once = await body(req, TokenCreation, self._runtime.settings.max_body_bytes)
        principal = principal_of(req)
        plain_text = new_token()
        token = Token(
            tenant_id=await self._tenant(principal, given.tenant_id),
            token_id=self._world.new_id("tok"),
            name=given.name,
            role=given.role,
            digest=digest_of(plain_text),
            created_at=self._world.now(),
            created_by=principal.id,
            expires_at=self._future(given.expires_at),
        )
        await self._add(principal, token, once)
        created(resp, {**_fields(token), "token": plain_text}, "tokens", token.token_id)

    async def on_delete_one(self, req: Request, resp: Response, token_id: str) -> None:
        no_query(req)
        principal = principal_of(req)
        told = audited(self._world, principal, "token_revoked", resource=f"token/{token_id}")
        token = await self._stored.revoke(principal.tenant_id, token_id, self._world.now(), [told])
        if token is None:
            raise NotFound(f"token {token_id}")
        self._api_tokens.forget(token.digest)
        answer(resp, {"token_id": token_id, "revoked": True})

    async def _tenant(self, principal: Principal, wanted: str | None) -> str:
        if wanted is None or wanted == principal.tenant_id:
            return principal.tenant_id
        if principal.tenant_id != DEFAULT_TENANT:
            raise Forbidden("only operators of the default tenant make tokens for another one")
        if await self._runtime.storage.tenants.get(wanted) is None:
            raise NotFound(f"tenant {wanted}")
        return wanted

    def _future(self, expires_at: str | None) -> int | None:
        if expires_at is None:
            return None
        moment = _milliseconds(expires_at)
        if moment <= self._world.now():
            raise Invalid([Problem("expires_at", "must be in the future")])
        return moment

    async def _add(self, principal: Principal, token: Token, once: Once | None) -> None:
        receipt = Receipt(once.key, once.fingerprint, token.token_id, token.created_at) if once else None
        told = audited(
            self._world,
            principal,
            "token_created",
            resource=f"token/{token.token_id}",
            name=token.name,
            role=token.role,
            expires_at=optional_timestamp(token.expires_at),
        )
        try:
            await self._stored.add(token.tenant_id, token, receipt, [told])
        except KeyTaken as taken:
            raise Conflict(
                "a token was made by a request with this Idempotency-Key, and its plain text is answered only once;"
                " if it is lost, revoke that token and make another"
            ) from taken


def _milliseconds(text: str) -> int:
    try:
        moment = msgspec.convert(text, Annotated[datetime, msgspec.Meta(tz=True)])
    except msgspec.ValidationError:
        raise Invalid([Problem("expires_at", "must be a time of RFC 3339, such as 2027-01-31T12:00:00Z")]) from None
    return int(moment.timestamp() * 1000)


def _fields(token: Token) -> dict[str, Any]:
    return {
        "token_id": token.token_id,
        "name": token.name,
        "role": token.role,
        "tenant_id": token.tenant_id,
        "created_at": timestamp(token.created_at),
        "created_by": token.created_by,
        "expires_at": optional_timestamp(token.expires_at),
    }


def _listed(token: Token) -> dict[str, Any]:
    times = {name: optional_timestamp(getattr(token, name)) for name in ("revoked_at", "last_used_at")}
    return {**_fields(token), **times}
