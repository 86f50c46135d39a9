"""What the authenticator of API tokens asks the storage, and when."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

import pytest

from jamjet_auth import api_tokens
from jamjet_auth.api_tokens import FRESH, ApiTokens, new_token
from jamjet_auth.bearer import digest_of
from jamjet_kernel import Principal, Role, StorageError, Token, Unauthenticated

GOOD = "jam_good"


class Stored:
    """The two questions of the port that are asked here."""

    def __init__(self, *tokens: Token) -> None:
        self.tokens = {token.digest: token for token in tokens}
        self.asked = 0
        self.written: list[tuple[str, str, int]] = []
        self.answering = asyncio.Event()
        self.answering.set()
        self.fails = False

    async def by_digest(self, digest: bytes) -> Token | None:
        self.asked += 1
        found = self.tokens.get(digest)
        await self.answering.wait()
        if self.fails:
            raise StorageError
        return found

    async def used(self, uses: list[tuple[str, str, int]]) -> None:
        if self.fails:
            raise StorageError
        self.written += uses


class Clock:
    def __init__(self) -> None:
        self.now = 1_700_000_000_000

    def __call__(self) -> int:
        return self.now


def token(plain_text: str = GOOD, **changes: object) -> Token:
    made = Token("acme", f"tok_{plain_text}", "ci", Role.VIEWER, digest_of(plain_text), 1, "test")
    return replace(made, **changes)  # type: ignore[arg-type]


def of(plain_text: str) -> Callable[[str], str | None]:
    return {"Authorization": f"Bearer {plain_text}"}.get


@pytest.fixture
def clock() -> Clock:
    return Clock()


def authenticator(stored: Stored, clock: Clock) -> ApiTokens:
    return ApiTokens(stored, clock)  # type: ignore[arg-type]  # the part of the port that it uses


async def test_a_known_token_is_looked_up_every_few_seconds_only(clock: Clock) -> None:
    stored = Stored(token())
    tokens = authenticator(stored, clock)

    for _ in range(100):
        assert await tokens.authenticate(of(GOOD)) == Principal(f"token:tok_{GOOD}", "acme", Role.VIEWER)
    once = stored.asked
    clock.now += FRESH
    await tokens.authenticate(of(GOOD))

    assert (once, stored.asked) == (1, 2)


async def test_requests_at_once_need_one_look_up(clock: Clock) -> None:
    stored = Stored(token())
    tokens = authenticator(stored, clock)
    await tokens.authenticate(of(GOOD))
    clock.now += FRESH
    stored.asked = 0

    await asyncio.gather(*(tokens.authenticate(of(GOOD)) for _ in range(50)))

    assert stored.asked == 1


async def test_an_unknown_token_is_remembered_as_such(clock: Clock) -> None:
    stored = Stored()
    tokens = authenticator(stored, clock)

    for _ in range(10):
        with pytest.raises(Unauthenticated):
            await tokens.authenticate(of("jam_unknown"))

    assert stored.asked == 1


async def test_guessing_neither_fills_the_memory_nor_pushes_anybody_out(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api_tokens, "REMEMBERED", 20)
    stored = Stored(token())
    tokens = authenticator(stored, clock)
    await tokens.authenticate(of(GOOD))

    for number in range(100):
        with pytest.raises(Unauthenticated):
            await tokens.authenticate(of(f"jam_{number}"))
    asked = stored.asked
    await tokens.authenticate(of(GOOD))

    assert stored.asked == asked
    assert len(tokens._refused) == 20


async def test_what_another_scheme_may_know_is_left_to_it(clock: Clock) -> None:
    tokens = authenticator(Stored(), clock)

    assert await tokens.authenticate(of("v4.public.something")) is None
    assert await tokens.authenticate({"Authorization": "Basic eDp5"}.get) is None
    assert await tokens.authenticate({}.get) is None


async def test_a_chosen_token_needs_no_prefix(clock: Clock) -> None:
    tokens = authenticator(Stored(token("chosen by an operator")), clock)

    assert await tokens.authenticate(of("chosen by an operator")) is not None


async def test_a_token_that_ends_soon_is_not_believed_longer(clock: Clock) -> None:
    stored = Stored(token(expires_at=clock.now + 10))
    tokens = authenticator(stored, clock)
    await tokens.authenticate(of(GOOD))

    clock.now += 10

    with pytest.raises(Unauthenticated):
        await tokens.authenticate(of(GOOD))


async def test_a_look_up_that_a_revocation_overtakes_is_not_remembered(clock: Clock) -> None:
    stored = Stored(token())
    tokens = authenticator(stored, clock)
    stored.answering.clear()
    overtaken = asyncio.create_task(tokens.authenticate(of(GOOD)))
    await asyncio.sleep(0)

    stored.tokens[digest_of(GOOD)] = token(revoked_at=clock.now)
    tokens.forget(digest_of(GOOD))
    stored.answering.set()
    await overtaken

    with pytest.raises(Unauthenticated):
        await tokens.authenticate(of(GOOD))


async def test_nobody_is_let_in_while_the_storage_cannot_be_asked(clock: Clock) -> None:
    stored = Stored(token())
    tokens = authenticator(stored, clock)
    await tokens.authenticate(of(GOOD))
    clock.now += FRESH
    stored.fails = True

    for _ in range(2):
        with pytest.raises(StorageError):
            await tokens.authenticate(of(GOOD))


async def test_uses_are_written_together_and_the_last_one_counts(clock: Clock) -> None:
    stored = Stored(token(), token("jam_other"))
    tokens = authenticator(stored, clock)

    async with tokens.noting_their_use():
        for _ in range(3):
            clock.now += 1
            await tokens.authenticate(of(GOOD))
            await tokens.authenticate(of("jam_other"))
        assert stored.written == []

    assert sorted(stored.written) == [("acme", "tok_jam_good", clock.now), ("acme", "tok_jam_other", clock.now)]


async def test_a_use_that_cannot_be_written_hurts_nobody(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    stored = Stored(token())
    tokens = authenticator(stored, clock)
    await tokens.authenticate(of(GOOD))
    stored.fails = True

    await tokens.note_use()

    assert "was not noted" in caplog.text


def test_a_new_token_is_recognisable_and_random() -> None:
    made = {new_token() for _ in range(1000)}

    assert len(made) == 1000
    assert all(text.startswith("jam_") and text[4:].isalnum() and len(text) == 47 for text in made)
